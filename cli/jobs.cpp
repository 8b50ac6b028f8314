// SPDX-License-Identifier: GPL-3.0-or-later
#include "cli/jobs.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <format>
#include <thread>

#include "cli/output.h"

namespace sckpt::cli {
namespace {

std::string named(const std::string& job, std::optional<std::uint32_t> part) { return part ? std::format("{}.{}", job, *part) : job; }

Result<> select(const Session& session, const JobSelector& selector, bool running, Selection& out) {
    rpc::FindJobsRequest request;
    request.set_job_id(selector.job);
    request.set_running(running);
    for (const TaskRange& range : selector.tasks) {
        rpc::TaskRange& wanted = *request.add_tasks();
        wanted.set_first(range.first);
        wanted.set_last(range.last);
        wanted.set_step(range.step);
    }
    SCKPT_ASSIGN(const rpc::FindJobsReply reply, session.ask("FindJobs", &Session::Stub::FindJobs, request));
    for (const rpc::FoundJob& job : reply.jobs()) out.jobs.push_back({job.job_id(), selector.part, named(job.name(), selector.part), job.problem()});
    const bool one = selector.tasks.size() == 1 && selector.tasks.front().first == selector.tasks.front().last;
    out.several = out.several || (reply.is_array() && !one);
    return {};
}

std::vector<Result<std::string>> run_all(const Selection& selection, const JobVerb& verb, unsigned at_once) {
    std::vector<Result<std::string>> results(selection.jobs.size(), std::string());
    std::atomic<std::size_t> next = 0;
    const auto work = [&] {
        for (std::size_t at = next++; at < results.size(); at = next++) {
            const NamedJob& job = selection.jobs[at];
            results[at] = job.problem.empty() ? verb(job) : fail(Errc::not_found, job.problem);
        }
    };
    std::vector<std::jthread> others;
    for (unsigned i = 1; i < std::min<std::size_t>(at_once, results.size()); ++i) others.emplace_back(work);
    work();
    others.clear();
    return results;
}

Result<std::string> documents(const Selection& selection, const std::vector<Result<std::string>>& results) {
    nlohmann::json all = nlohmann::json::array();
    for (std::size_t at = 0; at < results.size(); ++at) {
        const auto& result = results[at];
        nlohmann::json document = nlohmann::json::object();
        if (!result) document["error"] = {{"code", errc_name(result.error().code)}, {"message", result.error().text}};
        else document = nlohmann::json::parse(*result, nullptr, false);
        if (!document.is_object()) return fail(Errc::internal, "a result's JSON is not an object");
        document["name"] = selection.jobs[at].name;
        all.push_back(std::move(document));
    }
    return json_text({{"jobs", std::move(all)}});
}

}  // namespace

Result<Selection> select_jobs(const Session& session, const std::string& text, Part part, bool running) {
    SCKPT_ASSIGN(const std::vector<JobSelector> selectors, parse_selectors(text, part));
    Selection selection{.jobs = {}, .several = selectors.size() > 1};
    for (const JobSelector& selector : selectors) SCKPT_TRY(select(session, selector, running, selection));
    return selection;
}

Result<Outcome> for_each_job(const Session& session, const Selection& selection, const std::string& doing, const JobVerb& verb, unsigned at_once) {
    const std::vector<Result<std::string>> results = run_all(selection, verb, at_once);
    if (!selection.several) {
        if (!results.front()) return std::unexpected(results.front().error());
        return Outcome(*results.front());
    }
    const auto worked = std::ranges::count_if(results, [](const auto& result) { return result.has_value(); });
    const auto bad = std::ranges::find_if(results, [](const auto& result) { return !result; });
    ExitCode code = ExitCode::ok;
    if (bad != results.end()) code = worked > 0 ? ExitCode::some : exit_code(bad->error().code);
    if (session.json()) {
        SCKPT_ASSIGN(std::string text, documents(selection, results));
        return Outcome(std::move(text), code);
    }
    std::string text;
    for (std::size_t at = 0; at < results.size(); ++at) {
        if (results[at]) text += *results[at];
        else
            std::fprintf(stderr, "sckpt: %s job %s: %s\n", doing.c_str(), selection.jobs[at].name.c_str(), printable(results[at].error().text).c_str());
    }
    return Outcome(std::move(text), code);
}

}  // namespace sckpt::cli
