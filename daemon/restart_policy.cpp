// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/restart_policy.h"

#include <sys/wait.h>
#include <format>

namespace sckpt {

std::string describe_exit(int wait_status) {
    if (WIFSIGNALED(wait_status)) return std::format("signal {}", WTERMSIG(wait_status));
    return std::format("exit code {}", WEXITSTATUS(wait_status));
}

EndDecision decide_end(const EndedJob& job) {
    std::string how;
    switch (job.state) {
        case SlurmJobState::completed: return {EndAction::discard, "the job completed"};
        case SlurmJobState::cancelled: return {EndAction::discard, "the job was cancelled"};
        case SlurmJobState::timed_out: return {EndAction::keep, "the job reached its time limit; sckpt restarts after failures only"};
        case SlurmJobState::out_of_memory:
            return {EndAction::keep, "the job ran out of memory and would do so again; submit it with more memory"};
        case SlurmJobState::failed: how = "the job failed with " + describe_exit(job.exit_status); break;
        case SlurmJobState::node_fail: how = "a node of the job failed"; break;
        default: return {};
    }
    if (!job.has_complete) return {EndAction::keep, how + "; it has no complete checkpoint to restart from"};
    if (!job.may_requeue) return {EndAction::keep, how + "; it was submitted with --no-requeue, so Slurm refuses to restart it"};
    if (static_cast<std::int64_t>(job.restarts) >= job.max_restarts)
        return {EndAction::keep,
                std::format("{}; it was restarted {} times already, and --ckpt-max-restarts is {}", how, job.restarts, job.max_restarts)};
    return {EndAction::requeue, how};
}

// Slurm uses job ids again, and a requeue gives a new submit time: only when the nodes of the earlier run are free, while the restart count
// grows at once.
bool is_run_of(const JobRow& row, const SlurmJob& slurm) {
    if (row.uid != slurm.uid) return false;
    if (slurm.restart_count == row.slurm_restart_count) return slurm.submit_time == row.submit_time;
    return slurm.restart_count > row.slurm_restart_count && slurm.submit_time >= row.submit_time;
}

// A job that has failed may be requeued by hand, and Slurm may find a job again that it had lost. One that has succeeded or was cancelled
// has nothing to go on with: if it is run once more, then from the beginning.
bool may_live_again(const JobRow& row, const SlurmJob& slurm) {
    return (row.outcome == JobOutcome::failed || row.outcome == JobOutcome::unknown) && is_run_of(row, slurm);
}

}  // namespace sckpt
