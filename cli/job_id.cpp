// SPDX-License-Identifier: GPL-3.0-or-later
#include "cli/job_id.h"

#include <charconv>
#include <format>
#include <optional>

namespace sckpt::cli {
namespace {

std::optional<std::uint32_t> any_number(std::string_view text) {
    std::uint32_t value = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end) return std::nullopt;
    return value;
}

std::optional<std::uint32_t> number(std::string_view text) {
    const auto value = any_number(text);
    return value == 0u ? std::nullopt : value;
}

std::unexpected<Error> refused(std::string_view text, std::string_view form) {
    if (text.contains('_'))
        return fail(Errc::invalid, std::format("'{}' is a task of a job array, and those are not supported yet: "
                                               "give the task's own job id, which `squeue -O JobID,ArrayJobID,ArrayTaskID` shows",
                                               text));
    return fail(Errc::invalid, std::format("'{}' is no job id: give {}", text, form));
}

}  // namespace

std::string to_string(const JobId& id) {
    return id.checkpoint == 0 ? std::to_string(id.job) : std::format("{}.{}", id.job, id.checkpoint);
}

Result<std::uint32_t> parse_job(std::string_view text) {
    if (const auto job = number(text)) return *job;
    return refused(text, "the job's number as squeue shows it, such as 12");
}

Result<JobId> parse_job_or_checkpoint(std::string_view text) {
    const std::size_t dot = text.find('.');
    const auto job = number(text.substr(0, dot));
    if (job && dot == std::string_view::npos) return JobId{*job, 0};
    const auto checkpoint = dot == std::string_view::npos ? std::nullopt : number(text.substr(dot + 1));
    if (job && checkpoint) return JobId{*job, *checkpoint};
    return refused(text, "JOB, such as 12, or JOB.N for checkpoint N of that job, such as 12.3");
}

std::string to_text(const JobStep& id) { return id.step ? std::format("{}.{}", id.job, *id.step) : std::to_string(id.job); }

Result<JobStep> parse_job_or_step(std::string_view text) {
    const std::size_t dot = text.find('.');
    const auto job = number(text.substr(0, dot));
    if (job && dot == std::string_view::npos) return JobStep{*job, std::nullopt};
    const auto step = dot == std::string_view::npos ? std::nullopt : any_number(text.substr(dot + 1));
    if (job && step) return JobStep{*job, *step};
    return refused(text, "JOB, such as 12, or JOB.STEP for the tasks of one step, such as 12.0; squeue -s shows steps");
}

}  // namespace sckpt::cli
