// SPDX-License-Identifier: GPL-3.0-or-later
//
// The command line of sckpt-run. The SPANK plug-in writes it (plugin/spank_sckpt.cpp); nobody types it.
#pragma once

#include <cstdint>

#include "common/result.h"

namespace sckpt {

struct RunOptions {
    std::uint32_t job_id = 0, step_id = 0, task_id = 0;
    std::uint32_t restart_count = 0;
    std::int64_t interval_seconds = -1;  // 0: manual; -1: the site's default
    std::int32_t max_restarts = -1;      // -1: the site's default
    const char* socket = nullptr;        // of sckptd
    char** program = nullptr;            // the task's own argument vector, null-terminated
};

Result<RunOptions> parse_run_options(int argc, char** argv);

}  // namespace sckpt
