// SPDX-License-Identifier: GPL-3.0-or-later
//
// Into the job's cgroups: a restored tree is no descendant of slurmstepd, and Slurm finds, limits and kills a job by its cgroups alone.
#pragma once

#include <sys/types.h>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace sckpt::criu {

// The calling process moves to the cgroups of `model`, in every hierarchy that is mounted here.
Result<> join_cgroups_of(pid_t model);

// Directories of a process's cgroups: `cgroups` is the text of its /proc/PID/cgroup, `mountinfo` that of /proc/self/mountinfo.
Result<std::vector<std::string>> cgroup_directories(std::string_view cgroups, std::string_view mountinfo);

}  // namespace sckpt::criu
