// SPDX-License-Identifier: GPL-3.0-or-later
//
// srun --ckpt-restart: before a task of the new step is started, srun has sckpt ask sckptctld what it would go on from, and tells its user when that
// cannot be. The number of the checkpoint that is found goes to the tasks, so that all of them go on from the same one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/result.h"
#include "rpc/task_name.h"

namespace sckpt::plugin {

// In srun. Runs `command` (sckpt), which says itself on standard error what is wrong. Waits for it, half a minute at most.
Result<StepCheckpoint> find_step(const std::string& command, const StepCheckpoint& wanted, std::uint32_t tasks);
void announce_origin(const StepCheckpoint& found);  // to the tasks

// On the node. `announced`: the value of srun::kOriginVariable. Nothing when srun has not found it.
std::optional<StepCheckpoint> announced_origin(const std::string& announced);

// What is wrong with the options of the step, as srun has understood them; "" when nothing is.
std::string judge_restart(int components);

}  // namespace sckpt::plugin
