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
        SCKPT_ASSIGN(const std::vector<ImageRow> images, catalogue_.images(row.id));
        for (const ImageRow& image : images) subjects.push_back({row, image.task, image.manifest, image.digest, image.bytes});
    }
    return subjects;
}

// Neither removed nor rewritten since.
Result<bool> StoreKeeper::still_there(const Subject& subject) const {
    SCKPT_ASSIGN(const std::optional<CheckpointRow> row, catalogue_.checkpoint(subject.row.id));
    if (!row || row->state != CheckpointState::complete) return false;
    SCKPT_ASSIGN(const std::optional<ImageRow> image, catalogue_.image(subject.row.id, subject.task));
    return image && image->digest == subject.digest;
}

rpc::StoreOrder StoreKeeper::check_order(std::span<const Subject> batch, bool quick) {
    rpc::StoreOrder order_;
    order_.mutable_check()->set_quick(quick);
    for (const Subject& subject : batch) {
        rpc::ManifestRef& manifest = *order_.mutable_check()->add_manifests();
        manifest.set_path(subject.manifest);
        manifest.set_digest(subject.digest);
        manifest.set_checkpoint_id(static_cast<std::uint64_t>(subject.row.id));
        manifest.set_task(subject.task);
    }
    return order_;
}

Result<rpc::StoreReply> StoreKeeper::check_batch(std::span<const Subject> batch, bool quick, const Cancelled& cancelled) const {
    return order(check_order(batch, quick), kSilence, cancelled);
}

Result<> StoreKeeper::check_each(const std::vector<Subject>& all, bool quick, const Cancelled& cancelled, const Found& found) const {
    for (std::size_t next = 0; next < all.size();) {
        const std::size_t first = next;
        for (std::uint64_t bytes = 0; next < all.size() && next - first < kImagesAtOnce && bytes < kBytesAtOnce; ++next)
            if (!quick) bytes += all[next].bytes;
        const auto batch = std::span(all).subspan(first, next - first);
        SCKPT_ASSIGN(const rpc::StoreReply reply, check_batch(batch, quick, cancelled));
        for (const rpc::CheckedImage& checked : reply.checked()) {
            const auto subject = std::ranges::find_if(batch, [&](const Subject& each) {
                return static_cast<std::uint64_t>(each.row.id) == checked.checkpoint_id() && each.task == checked.task();
            });
            if (subject != batch.end()) SCKPT_TRY(found(*subject, checked, reply.node()));
        }
    }
    return {};
}

// One that cannot be read there says nothing; a second look at the only node there is will do.
Result<std::optional<std::string>> StoreKeeper::confirmed(const Subject& subject, bool quick, const std::string& node,
                                                          const Cancelled& cancelled) const {
    rpc::StoreOrder order_ = check_order({&subject, 1}, quick);
    order_.set_avoid(node);
    SCKPT_ASSIGN(const rpc::StoreReply reply, order(order_, short_silence(), cancelled));
    if (reply.checked_size() != 1) return fail(Errc::io, std::format("node {} has not checked what it was to check", reply.node()));
    const rpc::CheckedImage& checked = reply.checked(0);
    if (!checked.unreadable().empty()) return fail(Errc::io, std::format("on node {}: {}", reply.node(), checked.unreadable()));
    return checked.faults().empty() ? std::nullopt : std::optional(checked.faults(0));
}

void StoreKeeper::doubt(RowId checkpoint, const std::string& task, const std::string& digest, const std::string& node,
                        const std::string& why) {
    const auto row = catalogue_.checkpoint(checkpoint);
    const auto image = catalogue_.image(checkpoint, task);
    if (!row || !*row || !image || !*image) return;
    if (!digest.empty() && (*image)->digest != digest) return log_info("checkpoint row {} was rewritten since {} read it", checkpoint, node);
    const std::lock_guard lock(mutex_);
    doubts_.push_back({(*row)->job, {**row, task, (*image)->manifest, (*image)->digest, (*image)->bytes}, node, why});
    woken_.notify_all();
}

bool StoreKeeper::doubts(RowId job) const {
    const std::lock_guard lock(mutex_);
    return std::ranges::contains(doubts_, job, &Doubt::job);
}

void StoreKeeper::settle_doubts(std::int64_t now) {
    for (;;) {
        std::unique_lock lock(mutex_);
        if (doubts_.empty() || stopped()) return;
        const Doubt doubt = doubts_.front();
        lock.unlock();
        if (const auto settled = settle(doubt, now); !settled) log_error("checkpoint row {}: {}", doubt.subject.row.id, settled.error().text);
        lock.lock();
        doubts_.pop_front();  // what was found is in the catalogue
    }
}

// When no other node can tell, the one that could not restore it is believed: its job waits.
Result<> StoreKeeper::settle(const Doubt& doubt, std::int64_t now) {
    SCKPT_ASSIGN(const bool counts, still_there(doubt.subject));
    if (!counts) return {};
    const auto bad = confirmed(doubt.subject, false, doubt.node, [this] { return stopped(); });
    if (stopped()) return {};
    if (!bad) log_warning("checkpoint row {} could not be checked a second time: {}", doubt.subject.row.id, bad.error().text);
    if (bad && !*bad) {
        const std::string text = std::format("checkpoint {} does not verify on {} ({}), and does on another node: look at {} itself",
                                             doubt.subject.row.number, doubt.node, doubt.why, doubt.node);
        log_error("job row {}: {}", doubt.job, text);
        return catalogue_.add_event(doubt.job, now, text);
    }
    SCKPT_TRY(mark_bad(doubt.subject, doubt.why, now));
    wake();  // the manifest is put aside
    return {};
}

// False: it is not what was found bad, by now.
Result<bool> StoreKeeper::mark_bad(const Subject& subject, const std::string& why, std::int64_t now) {
    const auto marked = catalogue_.bad(subject.row.id, why, subject.digest);
    if (!marked && (marked.error().code == Errc::busy || marked.error().code == Errc::invalid || marked.error().code == Errc::not_found))
        return false;
    SCKPT_TRY(marked);
    const std::string text = std::format("checkpoint {} is bad and will not be used: {}", subject.row.number, why);
    log_error("job row {}: {}", subject.row.job, text);
    SCKPT_TRY(catalogue_.add_event(subject.row.job, now, text));
    return true;
}

// What the answer says of one image: told, and acted upon.
Result<> StoreKeeper::judge(const Subject& subject, const rpc::CheckedImage& checked, const rpc::CheckRequest& request, const std::string& node,
                            std::int64_t now, rpc::CheckProgress& progress, const Cancelled& cancelled) {
    progress.set_checked(progress.checked() + 1);
    if (!request.quick()) progress.set_bytes(progress.bytes() + subject.bytes);
    progress.set_checkpoint(subject.row.number);
    progress.clear_faults();
    progress.clear_repaired();
    progress.clear_unreadable();
    SCKPT_ASSIGN(const std::optional<JobRow> job, catalogue_.job(subject.row.job));
    progress.set_job_id(job ? job->job_id : 0);
    SCKPT_ASSIGN(const bool counts, still_there(subject));
    if (counts) *progress.mutable_faults() = checked.faults();
    if (counts) progress.set_unreadable(checked.unreadable());
    if (progress.faults().empty() || !request.repair()) return {};
    const auto bad = confirmed(subject, request.quick(), node, cancelled);
    if (!bad) progress.set_repaired("not marked bad: it could not be looked at a second time: " + bad.error().text);
    else if (!*bad) progress.set_repaired(std::format("not marked bad: another node than {0} finds it whole, so look at {0} itself", node));
    if (!bad || !*bad) return {};
    SCKPT_ASSIGN(const bool marked, mark_bad(subject, progress.faults(0), now));
    if (marked) progress.set_repaired("marked bad; its manifest is put aside below quarantine/");
    else progress.clear_faults();
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
    const Found found = [&](const Subject& subject, const rpc::CheckedImage& checked, const std::string& node) -> Result<> {
        SCKPT_TRY(judge(subject, checked, request, node, now, progress, cancelled));
        if (tell) tell(progress);
        return {};
    };
    SCKPT_TRY(check_each(all, request.quick(), cancelled, found));
    if (request.repair()) {
        SCKPT_ASSIGN(const Work work, begin_work(work_, cancelled));
        SCKPT_TRY(put_bad_aside());
    }
    progress.clear_faults();
    progress.clear_repaired();
    progress.clear_unreadable();
    progress.set_done(true);
    if (tell) tell(progress);
    return {};
}

}  // namespace sckpt
