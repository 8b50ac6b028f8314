// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the images of a checkpoint are called, everywhere: "batch" for the batch script's, "KEY.RANK" for the task of a step. The key tells the
// step apart from others of its script, across restarts, where Slurm counts its step ids anew. The script's sckpt-run gives it; a step that was
// not started by the script ("srun --jobid=…" from elsewhere, or srun in an allocation of salloc's) goes by Slurm's step id: "sID.RANK".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sckpt {

inline constexpr std::uint32_t kForeignStep = 0x80000000;  // the rest of the key is Slurm's step id
inline constexpr const char* kBatchTask = "batch";

std::string step_name(std::uint32_t step_key);  // what the names of its tasks begin with
std::string task_name(std::uint32_t step_key, std::uint32_t rank);

struct TaskName {
    std::uint32_t step_key = 0, rank = 0;
};
std::optional<TaskName> parse_task_name(std::string_view name);  // of a step's task; nothing for "batch", and for what is no such name

// The tasks of a step in a checkpoint, as `srun --ckpt-restart` takes them: "JOB.STEP" or "JOB.STEP.N". STEP is step_name()'s.
struct StepCheckpoint {
    std::uint32_t job_id = 0, step_key = 0;
    std::uint32_t number = 0;  // of the checkpoint; 0: none was named, the newest of this step alone is meant
    bool operator==(const StepCheckpoint&) const = default;
};
std::string to_string(const StepCheckpoint& step);
std::optional<StepCheckpoint> parse_step_checkpoint(std::string_view text);

}  // namespace sckpt
