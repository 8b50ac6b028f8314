// SPDX-License-Identifier: GPL-3.0-or-later
//
// How a user names jobs on the command line: 12, tasks of a job array 123_4 and 123_[1-10], several of them 12,13, and of each of them a
// checkpoint (12.3, 123_4.1) or a step (12.0).
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace sckpt::cli {

struct JobId {
    std::uint32_t job = 0;
    std::uint32_t checkpoint = 0;  // 0: none was named
    auto operator<=>(const JobId&) const = default;
};
std::string to_string(const JobId& id);  // "12", "12.3"

Result<std::uint32_t> parse_job(std::string_view text);  // one job, by its number. Errc::invalid with a text that shows the right form

struct TaskRange {  // as in --array: 1, 1-10, 0-15:4
    std::uint32_t first = 0, last = 0, step = 1;
    bool operator==(const TaskRange&) const = default;
};
struct JobSelector {
    std::uint32_t job = 0;
    std::vector<TaskRange> tasks;        // none: the job itself; of an array all of its tasks
    std::optional<std::uint32_t> part;   // after the dot
    bool operator==(const JobSelector&) const = default;
};
enum class Part { none, checkpoint, step };  // what may stand after the dot; checkpoints count from 1, steps from 0
Result<std::vector<JobSelector>> parse_selectors(std::string_view text, Part part);

}  // namespace sckpt::cli
