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

}  // namespace

std::string step_name(std::uint32_t step_key) {
    return std::format("{}{}", (step_key & kForeignStep) != 0 ? "s" : "", step_key & ~kForeignStep);
}

std::string task_name(std::uint32_t step_key, std::uint32_t rank) { return std::format("{}.{}", step_name(step_key), rank); }

std::optional<TaskName> parse_task_name(std::string_view name) {
    const bool foreign = name.starts_with('s');
    if (foreign) name.remove_prefix(1);
    const std::size_t dot = name.find('.');
    if (dot == name.npos) return std::nullopt;
    const auto key = number(name.substr(0, dot)), rank = number(name.substr(dot + 1));
    if (!key || !rank || (*key & kForeignStep) != 0) return std::nullopt;
    return TaskName{foreign ? *key | kForeignStep : *key, *rank};
}

}  // namespace sckpt
