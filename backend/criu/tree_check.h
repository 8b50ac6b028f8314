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

// Every process is the user's, with no privilege, none may have started steps by Slurm's library, and none is srun: that is Errc::busy, for an srun
// that has just been started may be about to become a stub. A process that ended meanwhile is no error.
Result<> check_processes(const std::vector<pid_t>& tree, uid_t uid);

// The tree is all that runs in the job's cgroup, but for what belongs to sckpt, to Slurm and to the siblings (see DumpRequest). Errc::unsupported
// names the stranger.
Result<> check_cgroup(const std::vector<pid_t>& tree, pid_t supervisor, const std::vector<pid_t>& siblings);

std::string describe(pid_t pid);  // "process 12 (python3)"

}  // namespace sckpt::criu
