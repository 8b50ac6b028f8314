// SPDX-License-Identifier: GPL-3.0-or-later
//
// What sbatch knows about a job that SPANK does not tell: would its earlier output survive a restart, can it be requeued at all?
#pragma once

#include <string>
#include <vector>

#include "plugin/settings.h"

namespace sckpt::plugin {

// Sentences for the user who submits a job with --ckpt. Empty in any other program than sbatch, and where sbatch cannot be asked:
// then sckptctld finds the same in the job's record.
std::vector<std::string> submission_warnings();

}  // namespace sckpt::plugin
