// SPDX-License-Identifier: GPL-3.0-or-later
//
// The command line of sckpt-run. The SPANK plug-in writes it (plugin/spank_sckpt.cpp); nobody types it.
#pragma once

#include <cstdint>

#include "common/result.h"
#include "rpc/local.h"

namespace sckpt {

struct RunOptions {
    std::uint32_t job_id = 0, step_id = 0, task_id = 0;
    std::uint32_t step_key = 0;     // of a step's task (rpc/task_name.h)
    std::uint32_t tasks = 1;        // of its step
    std::uint32_t resume_from = 0;  // a step's task: the checkpoint that it goes on from; 0: the step is new
    std::uint32_t origin_job = 0, origin_key = 0;  // of a step that srun --ckpt-restart has started: whose checkpoint that is
    std::uint32_t restart_count = 0;
    std::int64_t interval_seconds = -1;  // 0: manual; -1: the site's default
    std::int32_t max_restarts = -1;      // -1: the site's default
    const char* socket = nullptr;        // of sckptd
    char** program = nullptr;            // the task's own argument vector, null-terminated

    bool is_batch() const { return step_id == local::kBatchStep; }
    bool first_start() const { return (is_batch() ? restart_count : resume_from) == 0; }  // else it may have something to go on from
};

Result<RunOptions> parse_run_options(int argc, char** argv);

}  // namespace sckpt
