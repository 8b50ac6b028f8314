// SPDX-License-Identifier: GPL-3.0-or-later
//
// By hand, not by CLI11: this program starts in front of every task.
#include "daemon/sckpt_run_options.h"

#include <charconv>
#include <string_view>

namespace sckpt {

namespace {

template <class T>
bool number(std::string_view text, T& out) {
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc() && end == text.data() + text.size();
}

// Cuts "NAME=" from `argument`; false when it is another option.
bool value_of(std::string_view argument, std::string_view name, std::string_view& value) {
    if (!argument.starts_with(name) || argument.substr(name.size(), 1) != "=") return false;
    value = argument.substr(name.size() + 1);
    return true;
}

bool take(std::string_view argument, RunOptions& out) {
    std::string_view value;
    if (value_of(argument, "--job", value)) return number(value, out.job_id);
    if (value_of(argument, "--step", value)) return number(value, out.step_id);
    if (value_of(argument, "--task", value)) return number(value, out.task_id);
    if (value_of(argument, "--step-key", value)) return number(value, out.step_key);
    if (value_of(argument, "--tasks", value)) return number(value, out.tasks);
    if (value_of(argument, "--resume-from", value)) return number(value, out.resume_from);
    if (value_of(argument, "--origin-job", value)) return number(value, out.origin_job);
    if (value_of(argument, "--origin-key", value)) return number(value, out.origin_key);
    if (value_of(argument, "--restart-count", value)) return number(value, out.restart_count);
    if (value_of(argument, "--interval", value)) return number(value, out.interval_seconds) && out.interval_seconds >= -1;
    if (value_of(argument, "--max-restarts", value)) return number(value, out.max_restarts) && out.max_restarts >= -1;
    if (value_of(argument, "--socket", value)) return out.socket = value.data(), value.starts_with('/');
    return false;
}

}  // namespace

Result<RunOptions> parse_run_options(int argc, char** argv) {
    RunOptions options;
    int at = 1;
    for (; at < argc && std::string_view(argv[at]) != "--"; ++at)
        if (!take(argv[at], options)) return fail(Errc::invalid, std::string("bad argument ") + argv[at]);
    if (at + 1 >= argc) return fail(Errc::invalid, "no program given after --");
    if (options.job_id == 0 || !options.socket) return fail(Errc::invalid, "--job and --socket are needed");
    options.program = argv + at + 1;
    return options;
}

}  // namespace sckpt
