// SPDX-License-Identifier: GPL-3.0-or-later
//
// Restarts: from which checkpoint a job goes on, and what became of it.
#include <algorithm>
#include <format>

#include "daemon/controller.h"
#include "rpc/local.h"
#include "rpc/task_name.h"

namespace sckpt {
namespace {

// An image whose restore takes sckptd down again and again is left aside for an older one.
constexpr int kLostAttempts = 3;

// Beyond the node's own deadlines for fetch and restore: what a restore reads is not removed before.
constexpr std::int64_t kLeaseGrace = 600;

// The node asks again while these last.
bool passes(const Error& error) { return error.code == Errc::unavailable || error.code == Errc::io || error.code == Errc::busy; }

rpc::ResumeOrder refusal(std::string text) {
    rpc::ResumeOrder order;
    order.set_action(rpc::ResumeOrder::REFUSE);
    order.set_text(std::move(text));
    return order;
}

}  // namespace

void Controller::resume_query(const std::string& node, const rpc::ResumeQuery& query) {
    const rpc::Task& task = query.task();
    rpc::ControllerMessage message;
    rpc::ResumeOrder& order = *message.mutable_resume();
    bool hold_it = false;
    if (const Result<SlurmJob> slurm = verify_task(node, task); !slurm) {
        if (passes(slurm.error())) return;
        order = refusal(slurm.error().text);
    } else {
        const std::lock_guard lock(mutex_);
        if (waits_for_rebuild()) return;  // the node asks again
        const Result<JobRow> job = ensure_job(task, *slurm);
        const bool script = task.step_id() == local::kBatchStep;
        const bool has_store = !catalogue_.store_id().empty();  // else some node is about to tell
        if (job && !has_store && catalogue_.newest_complete(job->id).value_or(std::nullopt)) return;
        if (job && script && (drain_is_near(*job) || keeper_.doubts(job->id))) return;
        if (!job) order = refusal("the catalogue of sckptctld fails: " + job.error().text);
        else if (task.origin_job() != 0) order = resume_step(task);
        else order = script ? choose_resume(*job, query, node, hold_it) : resume_task(*job, task);
    }
    order.set_query(query.query());
    const std::string reason = order.text();
    if (hold_it) hold(task.job_id(), reason);
    const std::lock_guard lock(mutex_);
    send(node, std::move(message));
    announce();
}

// The newest complete checkpoint that has not failed in this restart; from the beginning only when there never was one. The same query may
// come twice, and sckptd may be killed during a restore: neither says anything against the checkpoint.
rpc::ResumeOrder Controller::choose_resume(const JobRow& job, const rpc::ResumeQuery& query, const std::string& node, bool& hold_it) {
    const rpc::Task& task = query.task();
    abandon_unfinished(job, "the job was restarted before it was complete");
    ResumeSession& session = resumes_[task.job_id()];
    if (session.restart_count != task.restart_count()) {
        session = {};
        session.restart_count = task.restart_count();
        if (const auto below = avoid_.find(task.job_id()); below != avoid_.end()) session.below = below->second;
    }
    session.node = node;
    if (session.number != 0 && session.query != query.query() && ++session.lost >= kLostAttempts) {
        session.below = session.number;
        session.lost = 0;
    }
    const auto next = catalogue_.newest_complete(job.id, session.below);
    if (!next) return refusal("the catalogue of sckptctld fails: " + next.error().text);
    if (*next && !session.node_fault) {
        auto order = restore_order(job, **next, kBatchTask);
        if (!order) return refusal("the catalogue of sckptctld fails: " + order.error().text);
        session.number = (*next)->number;
        session.query = query.query();
        return *order;
    }
    const auto rows = catalogue_.checkpoints(job.id);
    const bool any_bad = rows && std::ranges::any_of(*rows, [](const CheckpointRow& row) {
        return row.state == CheckpointState::bad && row.step.empty();
    });
    RestartRow restart{unix_now(), task.restart_count(), 0, node, "", 0};
    if (session.below != 0 || session.node_fault || any_bad) {
        hold_it = true;
        return give_up(job, std::move(restart));
    }
    const auto unreadable = catalogue_.unreadable_of(job.job_id);
    if (!unreadable) return refusal("the catalogue of sckptctld fails: " + unreadable.error().text);
    if (*unreadable) {
        worked(catalogue_.set_job_error(
            job.id, std::format("{} in the store could not be read when the catalogue was rebuilt ({}): put it in order or remove it, and run "
                                "`sckpt-clean rebuild-catalogue`", (*unreadable)->path, (*unreadable)->why)));
        hold_it = true;
        return give_up(job, std::move(restart));
    }
    restart.outcome = "from the beginning: there was no complete checkpoint";
    note(job.id, restart.outcome);
    worked(catalogue_.add_restart(job.id, restart));
    rpc::ResumeOrder order;
    order.set_action(rpc::ResumeOrder::FROM_BEGINNING);
    order.set_text(std::format("job {} has no complete checkpoint: it starts from the beginning", job.job_id));
    return order;
}

// Leased first: from here on its files stay where the row says they are.
Result<rpc::ResumeOrder> Controller::restore_order(const JobRow& job, const CheckpointRow& checkpoint, const std::string& task) {
    SCKPT_TRY(catalogue_.lease(checkpoint.id, unix_now() + 2 * config_.node.restore_timeout_seconds + kLeaseGrace));
    SCKPT_ASSIGN(const std::optional<ImageRow> image, catalogue_.image(checkpoint.id, task));
    if (!image) return fail(Errc::internal, std::format("it has no image of {} for checkpoint {}", task, checkpoint.number));
    rpc::ResumeOrder order;
    order.set_action(rpc::ResumeOrder::RESTORE);
    order.set_checkpoint_id(static_cast<std::uint64_t>(checkpoint.id));
    order.set_number(checkpoint.number);
    order.set_path(image->manifest);
    order.set_digest(image->digest);
    order.set_uid(job.uid);
    order.set_bytes(image->bytes);
    order.set_task(task);
    order.set_store_id(catalogue_.store_id());
    order.set_job_id(job.job_id);
    return order;
}

rpc::ResumeOrder Controller::give_up(const JobRow& job, RestartRow restart) {
    const auto fresh = catalogue_.job(job.id);
    const std::string last = fresh && *fresh ? (*fresh)->last_error : "";
    const std::string reason =
        std::format("no checkpoint of job {} could be restored{}{}", job.job_id, last.empty() ? "" : "; the last error: ", last);
    worked(catalogue_.set_job_held(job.id, reason));
    restart.outcome = "held: " + reason;
    note(job.id, restart.outcome);
    worked(catalogue_.add_restart(job.id, restart));
    resumes_.erase(job.job_id);
    return refusal(
        std::format("{}. The job is held: `sckpt show {}` tells more; `scontrol release {}` tries again", reason, job.job_id, job.job_id));
}

// Counts from the node alone that was told to restore, for what it was told. After a restart of sckptctld nobody remembers whom that was:
// then from the node that the job runs on, as Slurm has it.
void Controller::restore_done(const std::string& node, const rpc::RestoreDone& done) {
    std::optional<std::uint32_t> job_id;
    if (done.has_of()) return step_restored(node, done);
    {
        const std::lock_guard lock(mutex_);
        if (!done.task().empty() && done.task() != kBatchTask) return task_restored(node, done);
        job_id = job_of_restore(node, done);
        if (!job_id) return;
        if (resumes_.contains(*job_id)) return restored(node, done);
    }
    const Result<SlurmJob> slurm = slurm_job(*job_id);
    const std::lock_guard lock(mutex_);
    if (slurm && slurm->batch_host == node && slurm->restart_count == done.restart_count()) return restored(node, done);
    if (!slurm && passes(slurm.error())) unconfirmed_.emplace_back(node, done);
    else log_warning("{} reports a restore of job {}, which does not run there: ignored", node, *job_id);
}

// Nothing for what is not to count.
std::optional<std::uint32_t> Controller::job_of_restore(const std::string& node, const rpc::RestoreDone& done) {
    if (waits_for_rebuild()) return std::nullopt;  // seen when the node's task is
    const auto row = catalogue_.checkpoint(static_cast<RowId>(done.checkpoint_id()));
    if (!worked(row) || !*row) return std::nullopt;
    const auto job = catalogue_.job((*row)->job);
    if (!worked(job) || !*job) return std::nullopt;
    const auto session = resumes_.find((*job)->job_id);
    if (session == resumes_.end() || (session->second.node == node && session->second.query == done.query())) return (*job)->job_id;
    log_warning("{} reports a restore of job {} that it was not told to do: ignored", node, (*job)->job_id);
    return std::nullopt;
}

void Controller::restored(const std::string& node, const rpc::RestoreDone& done) {
    const auto row = catalogue_.checkpoint(static_cast<RowId>(done.checkpoint_id()));
    if (!worked(row) || !*row) return;
    const CheckpointRow& checkpoint = **row;
    const auto owner = catalogue_.job(checkpoint.job);
    if (!worked(owner) || !*owner) return;
    if ((*owner)->slurm_restart_count != done.restart_count())  // the job has been restarted since: nothing of its history is changed
        return log_warning("{} reports a restore of run {} of job {}, which is at run {}", node, done.restart_count(), (*owner)->job_id,
                           (*owner)->slurm_restart_count);
    end_lease(checkpoint.id);
    RestartRow restart{unix_now(), done.restart_count(), checkpoint.number, node, "restored", done.restore_ms()};
    for (auto& [job_id, session] : resumes_) {
        const auto job = catalogue_.newest_job(job_id);
        if (!job || !*job || (*job)->id != checkpoint.job) continue;
        if (session.number != checkpoint.number || session.query != done.query()) continue;
        session.reported = done.ok();
        if (done.ok()) continue;
        // An image that did not verify is ordered once more, unless another node finds it bad too. Fails it here again, this node is at fault.
        const bool again = done.image_bad() && session.doubted != session.number;
        if (again) session.doubted = session.number;
        session.node_fault = done.node_fault() || (done.image_bad() && !again);
        if (!session.node_fault && !again) session.below = session.number;
        session.number = 0;
        session.lost = 0;
    }
    // At once, not when the task reports: a sckptctld that is killed in between must not restore what belongs to the other history.
    if (done.ok()) resumed(checkpoint.job, checkpoint.number);
    else restore_failed(checkpoint, node, done);
    if (!done.ok()) restart.outcome = "failed: " + done.error();
    record_restart(checkpoint.job, restart);
    announce();
}

void Controller::restore_failed(const CheckpointRow& checkpoint, const std::string& node, const rpc::RestoreDone& done) {
    worked(catalogue_.set_job_error(checkpoint.job,
                                    std::format("restart from checkpoint {} on {}: {}", checkpoint.number, node, done.error())));
    if (done.image_bad() && checkpoint.state == CheckpointState::complete)
        keeper_.doubt(checkpoint.id, done.task().empty() ? kBatchTask : done.task(), done.digest(), node, done.error());
}

// The job goes on from `number`: what was made after it belongs to a course of events that did not happen. It goes at once, so that no
// rebuilt catalogue finds it again; but for what is pinned, which nobody's restart uses any more. What was made of a step alone stands by
// itself: it is no history of the job's.
void Controller::resumed(RowId job, std::uint32_t number) {
    const auto rows = catalogue_.checkpoints(job);
    if (!worked(rows)) return;
    for (const CheckpointRow& row : *rows) {
        if (row.number == number) end_lease(row.id);
        if (row.number <= number || row.state != CheckpointState::complete || !row.step.empty()) continue;
        const std::string why = std::format("the job went on from checkpoint {}", number);
        if (row.passed) continue;
        if (row.pinned) {
            if (worked(catalogue_.set_passed(row.id, why))) note(job, std::format("checkpoint {} stays, as it is pinned: {}", row.number, why));
            continue;
        }
        if (!worked(catalogue_.bad(row.id, why))) continue;
        end_lease(row.id);
        if (worked(catalogue_.remove_checkpoint(row.id, unix_now()))) note(job, std::format("checkpoint {} removed: {}", row.number, why));
    }
    keeper_.wake();
}

void Controller::record_restart(RowId job, const RestartRow& restart) {
    note(job, std::format("restart from checkpoint {} on {}: {}", restart.checkpoint, restart.node, restart.outcome));
    worked(catalogue_.add_restart(job, restart));
}

}  // namespace sckpt
