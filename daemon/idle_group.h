// SPDX-License-Identifier: GPL-3.0-or-later
//
// Where a drain's processes run: a cgroup of its own at the top of the hierarchy that shares out CPU time, with about a twentieth of the weight
// of a job. A scheduling class does not do it: SCHED_IDLE and nice count only among the processes of one cgroup (or of one session, where
// autogroup is on, sched(7)), and a job never is in sckptd's; beside it an idle class takes half of a core. Seen on Linux 6.18.
#pragma once

#include <string_view>

#include "common/fd.h"
#include "common/result.h"

namespace sckpt {

inline constexpr const char* kIdleGroup = "sckpt-drain";

// Makes the group where it is missing; its cgroup.procs, open for writing, for SpawnOptions::idle_group. Errc::unsupported: no cgroup hierarchy
// that is mounted here shares out CPU time, so that autogroup is what counts, or nothing. Other errors: it is there and cannot be used.
Result<UniqueFd> open_idle_group();
Result<UniqueFd> open_idle_group(std::string_view mountinfo);  // the text of /proc/self/mountinfo

}  // namespace sckpt
