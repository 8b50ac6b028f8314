// SPDX-License-Identifier: GPL-3.0-or-later
//
// The tasks of job arrays. To Slurm each is a job of its own as soon as it starts, and to sckpt nothing else ever; here the names that users give them
// become the numbers of those jobs. Slurm alone knows them, so it is asked.
#include <algorithm>
#include <format>

#include "daemon/controller.h"

namespace sckpt {
namespace {

constexpr std::uint64_t kMostTasks = 100'000;  // that one request may name

void add(rpc::FindJobsReply& reply, std::uint32_t job_id, std::string name, std::string problem = {}) {
    rpc::FoundJob& found = *reply.add_jobs();
    found.set_job_id(job_id);
    found.set_name(std::move(name));
    found.set_problem(std::move(problem));
}

Result<std::vector<std::uint32_t>> named_tasks(const rpc::FindJobsRequest& request) {
    std::vector<std::uint32_t> tasks;
    for (const rpc::TaskRange& range : request.tasks()) {
        if (range.last() < range.first() || range.step() == 0) return fail(Errc::invalid, "a range of tasks that cannot be");
        if ((range.last() - range.first()) / range.step() + tasks.size() >= kMostTasks)
            return fail(Errc::invalid, std::format("more than {} tasks at once: name fewer", kMostTasks));
        for (std::uint64_t task = range.first(); task <= range.last(); task += range.step()) tasks.push_back(static_cast<std::uint32_t>(task));
    }
    std::ranges::sort(tasks);
    const auto twice = std::ranges::unique(tasks);
    tasks.erase(twice.begin(), twice.end());
    return tasks;
}

}  // namespace

// Without Slurm a number is taken for what it is in the catalogue: a job's.
Result<rpc::FindJobsReply> Controller::find_jobs(const rpc::FindJobsRequest& request, const rpc::Caller& caller) {
    rpc::FindJobsReply reply;
    const std::uint32_t array = request.job_id();
    SCKPT_ASSIGN(const std::vector<std::uint32_t> wanted, named_tasks(request));
    Result<std::vector<SlurmJob>> tasks = slurm_array(array);
    if (!tasks && !wanted.empty()) return std::unexpected(tasks.error());
    if (!tasks || (tasks->empty() && wanted.empty())) {
        add(reply, array, std::to_string(array));
        return reply;
    }
    reply.set_is_array(true);
    if (tasks->empty())
        return fail(Errc::not_found, std::format("Slurm knows no job array {} (any more) of which a task has started; give a job's own number, which "
                                                 "`sckpt list` shows",
                                                 array));
    if (tasks->front().uid != caller.uid && !operators_.contains(caller.uid))
        return fail(Errc::denied, std::format("job {} is not yours: only its owner, an operator or root may do this", array));
    std::map<std::uint32_t, const SlurmJob*> by_task;
    for (const SlurmJob& task : *tasks) by_task[*task.array_task] = &task;
    const auto name = [array](std::uint32_t task) { return std::format("{}_{}", array, task); };
    for (const std::uint32_t task : wanted) {
        const auto found = by_task.find(task);
        if (found != by_task.end()) add(reply, found->second->job_id, name(task));
        else add(reply, 0, name(task), "it has not started yet, or there is no such task in this array");
    }
    if (!wanted.empty()) return reply;
    for (const auto& [task, job] : by_task) {
        if (request.running() && job->state != SlurmJobState::running) continue;
        const auto known = catalogue_.newest_job(job->job_id);
        if (!request.running() && (!known || !*known)) continue;
        add(reply, job->job_id, name(task));
    }
    if (reply.jobs().empty())
        return fail(Errc::not_found, request.running() ? std::format("no task of job array {} is running now", array)
                                                       : std::format("no task of job array {} is known to sckpt", array));
    return reply;
}

}  // namespace sckpt
