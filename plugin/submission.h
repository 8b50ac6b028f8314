// SPDX-License-Identifier: GPL-3.0-or-later
//
// What sbatch and srun know about a job that SPANK does not tell: would its earlier output survive a restart, can it be requeued at all?
#pragma once

#include <string>
#include <vector>

#include "plugin/settings.h"

namespace sckpt::plugin {

// The value of an option, as the program that has loaded the plug-in understood it; "" where it was not given or cannot be asked for.
std::string option_text(const char* name);

// Sentences for the user who submits a job with --ckpt. Empty in any other program than sbatch, and where sbatch cannot be asked:
// then sckptctld finds the same in the job's record.
std::vector<std::string> submission_warnings();

}  // namespace sckpt::plugin
