// SPDX-License-Identifier: GPL-3.0-or-later
//
// The keeper: the catalogue is rebuilt from the manifests in the store, and copied to the store at an interval.
#include <fcntl.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <ctime>
#include <format>

#include "common/log.h"
#include "daemon/store_keeper.h"
#include "image_store/manifest.h"

namespace sckpt {
namespace {

using FileUse = Catalogue::FileUse;

// Sorts by time as by name: a node keeps the newest few.
std::string backup_name(std::int64_t now) {
    const time_t seconds = now;
    tm parts{};
    gmtime_r(&seconds, &parts);
    char text[64];
    strftime(text, sizeof text, "catalogue-%Y%m%dT%H%M%SZ.sqlite", &parts);
    return text;
}

std::string backup_path(const Config& config) { return config.controller.state_directory + "/catalogue.backup"; }

}  // namespace

// Nothing of it is known: what is garbage stays garbage, and what is being made is not done.
Result<bool> StoreKeeper::may_import(const rpc::FoundImage& image) const {
    std::vector<std::string> paths{image.image().manifest()};
    for (const rpc::Pack& pack : image.image().packs()) paths.push_back(pack.path());
    SCKPT_ASSIGN(const std::vector<FileUse> uses, catalogue_.uses(paths));
    return uses.front() == FileUse::unknown && std::ranges::find(uses, FileUse::garbage) == uses.end();
}

Result<> StoreKeeper::import_checkpoint(const FoundImages& images, const Listing& listing, rpc::RebuildProgress& progress) {
    const TellUnusable tell = [&](const std::string& manifest, const std::string& why) {
        progress.set_unusable(progress.unusable() + 1);
        log_warning("rebuilding the catalogue: {}: {}", manifest, why);
    };
    SCKPT_ASSIGN(const std::vector<FoundImage> found, usable(images, listing, tell));
    for (const rpc::FoundImage* image : images) {
        SCKPT_ASSIGN(const bool may, may_import(*image));
        if (!may) return {};
    }
    if (found.empty()) return {};
    const Result<bool> imported = catalogue_.import(found);
    if (imported) {
        if (*imported) progress.set_imported(progress.imported() + found.size());
        return {};
    }
    constexpr std::array kOfImages{Errc::not_found, Errc::corrupt, Errc::exists, Errc::invalid};
    if (std::ranges::find(kOfImages, imported.error().code) == kOfImages.end()) return std::unexpected(imported.error());
    for (const FoundImage& image : found) tell(image.stored.manifest, imported.error().text);
    return {};
}

// What cannot be read is tried once more, by another node if there is one: a moment's trouble, or one node's, must not cost a checkpoint.
Result<StoreKeeper::Listing> StoreKeeper::scan_well(const Cancelled& cancelled) {
    SCKPT_ASSIGN(Listing listing, scan(true, kSilence, cancelled));
    if (listing.unreadable.empty()) return listing;
    SCKPT_ASSIGN(Listing again, scan(true, kSilence, cancelled));
    std::erase_if(again.unreadable, [&](const auto& entry) { return !listing.unreadable.contains(entry.first); });
    listing.files.insert(again.files.begin(), again.files.end());
    listing.images.insert(again.images.begin(), again.images.end());
    listing.unreadable = std::move(again.unreadable);
    return listing;
}

Result<> StoreKeeper::rebuild(const Tell<rpc::RebuildProgress>& tell, const Cancelled& cancelled) {
    SCKPT_ASSIGN(const Work work, begin_work(work_, cancelled));
    rpc::RebuildProgress progress;
    progress.set_doing("reading the manifests of the store");
    if (tell) tell(progress);
    SCKPT_ASSIGN(const Listing listing, scan_well(cancelled));
    progress.set_found(listing.images.size() + listing.unusable.size() + listing.unreadable.size());
    progress.set_unusable(listing.unusable.size() + listing.unreadable.size());
    for (const std::string& text : listing.unusable) log_warning("rebuilding the catalogue: {}", text);
    std::vector<Store::Unreadable> unreadable;
    for (const auto& [path, why] : listing.unreadable) {
        log_error("rebuilding the catalogue: {} cannot be read: {}", path, why);
        unreadable.push_back({path, why});
    }
    SCKPT_TRY(catalogue_.set_unreadable(unreadable));  // before any job may be told that it has no checkpoint
    for (const auto& [id, images] : by_checkpoint(listing)) {
        if (cancelled && cancelled()) return fail(Errc::busy, "the rebuilding was ended before it was done; it may be begun again");
        progress.set_doing(images.front()->image().manifest());
        SCKPT_TRY(import_checkpoint(images, listing, progress));
        if (tell) tell(progress);
    }
    SCKPT_TRY(catalogue_.set_rebuilt());
    log_info("the catalogue was rebuilt: {} manifests found, {} images taken in, {} unusable", progress.found(), progress.imported(),
             progress.unusable());
    progress.set_doing("");
    progress.set_done(true);
    if (tell) tell(progress);
    return {};
}

Result<> StoreKeeper::backup(std::int64_t now) {
    const std::string path = backup_path(config_);
    if (unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(path);
    SCKPT_TRY(catalogue_.backup(path));
    rpc::StoreOrder order_;
    order_.mutable_backup()->set_name(backup_name(now));
    const auto done = order(order_, std::chrono::seconds(2 * config_.store.timeout_seconds + 60), {});
    if (unlink(path.c_str()) != 0) log_warning("{}: {}", path, strerror(errno));
    if (!done) return std::unexpected(done.error().context("copying the catalogue to the store"));
    backed_up_ = now;
    return {};
}

Result<UniqueFd> StoreKeeper::open_backup() const { return open_file(backup_path(config_), O_RDONLY | O_NOFOLLOW); }

}  // namespace sckpt
