// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a sckpt-run knows and a restart needs: it hands this text to sckptd when a dump is made, it becomes the file kRunStateName of the image, and
// the sckpt-run of the restarted task gets it back. Of the job's user: nothing here is trusted further than that user's own job.
//   next KEY                             the number of the next step of the script
//   step KEY waiting PID                 its srun, that process, has not got a step from Slurm yet: it is started anew
//   step KEY running STEPID TASKS PID    Slurm's step, how many tasks it has, the process id of its srun
//   step KEY ended STATUS                a wait status that the script has not been given yet
//   unreplayable KEY                     it has read more of its standard input than is kept
//   stdin BYTES                          of a step's task: consumed of its standard input
#pragma once

#include <sys/types.h>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace sckpt {

inline constexpr const char* kRunStateName = "sckpt-run.state";
inline constexpr std::size_t kMaxRunState = 4u << 20;  // bytes

struct RunState {
    struct Step {
        enum class Phase { waiting, running, ended } phase = Phase::waiting;
        std::uint32_t key = 0;
        std::uint32_t step_id = 0, tasks = 0;  // running
        pid_t srun = 0;                        // waiting, running; 0: none is there yet after a restart
        int wait_status = 0;                   // ended
        bool unreplayable = false;
    };
    std::uint32_t next_key = 0;
    std::vector<Step> steps;  // by key
    std::uint64_t stdin_consumed = 0;
};

std::string to_text(const RunState& state);
Result<RunState> parse_run_state(std::string_view text);  // Errc::corrupt

}  // namespace sckpt
