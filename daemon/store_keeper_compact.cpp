// SPDX-License-Identifier: GPL-3.0-or-later
//
// The keeper: packs with much dead space are rewritten; manifests of bad checkpoints are put aside.
#include <algorithm>
#include <format>
#include <set>
#include <string_view>

#include "common/bytes.h"
#include "common/log.h"
#include "daemon/store_keeper.h"
#include "image_store/names.h"

namespace sckpt {
namespace {

constexpr std::int64_t kAgainAfter = 86400;

}  // namespace

bool StoreKeeper::is_worth_it(const PackRow& pack) const {
    const std::uint64_t dead = pack.bytes - std::min(pack.used, pack.bytes);
    return dead >= limits_.dead_bytes && static_cast<double>(dead) >= limits_.dead_share * static_cast<double>(pack.bytes);
}

// So that nobody tries it again, and a rebuilt catalogue does not take it for whole. Done once more after a restart of sckptctld.
Result<> StoreKeeper::put_bad_aside() {
    SCKPT_ASSIGN(const std::vector<CheckpointRow> rows, catalogue_.checkpoints_in(CheckpointState::bad));
    rpc::StoreOrder order_;
    const auto carry_out = [&]() -> Result<> {
        SCKPT_TRY(order(order_, std::chrono::seconds(2 * config_.store.timeout_seconds + 60), {}));
        order_.Clear();
        return {};
    };
    for (const CheckpointRow& row : rows) {
        if (aside_.contains(row.id)) continue;
        SCKPT_ASSIGN(const std::vector<ImageRow> images, catalogue_.images(row.id));
        for (const ImageRow& image : images) {
            if (!image.manifest.empty()) order_.mutable_quarantine()->add_paths(image.manifest);
            if (static_cast<std::size_t>(order_.quarantine().paths_size()) >= limits_.files_in_order) SCKPT_TRY(carry_out());
        }
    }
    if (order_.has_quarantine()) SCKPT_TRY(carry_out());
    aside_.clear();  // ids of rows that are gone need not be remembered
    for (const CheckpointRow& row : rows) aside_.insert(row.id);
    return {};
}

Result<> StoreKeeper::compact(std::int64_t now, const Cancelled& cancelled) {
    SCKPT_ASSIGN(const std::vector<RowId> jobs, catalogue_.jobs_with_dead_space(limits_.dead_share, limits_.dead_bytes));
    std::erase_if(compact_after_, [&](const auto& entry) { return entry.second <= now; });
    Result<> first;
    for (const RowId job : jobs) {
        if (stopped() || cancelled()) return first;
        if (compact_after_.contains(job)) continue;
        auto done = compact_job(job, now, cancelled);
        if (done || done.error().code == Errc::busy) continue;  // busy: somebody has begun to need the old packs; another time
        compact_after_[job] = now + kAgainAfter;
        log_warning("rewriting packs of job row {}: {}", job, done.error().text);
        if (first) first = std::move(done);
    }
    return first;
}

// Task by task: it is images of the same task that share packs.
Result<> StoreKeeper::compact_job(RowId job, std::int64_t now, const Cancelled& cancelled) {
    std::map<std::string, rpc::Compact> tasks;
    SCKPT_ASSIGN(const std::vector<PackRow> packs, catalogue_.packs(job));
    for (const PackRow& pack : packs)
        if (is_worth_it(pack)) tasks[pack.task].add_rewrite(pack.path);
    SCKPT_ASSIGN(const std::vector<CheckpointRow> rows, catalogue_.checkpoints(job));
    for (const CheckpointRow& row : rows) {
        if (row.state == CheckpointState::failed) continue;
        if (row.state != CheckpointState::complete) return {};  // a drain is under way, or a bad one holds the old pack: another time
        SCKPT_ASSIGN(const std::vector<ImageRow> images, catalogue_.images(row.id));
        for (const ImageRow& image : images) {
            const auto task = tasks.find(image.task);
            if (task == tasks.end()) continue;
            rpc::ManifestRef& manifest = *task->second.add_manifests();
            manifest.set_path(image.manifest);
            manifest.set_digest(image.digest);
            manifest.set_checkpoint_id(static_cast<std::uint64_t>(row.id));
            manifest.set_task(image.task);
        }
    }
    for (const auto& [task, compact] : tasks) {
        if (stopped()) return {};
        if (compact.manifests().empty()) continue;  // removed since
        SCKPT_TRY(compact_images(compact, now, cancelled));
        log_info("job row {}, task {}: {} packs rewritten", job, task, compact.rewrite_size());
    }
    return {};
}

// Old and new files are both whole until the rows change over, in one transaction that is refused when anybody needs the old ones.
Result<> StoreKeeper::compact_images(const rpc::Compact& compact, std::int64_t now, const Cancelled& cancelled) {
    rpc::StoreOrder order_;
    *order_.mutable_compact() = compact;
    SCKPT_ASSIGN(const rpc::StoreReply reply, order(order_, kSilence, cancelled));
    if (reply.compacted_size() != compact.manifests_size())
        return fail(Errc::io, std::format("a node rewrote {} of {} images", reply.compacted_size(), compact.manifests_size()));
    std::vector<StoredImage> images;
    std::vector<Catalogue::Compacted> change;
    for (int i = 0; i < reply.compacted_size(); ++i) {
        SCKPT_ASSIGN(StoredImage stored, to_stored(reply.compacted(i)));
        images.push_back(stored);
        const rpc::ManifestRef& old = compact.manifests(i);
        change.push_back({static_cast<RowId>(old.checkpoint_id()), old.task(), old.digest(), std::move(stored)});
    }
    if (auto done = catalogue_.compacted(change, now); !done) {
        SCKPT_TRY(discard(images));
        return done;
    }
    return {};
}

// Only what was made for these images: packs of others that they refer to are not theirs to give away.
Result<> StoreKeeper::discard(const std::vector<StoredImage>& images) {
    std::map<std::string, std::uint64_t> files;
    std::set<std::string_view> names;
    for (const StoredImage& image : images) names.insert(asked_name(image.manifest));
    for (const StoredImage& image : images) {
        files[image.manifest] = 0;
        for (const PackUse& pack : image.packs)
            if (names.contains(asked_name(pack.path))) files[pack.path] = pack.bytes;
    }
    std::vector<std::string> paths;
    for (const auto& [path, bytes] : files) paths.push_back(path);
    SCKPT_ASSIGN(const std::vector<Catalogue::FileUse> uses, catalogue_.uses(paths));
    std::vector<Catalogue::Garbage> unknown;
    for (std::size_t i = 0; i < paths.size(); ++i)
        if (uses[i] == Catalogue::FileUse::unknown) unknown.push_back({paths[i], files.at(paths[i])});
    return unknown.empty() ? Result<>() : catalogue_.add_garbage(unknown);
}

}  // namespace sckpt
