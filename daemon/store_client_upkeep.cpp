// SPDX-License-Identifier: GPL-3.0-or-later
//
// Upkeep of the store from sckptd's side: removing, listing, checking, compacting, backups of the catalogue.
#include <algorithm>
#include <format>
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

// Verifies each of these manifests as it comes.
auto only_these(const SealKeys& keys, const std::vector<ManifestName>& manifests) {
    return [&keys, &manifests](const std::string& path, Result<ManifestCopy> copy) -> Result<> {
        const auto name = std::ranges::find(manifests, path, &ManifestName::path);
        if (name == manifests.end()) return fail(Errc::denied, path + " was not asked for");
        SCKPT_TRY(verified_manifest(keys, *name, std::move(copy)));
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

// Its own pack is the one of its own name; what others have was written for them.
StoreClient::Found found_image(const Manifest& manifest, StoredImage image) {
    image.plain_bytes = manifest.plain_bytes;
    image.packs = manifest.packs;
    for (const PackUse& pack : manifest.packs)
        if (asked_name(pack.path) == asked_name(image.manifest)) image.new_bytes += pack.bytes;
    return {std::move(image), manifest.identity, head_text(manifest)};
}

}  // namespace

Result<> StoreClient::remove(const std::vector<std::string>& paths, const StoreCall& call) const {
    SCKPT_TRY(StoreSession(config_, worker_, call).run({{"operation", "remove"}, {"paths", paths}}, {}, {}));
    return {};
}

Result<> StoreClient::quarantine(const std::vector<std::string>& paths, const StoreCall& call) const {
    SCKPT_TRY(StoreSession(config_, worker_, call).run({{"operation", "quarantine"}, {"paths", paths}}, {}, {}));
    return {};
}

Result<StoreClient::Scan> StoreClient::scan(bool images, const StoreCall& call) const {
    SCKPT_ASSIGN(const SealKeys seals, keys());
    Scan scan;
    std::optional<Error> unread;  // says nothing about the image: a scan that has not read everything is none
    const StoreHandlers handlers{
        .manifest = [&](const std::string& path, Result<ManifestCopy> copy) -> Result<> {
            SCKPT_TRY(check_store_path(path));
            StoredImage image{.manifest = path};
            if (copy) image.digest = copy->hashes.digest;
            if (copy) image.new_bytes = copy->bytes;
            const auto manifest = sealed_manifest(seals, path, std::move(copy));
            if (manifest) scan.images.push_back(found_image(*manifest, std::move(image)));
            else if (manifest.error().code == Errc::corrupt) scan.unusable.push_back(path + ": " + manifest.error().text);
            else if (manifest.error().code != Errc::not_found && !unread) unread = manifest.error().context(path);
            return {};
        },
        .part = [&](const Json& part) { return add_files(part, scan.files); }};
    SCKPT_ASSIGN(const Json done, StoreSession(config_, worker_, call).run({{"operation", "scan"}, {"images", images}}, {}, handlers));
    if (unread) return std::unexpected(*unread);
    scan.space = space_of(done.value("space", Json()));
    return scan;
}

Result<std::vector<std::vector<std::string>>> StoreClient::check(const std::vector<ManifestName>& manifests, bool quick, int threads,
                                                                 const StoreCall& call) const {
    SCKPT_ASSIGN(const SealKeys seals, keys());
    std::vector<std::vector<std::string>> faults;
    const StoreHandlers handlers{.manifest = only_these(seals, manifests), .part = [&](const Json& part) -> Result<> {
        if (faults.size() >= manifests.size()) return fail(Errc::internal, "sckpt-store has checked more images than it was given");
        faults.push_back(texts_of(part, "faults"));
        return {};
    }};
    const Json order{{"operation", "check"}, {"manifests", paths_of(manifests)}, {"quick", quick}, {"threads", threads},
                     {"bytes_per_second", call.bytes_per_second}};
    SCKPT_TRY(StoreSession(config_, worker_, call).run(order, {}, handlers));
    if (faults.size() != manifests.size()) return fail(Errc::internal, "sckpt-store has not checked every image");
    return faults;
}

Result<std::vector<StoredImage>> StoreClient::compact(const std::vector<ManifestName>& manifests, const std::vector<std::string>& rewrite,
                                                      int threads, const StoreCall& call) const {
    SCKPT_ASSIGN(const SealKeys seals, keys());
    std::size_t given = 0;
    std::vector<StoredImage> images;
    const StoreHandlers handlers{.manifest = only_these(seals, manifests),
                                 .seal = [&](const Digest& body) -> Result<Seal> {
                                     if (++given > manifests.size()) return fail(Errc::denied, "an image has one manifest");
                                     return seals.seal(body);
                                 },
                                 .part = [&](const Json& part) -> Result<> {
                                     SCKPT_ASSIGN(StoredImage image, stored_image_of(part.value("image", Json())));
                                     images.push_back(std::move(image));
                                     return {};
                                 }};
    const Json order{{"operation", "compact"}, {"manifests", paths_of(manifests)}, {"rewrite", rewrite}, {"threads", threads},
                     {"bytes_per_second", call.bytes_per_second}};
    SCKPT_TRY(StoreSession(config_, worker_, call).run(order, {}, handlers));
    if (images.size() != manifests.size()) return fail(Errc::internal, "sckpt-store has not rewritten every image");
    return images;
}

Result<> StoreClient::backup(const std::string& name, const std::function<Result<std::string>()>& next, const StoreCall& call) const {
    SCKPT_TRY(check_store_path(name));
    SCKPT_TRY(StoreSession(config_, worker_, call).run({{"operation", "backup"}, {"name", name}}, {}, {.next = next}));
    return {};
}

}  // namespace sckpt
