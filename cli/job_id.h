// SPDX-License-Identifier: GPL-3.0-or-later
//
// How a user names a job (12), one of its checkpoints (12.3) or one of its steps (12.0) on the command line.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/result.h"

namespace sckpt::cli {

struct JobId {
    std::uint32_t job = 0;
    std::uint32_t checkpoint = 0;  // 0: none was named
    auto operator<=>(const JobId&) const = default;
};
std::string to_string(const JobId& id);  // "12", "12.3"

// Errc::invalid with a text that shows the right form.
Result<std::uint32_t> parse_job(std::string_view text);        // JOB
Result<JobId> parse_job_or_checkpoint(std::string_view text);  // JOB or JOB.N

struct JobStep {
    std::uint32_t job = 0;
    std::optional<std::uint32_t> step;  // Slurm's id; the first step of a job has 0
    bool operator==(const JobStep&) const = default;
};
std::string to_text(const JobStep& id);                      // "12", "12.0"
Result<JobStep> parse_job_or_step(std::string_view text);      // JOB or JOB.STEP

}  // namespace sckpt::cli
