// SPDX-License-Identifier: GPL-3.0-or-later
//
// The keeper: the catalogue is rebuilt from the manifests in the store, and copied to the store at an interval.
#include <fcntl.h>
#include <unistd.h>
#include <algorithm>
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

// Whole, and nothing of it is known: what is garbage stays garbage, and what is being made is not done.
Result<bool> StoreKeeper::may_import(const rpc::FoundImage& image, const Listing& listing) const {
    if (!is_whole(image, listing)) return false;
    std::vector<std::string> paths{image.image().manifest()};
    for (const rpc::Pack& pack : image.image().packs()) paths.push_back(pack.path());
    SCKPT_ASSIGN(const std::vector<FileUse> uses, catalogue_.uses(paths));
    return uses.front() == FileUse::unknown && std::ranges::find(uses, FileUse::garbage) == uses.end();
}

Result<> StoreKeeper::rebuild(const Tell<rpc::RebuildProgress>& tell, const Cancelled& cancelled) {
    SCKPT_ASSIGN(const Work work, begin_work(work_, cancelled));
    rpc::RebuildProgress progress;
    progress.set_doing("reading the manifests of the store");
    if (tell) tell(progress);
    SCKPT_ASSIGN(const Listing listing, scan(true, kSilence, cancelled));
    progress.set_found(listing.images.size() + listing.unusable.size());
    progress.set_unusable(listing.unusable.size());
    for (const std::string& text : listing.unusable) log_warning("rebuilding the catalogue: {}", text);

    std::vector<const rpc::FoundImage*> images;
    for (const auto& [path, image] : listing.images) images.push_back(&image);
    std::ranges::stable_sort(images, {}, [](const rpc::FoundImage* image) { return image->checkpoint_id(); });
    for (const rpc::FoundImage* image : images) {
        if (cancelled && cancelled()) return fail(Errc::busy, "the rebuilding was ended before it was done; it may be begun again");
        const std::string& path = image->image().manifest();
        progress.set_doing(path);
        const Result<Manifest> manifest = parse_head(image->head());
        SCKPT_ASSIGN(const bool may, may_import(*image, listing));
        Result<bool> imported = false;
        if (manifest && may) {
            SCKPT_ASSIGN(const StoredImage stored, to_stored(image->image()));
            imported = catalogue_.import(*manifest, stored);
        }
        if (!manifest || !imported || (!may && !is_whole(*image, listing))) {
            progress.set_unusable(progress.unusable() + 1);
            log_warning("rebuilding the catalogue: {}: {}", path,
                        !manifest   ? manifest.error().text
                        : !imported ? imported.error().text
                                    : "a pack that it refers to is missing");
        } else if (*imported) {
            progress.set_imported(progress.imported() + 1);
        }
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
