// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-clean check: has all complete checkpoints verified, or those of one job.
#include <format>
#include <utility>

#include "cli/clean.h"
#include "cli/job_id.h"
#include "cli/progress.h"

namespace sckpt::cli {

std::string CheckState::update(const rpc::CheckProgress& progress) {
    last_ = progress;
    const std::string name = to_string({progress.job_id(), progress.checkpoint()});
    if (!progress.unreadable().empty()) {
        unreadable_.push_back({name, progress});
        return std::format("checkpoint {}: it cannot be read: {}", name, progress.unreadable());
    }
    if (progress.faults().empty()) {
        if (!progress.repaired().empty()) notes_.push_back(progress.repaired());
        return progress.repaired();
    }
    bad_.push_back({name, progress});
    return std::format("checkpoint {}: {}, the first: {}", name,
                       counted(static_cast<std::uint64_t>(progress.faults_size()), "fault"), progress.faults(0));
}

std::string CheckState::progress() const {
    return std::format("{} of {} checked, {}{}", last_.checked(), counted(last_.total(), "image"),
                       format_bytes(last_.bytes()), bad_.empty() ? "" : std::format(", {} not whole", bad_.size()));
}

std::string CheckState::render(const CheckOptions& options) const {
    std::string text;
    for (const Bad& bad : bad_) {
        text += std::format("checkpoint {} is not whole\n", bad.name);
        for (const std::string& fault : bad.found.faults()) text += "  " + printable(fault) + "\n";
        if (!bad.found.repaired().empty()) text += "  " + printable(bad.found.repaired()) + "\n";
    }
    for (const Bad& one : unreadable_)
        text += std::format("checkpoint {} cannot be read\n  {}\n", one.name, printable(one.found.unreadable()));
    for (const std::string& note : notes_) text += printable(note) + "\n";
    text += std::format("{} checked{}, {}: ", counted(last_.checked(), "image"), options.quick ? " (quick)" : "",
                        format_bytes(last_.bytes()));
    if (bad_.empty() && unreadable_.empty()) return text + (last_.checked() == 1 ? "it is whole\n" : "all of them are whole\n");
    if (!unreadable_.empty()) text += std::format("{} cannot be read{}", unreadable_.size(), bad_.empty() ? "\n" : ", ");
    if (bad_.empty()) return text;
    text += std::format("{} not whole", bad_.size());
    return text +
           (options.repair ? "\n" : "; `sckpt-clean check --repair` puts aside what is bad, and restarts use older ones\n");
}

nlohmann::json CheckState::json() const {
    nlohmann::json bad = nlohmann::json::array();
    for (const Bad& one : bad_)
        bad.push_back({{"job_id", one.found.job_id()},
                       {"checkpoint", one.found.checkpoint()},
                       {"faults", std::vector<std::string>(one.found.faults().begin(), one.found.faults().end())},
                       {"repaired", one.found.repaired()}});
    nlohmann::json unreadable = nlohmann::json::array();
    for (const Bad& one : unreadable_)
        unreadable.push_back({{"job_id", one.found.job_id()}, {"checkpoint", one.found.checkpoint()}, {"why", one.found.unreadable()}});
    return {{"checked", last_.checked()},
            {"total", last_.total()},
            {"bytes", last_.bytes()},
            {"bad", std::move(bad)},
            {"unreadable", std::move(unreadable)},
            {"notes", notes_}};
}

Result<Outcome> clean_check(const Session& session, const CheckOptions& options) {
    rpc::CheckRequest request;
    request.set_job_id(options.job);
    request.set_repair(options.repair);
    request.set_quick(options.quick);
    CheckState state;
    {
        ProgressLine line;
        SCKPT_TRY(session.follow("Check", &Session::Stub::Check, request, [&](const rpc::CheckProgress& progress) {
            const std::string found = state.update(progress);
            if (!found.empty()) line.note(found);
            line.tick(state.progress());
        }));
    }
    return Outcome(session.json() ? json_text(state.json()) : state.render(options),
                   state.faults() ? ExitCode::faults : ExitCode::ok);
}

}  // namespace sckpt::cli
