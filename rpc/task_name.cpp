// SPDX-License-Identifier: GPL-3.0-or-later
#include "rpc/task_name.h"

#include <charconv>
#include <format>

namespace sckpt {

namespace {

// One spelling for one number: no sign, no leading zero, nothing behind it.
std::optional<std::uint32_t> number(std::string_view text) {
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || (text.size() > 1 && text.front() == '0')) return std::nullopt;
    return value;
}

std::optional<std::uint32_t> step_key(std::string_view name) {
    const bool foreign = name.starts_with('s');
    if (foreign) name.remove_prefix(1);
    const auto key = number(name);
    if (!key || (*key & kForeignStep) != 0) return std::nullopt;
    return foreign ? *key | kForeignStep : *key;
}

}  // namespace

std::string step_name(std::uint32_t step_key) {
    return std::format("{}{}", (step_key & kForeignStep) != 0 ? "s" : "", step_key & ~kForeignStep);
}

std::string task_name(std::uint32_t step_key, std::uint32_t rank) { return std::format("{}.{}", step_name(step_key), rank); }

std::optional<TaskName> parse_task_name(std::string_view name) {
    const std::size_t dot = name.find('.');
    if (dot == name.npos) return std::nullopt;
    const auto key = step_key(name.substr(0, dot)), rank = number(name.substr(dot + 1));
    if (!key || !rank) return std::nullopt;
    return TaskName{*key, *rank};
}

std::string to_string(const StepCheckpoint& step) {
    return std::format("{}.{}{}", step.job_id, step_name(step.step_key), step.number != 0 ? std::format(".{}", step.number) : "");
}

std::optional<StepCheckpoint> parse_step_checkpoint(std::string_view text) {
    const std::size_t first = text.find('.');
    if (first == text.npos) return std::nullopt;
    const std::size_t second = text.find('.', first + 1);
    const auto job = number(text.substr(0, first)), key = step_key(text.substr(first + 1, second == text.npos ? second : second - first - 1));
    const auto checkpoint = second == text.npos ? std::optional(0U) : number(text.substr(second + 1));
    if (!job || *job == 0 || !key || !checkpoint || (second != text.npos && *checkpoint == 0)) return std::nullopt;
    return StepCheckpoint{*job, *key, *checkpoint};
}

}  // namespace sckpt
