// SPDX-License-Identifier: GPL-3.0-or-later
//
// The environment of a real srun: its stub's, with what its supervisor tells the plug-in, and in a restarted job with what Slurm says of
// the allocation now in place of what the script remembers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sckpt {

struct SrunStep {
    std::uint32_t job_id = 0, key = 0;
    std::uint32_t resume_from = 0;  // the checkpoint that its tasks go on from; 0: none
    int report = -1;                // the descriptor's number in srun
};

// `current`: the variables that Slurm started the restarted batch script with; null in a job that was not restored.
std::vector<std::string> srun_environment(std::vector<std::string> stub, const char* const* current, const SrunStep& step);

}  // namespace sckpt
