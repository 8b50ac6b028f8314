// SPDX-License-Identifier: GPL-3.0-or-later
//
// The keeper: verifies images. A node reads them; what it finds is believed only of checkpoints that are still what they were before.
#include <algorithm>
#include <format>

#include "common/log.h"
#include "daemon/store_keeper.h"

namespace sckpt {
namespace {

// One order: so much at most, so that the one who waits sees it move.
constexpr std::size_t kImagesAtOnce = 16;
constexpr std::uint64_t kBytesAtOnce = 4ull << 30;

}  // namespace

Result<std::vector<StoreKeeper::Subject>> StoreKeeper::subjects(RowId job) const {
    SCKPT_ASSIGN(const std::vector<CheckpointRow> rows,
                 job != 0 ? catalogue_.checkpoints(job) : catalogue_.checkpoints_in(CheckpointState::complete));
    std::vector<Subject> subjects;
    for (const CheckpointRow& row : rows) {
        if (row.state != CheckpointState::complete) continue;
        SCKPT_ASSIGN(const std::optional<ImageRow> image, catalogue_.image(row.id));
        if (image) subjects.push_back({row, image->manifest, image->digest});
    }
    return subjects;
}

// Neither removed nor rewritten since.
Result<bool> StoreKeeper::still_there(const Subject& subject) const {
    SCKPT_ASSIGN(const std::optional<CheckpointRow> row, catalogue_.checkpoint(subject.row.id));
    if (!row || row->state != CheckpointState::complete) return false;
    SCKPT_ASSIGN(const std::optional<ImageRow> image, catalogue_.image(subject.row.id));
    return image && image->digest == subject.digest;
}

Result<rpc::StoreReply> StoreKeeper::check_batch(const std::vector<Subject>& batch, bool quick, const Cancelled& cancelled) const {
    rpc::StoreOrder order_;
    order_.mutable_check()->set_quick(quick);
    for (const Subject& subject : batch) {
        rpc::ManifestRef& manifest = *order_.mutable_check()->add_manifests();
        manifest.set_path(subject.manifest);
        manifest.set_digest(subject.digest);
        manifest.set_checkpoint_id(static_cast<std::uint64_t>(subject.row.id));
    }
    return order(order_, kSilence, cancelled);
}

Result<> StoreKeeper::mark_bad(const Subject& subject, const std::string& why, std::int64_t now) {
    SCKPT_TRY(catalogue_.bad(subject.row.id, why));
    const std::string text = std::format("checkpoint {} is bad and will not be used: {}", subject.row.number, why);
    log_error("job row {}: {}", subject.row.job, text);
    return catalogue_.add_event(subject.row.job, now, text);
}

// What the answer says of one checkpoint: told, and acted upon.
Result<> StoreKeeper::judge(const Subject& subject, const rpc::CheckedImage& checked, const rpc::CheckRequest& request, std::int64_t now,
                            rpc::CheckProgress& progress) {
    progress.set_checked(progress.checked() + 1);
    if (!request.quick()) progress.set_bytes(progress.bytes() + subject.row.bytes);
    progress.set_checkpoint(subject.row.number);
    progress.clear_faults();
    progress.clear_repaired();
    SCKPT_ASSIGN(const std::optional<JobRow> job, catalogue_.job(subject.row.job));
    progress.set_job_id(job ? job->job_id : 0);
    SCKPT_ASSIGN(const bool counts, still_there(subject));
    if (counts) *progress.mutable_faults() = checked.faults();
    if (progress.faults().empty() || !request.repair()) return {};
    SCKPT_TRY(mark_bad(subject, progress.faults(0), now));
    progress.set_repaired("marked bad; its manifest is put aside below quarantine/");
    return {};
}

Result<> StoreKeeper::check(const rpc::CheckRequest& request, std::int64_t now, const Tell<rpc::CheckProgress>& tell,
                            const Cancelled& cancelled) {
    SCKPT_ASSIGN(const Work checking, begin_work(checking_, cancelled));
    RowId job = 0;
    if (request.job_id() != 0) {
        SCKPT_ASSIGN(const std::optional<JobRow> row, catalogue_.newest_job(request.job_id()));
        if (!row) return fail(Errc::not_found, std::format("job {} is not known to sckpt", request.job_id()));
        job = row->id;
    }
    SCKPT_ASSIGN(const std::vector<Subject> all, subjects(job));
    rpc::CheckProgress progress;
    progress.set_total(static_cast<std::uint32_t>(all.size()));
    for (std::size_t next = 0; next < all.size();) {
        std::vector<Subject> batch;
        std::uint64_t bytes = 0;
        for (; next < all.size() && batch.size() < kImagesAtOnce && bytes < kBytesAtOnce; ++next) {
            batch.push_back(all[next]);
            if (!request.quick()) bytes += all[next].row.bytes;
        }
        SCKPT_ASSIGN(const rpc::StoreReply reply, check_batch(batch, request.quick(), cancelled));
        for (const rpc::CheckedImage& checked : reply.checked()) {
            const auto id = [](const Subject& subject) { return static_cast<std::uint64_t>(subject.row.id); };
            const auto subject = std::ranges::find(batch, checked.checkpoint_id(), id);
            if (subject == batch.end()) continue;
            SCKPT_TRY(judge(*subject, checked, request, now, progress));
            if (tell) tell(progress);
        }
    }
    if (request.repair()) {
        SCKPT_ASSIGN(const Work work, begin_work(work_, cancelled));
        SCKPT_TRY(put_bad_aside());
    }
    progress.clear_faults();
    progress.clear_repaired();
    progress.set_done(true);
    if (tell) tell(progress);
    return {};
}

}  // namespace sckpt
