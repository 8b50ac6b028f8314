// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/controller.h"

#include <pwd.h>
#include <unistd.h>
#include <format>

#include "common/interval.h"

namespace sckpt {

using std::chrono::seconds;
using std::chrono::steady_clock;

Controller::Controller(const Config& config, Catalogue& catalogue, StoreOrders& orders, StoreKeeper& keeper, std::string note)
    : config_(config),
      started_(unix_now()),
      note_(std::move(note)),
      catalogue_(catalogue),
      orders_(orders),
      keeper_(keeper),
      operators_{0, geteuid()},
      grants_(config.drain) {
    for (const std::string& name : config_.controller.operators) {
        if (const passwd* user = getpwnam(name.c_str()); user != nullptr) operators_.insert(user->pw_uid);
        else log_warning("controller.operators: no user {}", name);
    }
    recover_generations();
}

// After a restart of sckptctld. Dumps that were under way have an unknown outcome and are dropped here and by the nodes; captured
// images are awaited: their nodes report them when they attach.
void Controller::recover_generations() {
    const auto preparing = catalogue_.checkpoints_in(CheckpointState::preparing);
    if (!worked(preparing)) return;
    for (const CheckpointRow& row : *preparing) worked(catalogue_.failed(row.id, "sckptctld was restarted during the dump"));
    const auto captured = catalogue_.checkpoints_in(CheckpointState::captured);
    if (!worked(captured)) return;
    for (const CheckpointRow& row : *captured) {
        const auto images = catalogue_.images(row.id);
        const auto ended = catalogue_.ended_tasks(row.id);
        const auto job = catalogue_.job(row.job);
        if (!worked(images) || !worked(ended) || !worked(job) || images->empty() || !*job) continue;
        std::vector<GenerationImage> parts;
        for (const ImageRow& image : *images) parts.push_back({image.task, image.node, image.bytes, 0, {}});
        auto run = std::make_shared<CheckpointRun>(row.id, row.job, (*job)->job_id, Generation::captured_before(std::move(parts), *ended));
        run->step = row.step;
        run->urgent = row.urgent;
        run->progress.set_checkpoint(row.number);
        run->progress.set_phase(rpc::CreateProgress::CAPTURED);
        run->progress.set_bytes(row.bytes);
        runs_[row.id] = run;
    }
}

Result<> Controller::may_act(const JobRow& job, const rpc::Caller& caller) const {
    if (caller.uid == job.uid || operators_.contains(caller.uid)) return {};
    return fail(Errc::denied, std::format("job {} is not yours: only its owner, an operator or root may do this", job.job_id));
}

Result<> Controller::may_administer(const rpc::Caller& caller) const {
    if (operators_.contains(caller.uid)) return {};
    return fail(Errc::denied, "this is for administrators: root, SlurmUser and the users of controller.operators in sckpt.yaml");
}

Result<JobRow> Controller::job_for(std::uint32_t job_id, const rpc::Caller& caller) const {
    SCKPT_ASSIGN(const std::optional<JobRow> job, catalogue_.newest_job(job_id));
    if (!job)
        return fail(Errc::not_found, std::format("job {}: no batch job that was submitted with --ckpt and has started is known under this "
                                                 "number",
                                                 job_id));
    SCKPT_TRY(may_act(*job, caller));
    return *job;
}

Result<JobRow> Controller::ensure_job(const rpc::Task& task, const SlurmJob& slurm) {
    SCKPT_ASSIGN(const std::optional<JobRow> known, catalogue_.newest_job(task.job_id()));
    // Slurm uses job ids again. The first start of another submission has another submit time; a requeue changes it too, and
    // raises the restart count.
    touched_[task.job_id()] = steady_clock::now();
    const bool revived = known && may_live_again(*known, slurm);
    if (revived) SCKPT_TRY(catalogue_.set_job_ended(known->id, JobOutcome::live, unix_now()));
    const bool lives = known && (revived || known->outcome == JobOutcome::live);
    if (lives && is_run_of(*known, slurm)) {
        if (known->slurm_restart_count != slurm.restart_count)
            SCKPT_TRY(catalogue_.set_job_run(known->id, slurm.restart_count, slurm.submit_time));
        JobRow row = *known;
        row.outcome = JobOutcome::live;
        row.slurm_restart_count = slurm.restart_count;
        row.submit_time = slurm.submit_time;
        return row;
    }
    if (lives) end_job(*known, JobOutcome::unknown);
    JobRow job;
    job.job_id = task.job_id();
    job.uid = slurm.uid;
    job.user = slurm.user;
    job.account = slurm.account;
    job.submit_time = slurm.submit_time;
    job.interval_seconds = task.interval_seconds() < 0 ? config_.policy.interval_seconds : task.interval_seconds();
    job.max_restarts = task.max_restarts() < 0 ? config_.policy.max_restarts : task.max_restarts();
    job.slurm_restart_count = slurm.restart_count;
    SCKPT_ASSIGN(job.id, catalogue_.add_job(job));
    return job;
}

// Its checkpoints are retention's from now on.
void Controller::end_job(const JobRow& job, JobOutcome outcome) {
    abandon_unfinished(job, "the job is over");
    live_.forget(job.job_id);
    avoid_.erase(job.job_id);
    started_now_.erase(job.job_id);
    counted_.erase(job.job_id);
    resumes_.erase(job.job_id);
    touched_.erase(job.job_id);
    // A restore that the end has cut off does not report, and nobody reads for it any more.
    if (const auto rows = catalogue_.checkpoints(job.id); worked(rows))
        for (const CheckpointRow& row : *rows)
            if (row.state == CheckpointState::complete) end_lease(row.id);
    worked(catalogue_.set_job_ended(job.id, outcome, unix_now()), "ending a job");
    keeper_.wake();
    announce();
}

// Checkpoints of before may be in the store and not in the catalogue: until they are, nobody may be told that there is none.
bool Controller::waits_for_rebuild() const {
    return catalogue_.needs_rebuild();
}

void Controller::schedule_next(LiveJob& live, const JobRow& job) {
    live.due = job.interval_seconds > 0 ? steady_clock::now() + seconds(job.interval_seconds) : steady_clock::time_point::max();
}

Result<> Controller::requeue(std::uint32_t job_id, const rpc::Caller& caller) {
    {
        const std::lock_guard lock(mutex_);
        SCKPT_ASSIGN(const JobRow job, job_for(job_id, caller));
        note(job.id, std::format("requeue ordered by uid {}", caller.uid));
    }
    return slurm_requeue_job(job_id, false);
}

Result<rpc::PinReply> Controller::pin(const rpc::PinRequest& request, const rpc::Caller& caller) {
    const std::lock_guard lock(mutex_);
    SCKPT_ASSIGN(const JobRow job, job_for(request.job_id(), caller));
    SCKPT_ASSIGN(const std::optional<CheckpointRow> row,
                 request.checkpoint() != 0 ? catalogue_.checkpoint(job.id, request.checkpoint()) : catalogue_.newest_complete(job.id));
    if (!row && request.checkpoint() == 0) return fail(Errc::not_found, std::format("job {} has no complete checkpoint", job.job_id));
    if (!row)
        return fail(Errc::not_found, std::format("job {} has no checkpoint {}; sckpt list {} shows those it has", job.job_id,
                                                 request.checkpoint(), job.job_id));
    if (request.pinned() && row->state != CheckpointState::complete)
        return fail(Errc::invalid,
                    std::format("checkpoint {} of job {} is not complete: only a complete one can be pinned", row->number, job.job_id));
    auto pinned = catalogue_.set_pinned(row->id, request.pinned(), config_.retention.user_quota);
    if (!pinned && pinned.error().code == Errc::no_space)
        return fail(Errc::no_space, std::format("{}: unpin another one first (`sckpt list` shows the pinned ones)", pinned.error().text));
    SCKPT_TRY(pinned);
    note(job.id, std::format("checkpoint {} {} by uid {}", row->number, request.pinned() ? "pinned" : "unpinned", caller.uid));
    if (!request.pinned()) keeper_.wake();
    rpc::PinReply reply;
    reply.set_checkpoint(row->number);
    return reply;
}

bool Controller::send(const std::string& node, rpc::ControllerMessage message) {
    const auto found = nodes_.find(node);
    if (found == nodes_.end() || !found->second.outbox) return false;
    found->second.outbox->push(std::move(message));
    return true;
}

void Controller::note(RowId job, const std::string& text) {
    log_info("job row {}: {}", job, text);
    worked(catalogue_.add_event(job, unix_now(), text), "writing an event");
}

void Controller::announce() {
    ++changes_;
    changed_.notify_all();
}

}  // namespace sckpt
