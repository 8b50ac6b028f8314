// SPDX-License-Identifier: GPL-3.0-or-later
//
// May this tree be dumped? Asked before anything is frozen, and again by the hook while it is: CRIU would lose some of what is
// refused here without a word (orphans), and some must not come back at a restore (foreign users' processes, privileges).
#pragma once

#include <sys/types.h>
#include <string>
#include <vector>

#include "common/result.h"

namespace sckpt::criu {

// Every process is the user's, with no privilege, and none is srun. A process that ended meanwhile is no error.
Result<> check_processes(const std::vector<pid_t>& tree, uid_t uid);

// The tree is all that runs in the job's cgroup, but for what belongs to sckpt and to Slurm. Errc::unsupported names the stranger.
Result<> check_cgroup(const std::vector<pid_t>& tree, pid_t supervisor);

std::string describe(pid_t pid);  // "process 12 (python3)"

}  // namespace sckpt::criu
