// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstdint>

#include "daemon/slurm_api.h"

namespace sckpt {

// This run of the job runs, and slurmctld has not begun to end it: as long as it says so, it has sent no order to kill it.
inline bool runs_on(const SlurmJob& job, std::uint32_t restart_count) {
    const bool started = job.state == SlurmJobState::running || job.state == SlurmJobState::suspended;
    return started && !job.completing && job.restart_count == restart_count;
}

}  // namespace sckpt
