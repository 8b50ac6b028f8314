// SPDX-License-Identifier: GPL-3.0-or-later
//
// Upkeep of the store from sckptd's side: removing, listing, checking, compacting, backups of the catalogue.
#include <algorithm>
#include <format>
#include <functional>
#include <optional>
#include <utility>

#include "daemon/manifest_check.h"
#include "daemon/store_client.h"
#include "daemon/store_session.h"
#include "image_store/names.h"

namespace sckpt {
namespace {

constexpr std::size_t kMaxListed = 20'000'000;  // files that a scan may tell of: more is a worker gone mad, not a store

std::vector<std::string> paths_of(const std::vector<ManifestName>& manifests) {
    std::vector<std::string> paths;
    for (const ManifestName& manifest : manifests) paths.push_back(manifest.path);
    return paths;
}

// Verifies each of these manifests as it comes; `verified` is told which it was.
auto only_these(const SealKeys& keys, const std::vector<ManifestName>& manifests,
                std::function<void(std::size_t number, const Manifest& manifest)> verified = {}) {
    return [&keys, &manifests, verified](const std::string& path, Result<ManifestCopy> copy) -> Result<> {
        const auto name = std::ranges::find(manifests, path, &ManifestName::path);
        if (name == manifests.end()) return fail(Errc::denied, path + " was not asked for");
        SCKPT_ASSIGN(const Manifest manifest, verified_manifest(keys, *name, std::move(copy)));
        if (verified) verified(static_cast<std::size_t>(name - manifests.begin()), manifest);
        return {};
    };
}

Result<> add_files(const Json& part, std::vector<Store::Listed>& files) {
    for (const Json& item : list_of(part, "files")) {
        if (files.size() >= kMaxListed) return fail(Errc::internal, "sckpt-store lists more files than a store can have");
        Store::Listed listed{text_of(item, "path"), number_of(item, "bytes"), static_cast<std::int64_t>(number_of(item, "modified"))};
        SCKPT_TRY(check_store_path(listed.path));
        files.push_back(std::move(listed));
    }
    return {};
}

// Made fit for a log.
std::string unreadable_of(const Json& part) { return error_of({{"text", text_of(part, "unreadable")}}).text; }

// Its own pack is the one of its own name; what others have was written for them.
StoreClient::Found found_image(const Manifest& manifest, StoredImage image) {
    image.plain_bytes = manifest.plain_bytes;
    image.packs = manifest.packs;
    for (const PackUse& pack : manifest.packs)
        if (asked_name(pack.path) == asked_name(image.manifest)) image.new_bytes += pack.bytes;
    return {std::move(image), manifest.identity, head_text(manifest)};
}

}  // namespace

Result<std::vector<Store::Unremoved>> StoreClient::remove(const std::vector<std::string>& paths, const StoreCall& call) const {
    SCKPT_ASSIGN(const Json done, StoreSession(config_, start_, call).run({{"operation", "remove"}, {"paths", paths}}, {}, {}));
    std::vector<Store::Unremoved> unremoved;
    for (const Json& item : list_of(done, "unremoved")) {
        std::string path = text_of(item, "path");
        if (!std::ranges::contains(paths, path)) return fail(Errc::internal, "sckpt-store tells of a file that it was not to remove");
        unremoved.push_back({std::move(path), error_of(item).text});
    }
    return unremoved;
}

Result<> StoreClient::quarantine(const std::vector<std::string>& paths, const StoreCall& call) const {
    SCKPT_TRY(StoreSession(config_, start_, call).run({{"operation", "quarantine"}, {"paths", paths}}, {}, {}));
    return {};
}

Result<StoreClient::Scan> StoreClient::scan(bool images, const StoreCall& call) const {
    SCKPT_ASSIGN(const SealKeys seals, keys());
    Scan scan;
    const StoreHandlers handlers{
        .manifest = [&](const std::string& path, Result<ManifestCopy> copy) -> Result<> {
            SCKPT_TRY(check_store_path(path));
            StoredImage image{.manifest = path};
            if (copy) image.digest = copy->hashes.digest;
            if (copy) image.new_bytes = copy->bytes;
            const auto manifest = sealed_manifest(seals, path, std::move(copy));
            if (manifest) scan.images.push_back(found_image(*manifest, std::move(image)));
            else if (manifest.error().code == Errc::corrupt) scan.unusable.push_back(path + ": " + manifest.error().text);
            else if (manifest.error().code != Errc::not_found) scan.unreadable.push_back({path, manifest.error().text});
            return {};
        },
        .part = [&](const Json& part) -> Result<> {
            if (text_of(part, "kind") != "unlisted") return add_files(part, scan.files);
            SCKPT_TRY(check_store_path(text_of(part, "path")));
            scan.unreadable.push_back({text_of(part, "path"), error_of(part).text});
            return {};
        }};
    SCKPT_ASSIGN(const Json done, StoreSession(config_, start_, call).run({{"operation", "scan"}, {"images", images}}, {}, handlers));
    scan.space = space_of(done.value("space", Json()));
    return scan;
}

Result<std::vector<StoreClient::Checked>> StoreClient::check(const std::vector<ManifestName>& manifests, bool quick, int threads,
                                                             const StoreCall& call) const {
    SCKPT_ASSIGN(const SealKeys seals, keys());
    std::vector<Checked> images;
    const auto verify = only_these(seals, manifests);
    const StoreHandlers handlers{
        .manifest = [&](const std::string& path, Result<ManifestCopy> copy) -> Result<> {
            const auto known = copy ? seals.verify(copy->hashes.parts, copy->hashes.seal) : Result<>();
            if (!known && known.error().code == Errc::unsupported) return fail(Errc::corrupt, path + ": " + known.error().text);
            return verify(path, std::move(copy));
        },
        .part = [&](const Json& part) -> Result<> {
            if (images.size() >= manifests.size()) return fail(Errc::internal, "sckpt-store has checked more images than it was given");
            images.push_back({texts_of(part, "faults"), text_of(part, "unreadable").empty() ? "" : unreadable_of(part)});
            return {};
        }};
    const Json order{{"operation", "check"}, {"manifests", paths_of(manifests)}, {"quick", quick}, {"threads", threads},
                     {"bytes_per_second", call.bytes_per_second}};
    SCKPT_TRY(StoreSession(config_, start_, call).run(order, {}, handlers));
    if (images.size() != manifests.size()) return fail(Errc::internal, "sckpt-store has not checked every image");
    return images;
}

Result<std::vector<StoredImage>> StoreClient::compact(const std::vector<ManifestName>& manifests, const std::vector<std::string>& rewrite,
                                                      int threads, const StoreCall& call) const {
    SCKPT_ASSIGN(const SealKeys seals, keys());
    std::vector<Manifest> verified(manifests.size());  // the images, as the old manifests have them
    std::size_t sealed = 0;                            // new ones come in the order of the old
    std::vector<StoredImage> images;
    const StoreHandlers handlers{.manifest = only_these(seals, manifests, [&](std::size_t number, const Manifest& manifest) {
                                     verified[number] = manifest.of_image();
                                 }),
                                 .seal = [&](std::string_view head, const Digest& rest) -> Result<Seal> {
                                     if (sealed == manifests.size()) return fail(Errc::denied, "an image has one manifest");
                                     return seal_as_ordered(seals, verified[sealed++], SealScope::image, head, rest);
                                 },
                                 .part = [&](const Json& part) -> Result<> {
                                     SCKPT_ASSIGN(StoredImage image, stored_image_of(part.value("image", Json())));
                                     images.push_back(std::move(image));
                                     return {};
                                 }};
    const Json order{{"operation", "compact"}, {"manifests", paths_of(manifests)}, {"rewrite", rewrite}, {"threads", threads},
                     {"bytes_per_second", call.bytes_per_second}};
    SCKPT_TRY(StoreSession(config_, start_, call).run(order, {}, handlers));
    if (images.size() != manifests.size()) return fail(Errc::internal, "sckpt-store has not rewritten every image");
    return images;
}

Result<> StoreClient::backup(const std::string& name, const std::function<Result<std::string>()>& next, const StoreCall& call) const {
    SCKPT_TRY(check_store_path(name));
    SCKPT_TRY(StoreSession(config_, start_, call).run({{"operation", "backup"}, {"name", name}}, {}, {.next = next}));
    return {};
}

}  // namespace sckpt
