// SPDX-License-Identifier: GPL-3.0-or-later
#include "cli/job_id.h"

#include <charconv>
#include <format>

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

// Cuts what stands before the separator from `text`, and the separator; all of it where there is none.
std::string_view cut(std::string_view& text, std::size_t separator) {
    const std::string_view piece = text.substr(0, separator);
    text.remove_prefix(separator == text.npos ? text.size() : separator + 1);
    return piece;
}

std::optional<TaskRange> parse_range(std::string_view text) {
    const std::size_t colon = text.find(':');
    const auto step = colon == text.npos ? std::optional(1U) : number(text.substr(colon + 1));
    text = text.substr(0, colon);
    const std::size_t dash = text.find('-');
    const auto first = any_number(text.substr(0, dash)), last = dash == text.npos ? first : any_number(text.substr(dash + 1));
    if (!step || !first || !last || *last < *first || (colon != text.npos && dash == text.npos)) return std::nullopt;
    return TaskRange{*first, *last, *step};
}

// "4" or "[1-10,12]".
std::optional<std::vector<TaskRange>> parse_tasks(std::string_view text) {
    if (!text.starts_with('[')) {
        const auto task = any_number(text);
        if (!task) return std::nullopt;
        return std::vector<TaskRange>{{*task, *task, 1}};
    }
    if (!text.ends_with(']')) return std::nullopt;
    text = text.substr(1, text.size() - 2);
    std::vector<TaskRange> ranges;
    do {
        const bool last = !text.contains(',');
        const auto range = parse_range(cut(text, text.find(',')));
        if (!range || (text.empty() && !last)) return std::nullopt;
        ranges.push_back(*range);
    } while (!text.empty());
    return ranges;
}

std::optional<JobSelector> parse_selector(std::string_view text, Part part) {
    JobSelector selector;
    if (const std::size_t dot = text.find('.'); dot != text.npos) {
        selector.part = part == Part::none ? std::nullopt : part == Part::step ? any_number(text.substr(dot + 1)) : number(text.substr(dot + 1));
        if (!selector.part) return std::nullopt;
        text = text.substr(0, dot);
    }
    if (const std::size_t bar = text.find('_'); bar != text.npos) {
        auto tasks = parse_tasks(text.substr(bar + 1));
        if (!tasks) return std::nullopt;
        selector.tasks = std::move(*tasks);
        text = text.substr(0, bar);
    }
    const auto job = number(text);
    if (!job) return std::nullopt;
    selector.job = *job;
    return selector;
}

// The comma that ends the first of them; those between brackets belong to it.
std::size_t end_of_first(std::string_view text) {
    bool inside = false;
    for (std::size_t at = 0; at < text.size(); ++at) {
        if (text[at] == '[') inside = true;
        if (text[at] == ']') inside = false;
        if (text[at] == ',' && !inside) return at;
    }
    return text.npos;
}

std::string forms(Part part) {
    std::string text = "give a job's number, such as 12, tasks of a job array, such as 123_4 or 123_[1-10], or several of them with commas between";
    if (part == Part::checkpoint) text += "; JOB.N, such as 12.3, is checkpoint N";
    if (part == Part::step) text += "; JOB.STEP, such as 12.0, is the tasks of one step, as squeue -s shows it";
    return text;
}

}  // namespace

std::string to_string(const JobId& id) {
    return id.checkpoint == 0 ? std::to_string(id.job) : std::format("{}.{}", id.job, id.checkpoint);
}

Result<std::uint32_t> parse_job(std::string_view text) {
    if (const auto job = number(text)) return *job;
    return fail(Errc::invalid, std::format("'{}' is no job id: give the job's number as squeue shows it, such as 12", text));
}

Result<std::vector<JobSelector>> parse_selectors(std::string_view text, Part part) {
    std::vector<JobSelector> selectors;
    const std::string_view whole = text;
    do {
        const std::size_t end = end_of_first(text);
        const bool last = end == text.npos;
        const auto selector = parse_selector(cut(text, end), part);
        if (!selector || (text.empty() && !last)) return fail(Errc::invalid, std::format("'{}' names no job: {}", whole, forms(part)));
        selectors.push_back(*selector);
    } while (!text.empty());
    return selectors;
}

}  // namespace sckpt::cli
