// SPDX-License-Identifier: GPL-3.0-or-later
//
// What sckptctld does with a job that has ended, and whether a run that Slurm tells of is one of the same job. Pure functions of what is
// known: no I/O.
#pragma once

#include <cstdint>
#include <string>

#include "daemon/slurm_api.h"
#include "image_store/catalogue.h"

namespace sckpt {

struct EndedJob {
    SlurmJobState state{};
    int exit_status = 0;  // as waitpid(2)
    bool may_requeue = true;
    bool has_complete = false;   // a complete checkpoint
    std::uint32_t restarts = 0;  // requeues by sckpt so far
    std::int64_t max_restarts = 0;
};

enum class EndAction {
    wait,     // it has not ended
    requeue,  // restart it from its latest complete checkpoint
    discard,  // it is over and its checkpoints are not needed: success, or cancelled by somebody
    keep,     // it is over, was not restarted, and its checkpoints are kept for a while
};
struct EndDecision {
    EndAction action = EndAction::wait;
    std::string reason;  // for the user, in events and as held reason
};

EndDecision decide_end(const EndedJob& job);
std::string describe_exit(int wait_status);  // "exit code 3", "signal 11"

// The job that the row is about: the run last seen, or a later one of it.
bool is_run_of(const JobRow& row, const SlurmJob& slurm);
// The row's job has ended, and yet this is a run of it that may go on from its checkpoints.
bool may_live_again(const JobRow& row, const SlurmJob& slurm);

}  // namespace sckpt
