// SPDX-License-Identifier: GPL-3.0-or-later
//
// How a user names a job (12) or one of its checkpoints (12.3) on the command line.
#pragma once

#include <compare>
#include <cstdint>
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

}  // namespace sckpt::cli
