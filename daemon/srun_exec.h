// SPDX-License-Identifier: GPL-3.0-or-later
//
// Starts the real srun, outside of the script's tree, as if the script had: with the stub's descriptors under their numbers, its directory,
// mask, limits and signal dispositions.
#pragma once

#include <sys/types.h>
#include <vector>

#include "common/fd.h"
#include "common/result.h"
#include "daemon/srun_environment.h"
#include "daemon/srun_launch.h"

namespace sckpt {

struct RunningSrun {
    pid_t pid =
        -1;  // a child; leader of a process group of its own, so that a signal to the task's group reaches it through its stub alone
    UniqueFd report;  // to its plug-in (srun::kReportVariable)
};

// `fds` came with `run`, in its order. A program that cannot be executed says so on its standard error and ends with 127.
Result<RunningSrun> start_srun(const std::vector<UniqueFd>& fds, const char* const* current_environment, SrunStep step);

}  // namespace sckpt
