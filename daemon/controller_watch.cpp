// SPDX-License-Identifier: GPL-3.0-or-later
//
// The watcher: compares what Slurm says of the jobs with the catalogue, restarts what failed, starts what is due.
#include <algorithm>
#include <format>
#include <iterator>
#include <utility>

#include "daemon/controller.h"

namespace sckpt {

using std::chrono::steady_clock;

namespace {

// A node refuses credentials made up to the second in which the job ended there, by its own clock ("Job credential revoked"): a job that
// is started again within that second fails. Seconds after the requeue.
constexpr std::int64_t kStartAfter = 2;

}  // namespace

void Controller::tick() {
    learn_cluster();
    const auto snapshot = steady_clock::now();
    const Result<std::vector<SlurmJob>> jobs = slurm_jobs();
    Errands errands;
    std::vector<std::pair<std::string, rpc::Task>> unverified;
    std::vector<std::pair<std::string, rpc::RestoreDone>> unconfirmed;
    {
        const std::lock_guard lock(mutex_);
        if (jobs.has_value() != slurm_reachable_) {
            if (jobs) log_info("slurmctld answers");
            else log_warning("{}", jobs.error().text);
        }
        slurm_reachable_ = jobs.has_value();
        learn_store();
        check_generations();
        settle_nodes();
        if (jobs && !waits_for_rebuild()) {
            watch_jobs(*jobs, snapshot, errands);
            unverified.swap(unverified_);
            unconfirmed.swap(unconfirmed_);
        }
        std::ranges::move(std::exchange(to_requeue_, {}), std::back_inserter(errands.requeue));
        errands.hold = std::exchange(to_hold_, {});
        errands.end = std::exchange(to_end_, {});
        start_due_checkpoints();
    }
    for (const auto& [node, done] : unconfirmed) restore_done(node, done);
    for (const auto& [node, task] : unverified) task_started(node, task);
    run_errands(errands);
}

// The first store of this cluster that nodes see is the one that the catalogue is about, from then on. Not as long as they see several.
void Controller::learn_store() {
    if (!catalogue_.store_id().empty()) return store_trouble_.clear();
    std::set<std::string> seen;
    for (const auto& [name, node] : nodes_)
        if (node.outbox && !node.info.store_id().empty() && node.info.store_cluster() == cluster_) seen.insert(node.info.store_id());
    if (seen.size() == 1 && worked(catalogue_.set_store_id(*seen.begin()))) {
        log_info("the store of this cluster is {}", *seen.begin());
        return keeper_.wake();
    }
    store_trouble_ = seen.empty() ? "no node sees a store of this cluster: it is made once, on a node where the file system of store.directory is "
                                    "mounted, by `sckpt-clean make-store`"
                                  : "the nodes see different stores of this cluster at store.directory: the wrong ones are to be unmounted first";
}

// Manifests say of which cluster they are.
void Controller::learn_cluster() {
    {
        const std::lock_guard lock(mutex_);
        if (!cluster_.empty()) return;
    }
    const auto name = slurm_cluster_name();
    const std::lock_guard lock(mutex_);
    if (name) cluster_ = *name;
}

void Controller::watch_jobs(const std::vector<SlurmJob>& jobs, steady_clock::time_point snapshot, Errands& errands) {
    slurm_jobs_.clear();
    for (const SlurmJob& job : jobs) {
        slurm_jobs_.emplace(job.job_id, job);
        if (job.state != SlurmJobState::pending || job.restart_count == 0) continue;
        const auto row = catalogue_.newest_job(job.job_id);  // requeued by hand after it had failed
        if (worked(row) && *row && may_live_again(**row, job) && job.restart_count > (*row)->slurm_restart_count)
            worked(catalogue_.set_job_ended((*row)->id, JobOutcome::live, unix_now()));
    }
    const auto rows = catalogue_.jobs(false);
    if (!worked(rows)) return;
    for (const JobRow& row : *rows) watch_job(row, snapshot, errands);
}

void Controller::watch_job(const JobRow& job, steady_clock::time_point snapshot, Errands& errands) {
    const auto touched = touched_.find(job.job_id);
    if (touched != touched_.end() && touched->second >= snapshot) return;  // the list is older than what the node has reported
    const auto found = slurm_jobs_.find(job.job_id);
    if (found == slurm_jobs_.end() || !is_run_of(job, found->second)) {
        errands.gone.push_back(job);
        return;
    }
    const SlurmJob& slurm = found->second;
    if (slurm.state != SlurmJobState::pending) return watch_ended(job, slurm, errands);
    live_.forget(job.job_id);  // its nodes may have died without a word

    // Requeued, by Slurm, by somebody or by us. Slurm lets such a job wait until its old credential has expired (121 s by default);
    // once its nodes are free there is nothing to wait for. Done once for each requeue: who sets a later time by hand is not fought.
    // Not without a checkpoint: a node that comes back may still get the kill order for the earlier run (seen), and then such a job
    // would be lost, while one with a checkpoint is restarted again.
    if (slurm.restart_count <= job.slurm_restart_count || slurm.completing || slurm.held || drain_is_near(job)) return;
    const auto moved = started_now_.find(job.job_id);
    if (moved != started_now_.end() && moved->second == slurm.restart_count) return;
    if (unix_now() - slurm.submit_time < kStartAfter) return;
    const auto newest = catalogue_.newest_complete(job.id);
    if (!newest || !*newest) return;
    errands.start_now.push_back(job.job_id);
}

void Controller::watch_ended(const JobRow& job, const SlurmJob& slurm, Errands& errands) {
    if (slurm.completing) return;
    EndedJob ended;
    ended.state = slurm.state;
    ended.exit_status = slurm.exit_status;
    ended.may_requeue = slurm.may_requeue;
    const auto counted = counted_.find(job.job_id);
    const bool already = counted != counted_.end() && counted->second == slurm.restart_count;  // this end, asked for but not requeued yet
    ended.restarts = job.restarts - (already && job.restarts > 0 ? 1 : 0);
    ended.max_restarts = job.max_restarts;
    const auto newest = catalogue_.newest_complete(job.id);
    if (!worked(newest)) return;
    // An image on its way into the store is newer than what is complete: wait for it, as long as its node lives.
    const bool failed = slurm.state == SlurmJobState::failed || slurm.state == SlurmJobState::node_fail;
    const bool near = failed && drain_is_near(job);
    ended.has_complete = near || newest->has_value();
    const EndDecision decision = decide_end(ended);
    switch (decision.action) {
        case EndAction::wait: return;
        case EndAction::discard:
            note(job.id, decision.reason);
            return end_job(job, slurm.state == SlurmJobState::completed ? JobOutcome::succeeded : JobOutcome::cancelled);
        case EndAction::keep:
            note(job.id, decision.reason);
            worked(catalogue_.set_job_held(job.id, decision.reason));
            return end_job(job, JobOutcome::failed);
        case EndAction::requeue:
            live_.forget(job.job_id);
            if (near) return;
            abandon_unfinished(job, "the job ended");
            // Counted before it is done, once for each end: a crash in between costs one restart, never adds one, and a slurmctld that
            // cannot requeue just now is asked again.
            if (!already) {
                counted_[job.job_id] = slurm.restart_count;
                if (!worked(catalogue_.count_restart(job.id))) return;
                note(job.id, std::format("{}: requeue, to go on from checkpoint {}", decision.reason, (*newest)->number));
            }
            errands.requeue.push_back(job.job_id);
            return;
    }
}

void Controller::check_generations() {
    std::vector<Run> late;
    for (const auto& [id, run] : runs_)
        if (const auto limit = run->generation.limit(); limit && steady_clock::now() > run->timed_since + *limit) late.push_back(run);
    for (const Run& run : late) carry_out(run, run->generation.deadline());
}

void Controller::start_due_checkpoints() {
    for (auto& [job_id, live] : live_.all()) {
        if (!live.has_script() || steady_clock::now() < live.due || run_of_job(job_id)) continue;
        const auto job = catalogue_.newest_job(job_id);
        if (!job || !*job || is_suspended(**job)) continue;  // due as soon as it runs again
        const auto begun = begin_checkpoint(**job, live, false);
        if (begun) continue;
        schedule_next(live, **job);
        worked(catalogue_.set_job_error((*job)->id, begun.error().text));
        if ((*job)->last_error != begun.error().text) note((*job)->id, "no checkpoint: " + begun.error().text);
    }
}

void Controller::run_errands(const Errands& errands) {
    for (const std::uint32_t job_id : errands.requeue) {
        if (const auto done = slurm_requeue_job(job_id, false); !done) {
            const std::lock_guard lock(mutex_);
            const auto job = catalogue_.newest_job(job_id);
            if (job && *job) note((*job)->id, done.error().text);
        }
    }
    for (const auto& [job_id, reason] : errands.hold) hold(job_id, reason);
    for (const auto& [job_id, step_id] : errands.end)
        if (const auto done = slurm_end_step(job_id, step_id); !done) log_info("{}", done.error().text);  // it may have ended by itself
    for (const JobRow& job : errands.gone) {
        const auto slurm = slurm_job(job.job_id);
        if (slurm ? is_run_of(job, *slurm) : slurm.error().code != Errc::not_found) continue;
        const std::lock_guard lock(mutex_);
        const auto row = catalogue_.newest_job(job.job_id);
        if (!row || !*row || (*row)->id != job.id || (*row)->submit_time != job.submit_time || (*row)->outcome != JobOutcome::live)
            continue;
        note(job.id, "Slurm does not know the job any more");
        end_job(job, JobOutcome::unknown);
    }
    for (const std::uint32_t job_id : errands.start_now) {
        const auto done = slurm_start_now(job_id);
        if (!done) {
            log_info("{}", done.error().text);  // its nodes are not free yet: again at the next tick
            continue;
        }
        log_info("job {}: begin time moved to now", job_id);
        const std::lock_guard lock(mutex_);
        const auto slurm = slurm_jobs_.find(job_id);
        if (slurm != slurm_jobs_.end()) started_now_[job_id] = slurm->second.restart_count;
    }
}

void Controller::hold(std::uint32_t job_id, const std::string& reason) {
    if (const auto done = slurm_requeue_job(job_id, true); !done) log_error("holding: {}", done.error().text);
    if (const auto done = slurm_set_admin_comment(job_id, "sckpt: held: " + reason.substr(0, 200)); !done)
        log_warning("{}", done.error().text);
}

}  // namespace sckpt
