// SPDX-License-Identifier: GPL-3.0-or-later
//
// Restarts of steps' tasks: their script goes on from a checkpoint, its srun starts the step anew, and each rank asks for its own image of that
// very checkpoint. One that cannot be restored takes the whole job with it: a step of which some ranks are of another moment is worth nothing.
#include <algorithm>
#include <format>

#include "daemon/controller.h"
#include "rpc/task_name.h"

namespace sckpt {
namespace {

rpc::ResumeOrder refusal(std::string text) {
    rpc::ResumeOrder order;
    order.set_action(rpc::ResumeOrder::REFUSE);
    order.set_text(std::move(text));
    return order;
}

}  // namespace

rpc::ResumeOrder Controller::resume_task(const JobRow& job, const rpc::Task& task) {
    const std::string name = task_name(task.step_key(), task.task_id());
    const auto fails = [](const Error& error) { return refusal("the catalogue of sckptctld fails: " + error.text); };
    const auto row = catalogue_.checkpoint(job.id, task.resume_from());
    if (!row) return fails(row.error());
    if (!*row || (*row)->state != CheckpointState::complete)
        return refusal(std::format("job {} has no complete checkpoint {} (any more)", job.job_id, task.resume_from()));
    const auto ended = catalogue_.ended_task((*row)->id, name);
    if (!ended) return fails(ended.error());
    if (*ended) {
        rpc::ResumeOrder order;
        order.set_action(rpc::ResumeOrder::EXITED);
        order.set_task(name);
        order.set_wait_status(**ended);
        return order;
    }
    const auto image = catalogue_.image((*row)->id, name);
    if (!image) return fails(image.error());
    if (!*image) return refusal(std::format("checkpoint {} of job {} has no image of task {}", (*row)->number, job.job_id, name));
    auto order = restore_order(job, **row, name);
    return order ? *order : fails(order.error());
}

void Controller::task_restored(const std::string& node, const rpc::RestoreDone& done) {
    if (done.ok() || waits_for_rebuild()) return;
    const auto row = catalogue_.checkpoint(static_cast<RowId>(done.checkpoint_id()));
    if (!worked(row) || !*row) return;
    const auto job = catalogue_.job((*row)->job);
    if (!worked(job) || !*job) return;
    const LiveJob* live = live_.find((*job)->job_id);
    if (live == nullptr || !live->has_script()) return;  // the job has been ended since, and its tasks with it
    const auto slurm = slurm_jobs_.find((*job)->job_id);
    if (slurm != slurm_jobs_.end() && !slurm->second.nodes.contains(node))
        return log_warning("{} reports a restore of job {}, which does not run there: ignored", node, (*job)->job_id);
    task_restore_failed(**job, **row, node, done);
}

// The task waits, and Slurm ends it with its job. An image that did not verify is tried once more (the keeper has another node look at it
// meanwhile); for the rest one goes back by a checkpoint.
void Controller::task_restore_failed(const JobRow& job, const CheckpointRow& checkpoint, const std::string& node, const rpc::RestoreDone& done) {
    const auto earlier = catalogue_.restarts(job.id);
    const bool again = worked(earlier) && std::ranges::any_of(*earlier, [&](const RestartRow& restart) {
        return restart.checkpoint == checkpoint.number && restart.outcome.starts_with("failed: task ");
    });
    restore_failed(checkpoint, node, done);
    record_restart(job.id, {unix_now(), job.slurm_restart_count, checkpoint.number, node,
                            std::format("failed: task {}: {}", done.task(), done.error()), done.restore_ms()});
    abandon_unfinished(job, std::format("task {} could not be restored", done.task()));
    if (done.node_fault()) {
        const std::string reason = std::format("task {} could not be restored on {}: {}", done.task(), node, done.error());
        worked(catalogue_.set_job_held(job.id, reason));
        to_hold_[job.job_id] = reason;
    } else {
        if (!done.image_bad() || again) avoid_[job.job_id] = checkpoint.number;
        to_requeue_.push_back(job.job_id);
    }
    announce();
}

}  // namespace sckpt
