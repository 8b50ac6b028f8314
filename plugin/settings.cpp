// SPDX-License-Identifier: GPL-3.0-or-later
#include "plugin/settings.h"

#include <charconv>

namespace sckpt::plugin {

namespace {

constexpr std::int32_t kMaxRestartsLimit = 1'000'000;

template <class T>
bool number(std::string_view text, T& out) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
    return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

Settings read_settings(int count, char* const* arguments) {
    Settings settings;
    for (int i = 0; i < count; ++i) {
        const std::string_view argument = arguments[i];
        const std::size_t equals = argument.find('=');
        const std::string_view name = argument.substr(0, equals);
        const std::string_view value = equals == argument.npos ? "" : argument.substr(equals + 1);
        std::string* target = name == "socket" ? &settings.socket : name == "supervisor" ? &settings.supervisor : nullptr;
        if (name == "stub") target = &settings.stub;
        if (name == "command") target = &settings.command;
        if (!target || !value.starts_with('/'))
            settings.problem = "bad argument '" + std::string(argument) +
                               "' of spank_sckpt.so in plugstack.conf: it takes socket=/PATH, supervisor=/PATH, stub=/PATH and command=/PATH";
        else *target = value;
    }
    return settings;
}

const char* given_value(const char* value, bool on_node) {
    if (!value || (on_node && *value == '\0') || std::string_view(value) == "(null)") return nullptr;
    return value;
}

std::int64_t interval_argument(const CkptOption& option) {
    switch (option.mode) {
        case CkptOption::Mode::site_default: return -1;
        case CkptOption::Mode::manual: return 0;
        case CkptOption::Mode::interval: break;
    }
    return option.interval_seconds;
}

Result<std::int32_t> parse_max_restarts(std::string_view text) {
    std::int32_t count = -1;
    if (!number(text, count) || count < 0 || count > kMaxRestartsLimit)
        return fail(Errc::invalid, "--ckpt-max-restarts=" + std::string(text) + ": give a number from 0 to 1000000, such as 3");
    return count;
}

Result<StepOrigin> parse_step_origin(std::string_view text) {
    StepOrigin origin;
    const std::size_t first = text.find(':'), second = first == text.npos ? first : text.find(':', first + 1);
    if (second == text.npos || !number(text.substr(0, first), origin.job_id) ||
        !number(text.substr(first + 1, second - first - 1), origin.key) || !number(text.substr(second + 1), origin.resume_from))
        return fail(Errc::invalid, "--ckpt-step=" + std::string(text) + ": this option is sckpt's own, and not given by hand");
    return origin;
}

Result<StepCheckpoint> parse_restart(std::string_view text) {
    const auto step = parse_step_checkpoint(text);
    if (!step)
        return fail(Errc::invalid, "--ckpt-restart=" + std::string(text) +
                                       ": give JOB.STEP, such as 12.0, for the newest checkpoint of that step alone, or JOB.STEP.N for checkpoint N");
    return *step;
}

std::vector<std::string> judge_submission(const Submission& submission) {
    std::vector<std::string> warnings;
    if (submission.open_mode == "t")
        warnings.push_back("--open-mode=truncate: output written before a restart will be lost; use --open-mode=append");
    else if (submission.open_mode.empty() && !submission.append_by_default)
        warnings.push_back(
            "this cluster truncates output files by default (JobFileAppend=0): output written before a restart will "
            "be lost; use --open-mode=append");
    if (submission.requeue == "no-requeue")
        warnings.push_back("--no-requeue: the job cannot be requeued, so it will not be restarted from its checkpoints");
    else if (submission.requeue != "requeue" && !submission.requeue_by_default)
        warnings.push_back(
            "this cluster does not requeue by default (JobRequeue=0), so the job will not be restarted from its "
            "checkpoints; use --requeue");
    return warnings;
}

}  // namespace sckpt::plugin
