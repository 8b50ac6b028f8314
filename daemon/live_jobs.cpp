// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/live_jobs.h"

#include <algorithm>
#include <ranges>

#include "rpc/local.h"

namespace sckpt {
namespace {

constexpr std::size_t kStepsRemembered = 64;  // of those that are over, in each job

}  // namespace

bool RunningStep::over() const {
    return ranks.size() >= tasks && std::ranges::all_of(ranks, [](const auto& entry) { return entry.second.wait_status.has_value(); });
}

std::vector<StepRank> LiveJob::ranks() const {
    std::vector<StepRank> all;
    for (const auto& [key, step] : steps)
        for (const auto& [number, rank] : step.ranks) all.push_back(rank);
    return all;
}

LiveJob& LiveJobs::script_started(const std::string& node, const rpc::Task& task) {
    LiveJob& job = jobs_[task.job_id()];
    job.uid = task.uid();
    job.node = node;
    job.script = task;
    return job;
}

bool LiveJobs::task_started(const std::string& node, const rpc::Task& task) {
    LiveJob& job = jobs_[task.job_id()];
    if (job.uid == 0) job.uid = task.uid();
    RunningStep& step = job.steps[task.step_key()];
    step.step_id = task.step_id();
    step.tasks = std::max<std::uint32_t>(task.tasks(), 1);
    StepRank rank{task.step_key(), task.task_id(), node, std::nullopt};
    if (task.ended()) rank.wait_status = task.wait_status();
    const auto [known, is_new] = step.ranks.try_emplace(task.task_id(), rank);
    if (!is_new && known->second.node == rank.node && known->second.wait_status == rank.wait_status) return false;
    known->second = rank;
    return true;
}

void LiveJobs::task_ended(const std::string& node, const rpc::Task& task) {
    LiveJob* job = find(task.job_id());
    if (job == nullptr || job->uid != task.uid()) return;
    if (task.step_id() == local::kBatchStep) {
        if (job->node != node) return;
        job->node.clear();
        if (job->steps.empty()) jobs_.erase(task.job_id());
        return;
    }
    const auto step = job->steps.find(task.step_key());
    if (step == job->steps.end()) return;
    const auto rank = step->second.ranks.find(task.task_id());
    if (rank == step->second.ranks.end() || rank->second.node != node) return;
    if (!task.ended()) {  // it has gone without a word of how
        step->second.ranks.erase(rank);
        if (step->second.ranks.empty()) job->steps.erase(step);
    } else {
        rank->second.wait_status = task.wait_status();
        if (!step->second.over()) return;
        job->steps_over.push_back(step->first);
        if (job->steps_over.size() > kStepsRemembered) {
            job->steps.erase(job->steps_over.front());
            job->steps_over.pop_front();
        }
    }
    if (!job->has_script() && std::ranges::all_of(job->steps, [](const auto& entry) { return entry.second.over(); }))
        jobs_.erase(task.job_id());
}

void LiveJobs::node_attached(const std::string& node) {
    for (auto& [job_id, job] : jobs_) {
        if (job.node == node) job.node.clear();
        for (auto& [key, step] : job.steps) std::erase_if(step.ranks, [&](const auto& entry) { return entry.second.node == node; });
        std::erase_if(job.steps, [](const auto& entry) { return entry.second.ranks.empty(); });
    }
    std::erase_if(jobs_, [](const auto& entry) { return !entry.second.has_script() && entry.second.steps.empty(); });
}

LiveJob* LiveJobs::find(std::uint32_t job_id) {
    const auto found = jobs_.find(job_id);
    return found == jobs_.end() ? nullptr : &found->second;
}

const LiveJob* LiveJobs::find(std::uint32_t job_id) const {
    const auto found = jobs_.find(job_id);
    return found == jobs_.end() ? nullptr : &found->second;
}

std::optional<std::uint32_t> LiveJobs::step_key(std::uint32_t job_id, std::uint32_t step_id) const {
    const LiveJob* job = find(job_id);
    if (job == nullptr) return std::nullopt;
    for (const auto& [key, step] : job->steps)
        if (step.step_id == step_id && !step.over()) return key;
    return std::nullopt;
}

}  // namespace sckpt
