// SPDX-License-Identifier: GPL-3.0-or-later
//
// Steps that `srun --ckpt-restart` starts from a checkpoint, in whatever job of the same user. srun asks first, once for all of its tasks, and names
// the checkpoint to them by its number; then each of them asks for its own image. Nothing of what it says is believed: whose the checkpoint is, that
// it has as many tasks as the step, and that the step of then does not run any more, is looked at each time. The job of the checkpoint knows nothing of it, and
// none of its own restarts is changed by what becomes of such a step.
#include <algorithm>
#include <format>

#include "daemon/controller.h"
#include "rpc/task_name.h"

namespace sckpt {
namespace {

// Beyond the node's own deadlines for fetch and restore, and srun's start before that.
constexpr std::int64_t kLendGrace = 600;

rpc::ResumeOrder refusal(std::string text) {
    rpc::ResumeOrder order;
    order.set_action(rpc::ResumeOrder::REFUSE);
    order.set_text(std::move(text));
    return order;
}

bool is_of_step(const std::string& task, std::uint32_t step_key) {
    const auto name = parse_task_name(task);
    return name && name->step_key == step_key;
}

}  // namespace

// Of several that a lease may be for the longest counts.
void Controller::end_lease(RowId checkpoint) {
    const auto lent = lent_.find(checkpoint);
    if (lent != lent_.end() && lent->second > unix_now()) return;
    if (lent != lent_.end()) lent_.erase(lent);
    worked(catalogue_.lease(checkpoint, 0));
}

// The job, if it is this user's. Not even an operator's: a process goes on as the user that it ran as.
Result<JobRow> Controller::origin_job(std::uint32_t job_id, uid_t uid) const {
    if (waits_for_rebuild()) return fail(Errc::unavailable, "the catalogue is being rebuilt from the store: try again later");
    SCKPT_ASSIGN(const std::optional<JobRow> job, catalogue_.newest_job(job_id));
    if (!job)
        return fail(Errc::not_found, std::format("job {} is not known to sckpt: its checkpoints were removed with it, or it never had one", job_id));
    if (job->uid != uid) return fail(Errc::denied, std::format("job {} is not yours: only its owner can have its tasks go on", job_id));
    return *job;
}

Result<CheckpointRow> Controller::origin_checkpoint(const JobRow& job, std::uint32_t step_key, std::uint32_t number) const {
    SCKPT_ASSIGN(const std::optional<CheckpointRow> row, number == 0 ? catalogue_.newest_complete_step(job.id, step_name(step_key))
                                                                     : catalogue_.checkpoint(job.id, number));
    if (!row && number == 0)
        return fail(Errc::not_found, std::format("job {} has no complete checkpoint of step {} alone: `sckpt list {}` shows those that it has, and "
                                                 "`sckpt create {}.STEP` takes one",
                                                 job.job_id, step_name(step_key), job.job_id, job.job_id));
    if (!row)
        return fail(Errc::not_found, std::format("job {} has no checkpoint {}: `sckpt list {}` shows those that it has", job.job_id, number, job.job_id));
    if (row->state != CheckpointState::complete)
        return fail(Errc::not_found, std::format("checkpoint {} of job {} is not complete", row->number, job.job_id));
    if (row->passed)
        return fail(Errc::not_found, std::format("the job has gone on from an earlier checkpoint than {}, and its files with it", row->number));
    return *row;
}

// Two of them would write the same files. Of a node that has no connection nothing is known, and most likely it is lost.
Result<> Controller::check_not_running(const JobRow& job, std::uint32_t step_key) const {
    const LiveJob* live = live_.find(job.job_id);
    if (live == nullptr || live->uid != job.uid) return {};
    const auto step = live->steps.find(step_key);
    if (step == live->steps.end()) return {};
    for (const auto& [number, rank] : step->second.ranks()) {
        const auto node = nodes_.find(rank.node);
        if (rank.wait_status || node == nodes_.end() || !node->second.outbox) continue;
        return fail(Errc::busy, std::format("task {} of that step still runs on {}, and both would write the same files: end it first "
                                            "(`scancel {}.{}`)",
                                            number, rank.node, job.job_id, step->second.step_id));
    }
    return {};
}

Result<bool> Controller::has_rank(const CheckpointRow& checkpoint, std::uint32_t step_key, std::uint32_t rank) const {
    const std::string name = task_name(step_key, rank);
    SCKPT_ASSIGN(const std::optional<ImageRow> image, catalogue_.image(checkpoint.id, name));
    if (image) return true;
    SCKPT_ASSIGN(const std::optional<std::int32_t> ended, catalogue_.ended_task(checkpoint.id, name));
    return ended.has_value();
}

// ---------------------------------------------------------------- srun

Result<rpc::FindStepReply> Controller::find_step(const rpc::FindStepRequest& request, const rpc::Caller& caller) {
    const std::lock_guard lock(mutex_);
    SCKPT_ASSIGN(const JobRow job, origin_job(request.job_id(), caller.uid));
    auto found = count_ranks(job, request.step_key(), request.checkpoint());
    // Steps of an allocation without a batch script are called after Slurm's number, by which their user knows them.
    const bool plain = (request.step_key() & kForeignStep) == 0;
    if (!found && found.error().code == Errc::not_found && plain)
        if (auto foreign = count_ranks(job, request.step_key() | kForeignStep, request.checkpoint())) found = std::move(foreign);
    if (!found) return found;
    if (found->ended() == found->tasks()) return fail(Errc::invalid, std::format("all tasks of the step had ended at checkpoint {}", found->checkpoint()));
    if (request.tasks() != 0 && request.tasks() != found->tasks())
        return fail(Errc::invalid, std::format("the step had {} tasks at checkpoint {}, and this one has {}: give `--ntasks={}`", found->tasks(),
                                               found->checkpoint(), request.tasks(), found->tasks()));
    SCKPT_TRY(check_not_running(job, found->step_key()));
    SCKPT_TRY(lend(job, found->checkpoint()));
    return found;
}

Result<rpc::FindStepReply> Controller::count_ranks(const JobRow& job, std::uint32_t step_key, std::uint32_t number) const {
    SCKPT_ASSIGN(const CheckpointRow row, origin_checkpoint(job, step_key, number));
    SCKPT_ASSIGN(const std::vector<ImageRow> images, catalogue_.images(row.id));
    SCKPT_ASSIGN(const std::vector<EndedTask> ended, catalogue_.ended_tasks(row.id));
    const auto running = std::ranges::count_if(images, [&](const ImageRow& image) { return is_of_step(image.task, step_key); });
    const auto over = std::ranges::count_if(ended, [&](const EndedTask& task) { return is_of_step(task.task, step_key); });
    if (running + over == 0)
        return fail(Errc::not_found, std::format("checkpoint {} of job {} has no task of step {}: `sckpt show {}.{}` shows those that it has", row.number,
                                                 job.job_id, step_name(step_key), job.job_id, row.number));
    rpc::FindStepReply reply;
    reply.set_job_id(job.job_id);
    reply.set_step_key(step_key);
    reply.set_checkpoint(row.number);
    reply.set_tasks(static_cast<std::uint32_t>(running + over));
    reply.set_ended(static_cast<std::uint32_t>(over));
    return reply;
}

// It stays, also when its own job ends meanwhile. A sckptctld that is restarted in between has only the lease, which an end of that job takes away.
Result<> Controller::lend(const JobRow& job, std::uint32_t number) {
    SCKPT_ASSIGN(const std::optional<CheckpointRow> row, catalogue_.checkpoint(job.id, number));
    if (!row) return fail(Errc::not_found, std::format("checkpoint {} of job {} has gone", number, job.job_id));
    const std::int64_t now = unix_now(), until = now + 2 * config_.node.restore_timeout_seconds + kLendGrace;
    SCKPT_TRY(catalogue_.lease(row->id, until));
    std::erase_if(lent_, [now](const auto& entry) { return entry.second <= now; });
    lent_[row->id] = until;
    return {};
}

// ---------------------------------------------------------------- its tasks

rpc::ResumeOrder Controller::resume_step(const rpc::Task& task) {
    auto order = origin_image(task);
    return order ? *order : refusal(order.error().text);
}

Result<rpc::ResumeOrder> Controller::origin_image(const rpc::Task& task) {
    if (task.resume_from() == 0 || task.tasks() == 0) return fail(Errc::invalid, "a step that names no checkpoint, or has no tasks");
    SCKPT_ASSIGN(const JobRow job, origin_job(task.origin_job(), task.uid()));
    SCKPT_ASSIGN(const CheckpointRow row, origin_checkpoint(job, task.origin_key(), task.resume_from()));
    SCKPT_TRY(check_not_running(job, task.origin_key()));
    SCKPT_ASSIGN(const bool has_last, has_rank(row, task.origin_key(), task.tasks() - 1));
    SCKPT_ASSIGN(const bool has_more, has_rank(row, task.origin_key(), task.tasks()));
    if (!has_last || has_more || task.task_id() >= task.tasks())
        return fail(Errc::invalid, std::format("checkpoint {} of job {} is not of {} tasks", row.number, job.job_id, task.tasks()));
    const std::string name = task_name(task.origin_key(), task.task_id());
    SCKPT_ASSIGN(const std::optional<std::int32_t> ended, catalogue_.ended_task(row.id, name));
    if (!ended) return restore_order(job, row, name);
    rpc::ResumeOrder order;
    order.set_action(rpc::ResumeOrder::EXITED);
    order.set_task(name);
    order.set_wait_status(*ended);
    return order;
}

// One that cannot be restored ends the step: it says so itself, and the others would be without it.
void Controller::step_restored(const std::string& node, const rpc::RestoreDone& done) {
    const rpc::Task& task = done.of();
    if (const auto slurm = verify_task(node, task); !slurm) return log_warning("a restore on {} is ignored: {}", node, slurm.error().text);
    const std::lock_guard lock(mutex_);
    if (waits_for_rebuild()) return;
    const auto row = catalogue_.checkpoint(static_cast<RowId>(done.checkpoint_id()));
    if (!worked(row) || !*row) return;
    const auto origin = catalogue_.job((*row)->job), job = catalogue_.newest_job(task.job_id());
    if (!worked(origin) || !*origin || (*origin)->uid != task.uid() || !worked(job) || !*job) return;
    const std::string what = std::format("step {} of job {}, started from checkpoint {} of job {}", task.step_id(), task.job_id(), (*row)->number,
                                         (*origin)->job_id);
    std::string said;
    if (!done.ok()) said = std::format("{}: task {} could not be restored on {}: {}", what, task.task_id(), node, done.error());
    else if (task.task_id() == 0) said = std::format("{}, goes on", what);
    if (said.empty()) return;
    note((*origin)->id, said);
    if ((*job)->id != (*origin)->id) note((*job)->id, said);
    if (!done.ok()) {
        if (done.image_bad() && (*row)->state == CheckpointState::complete)
            keeper_.doubt((*row)->id, task_name(task.origin_key(), task.task_id()), done.digest(), node, done.error());
        to_end_.emplace_back(task.job_id(), task.step_id());
    }
    announce();
}

}  // namespace sckpt
