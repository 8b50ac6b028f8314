// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/live_jobs.h"

#include <algorithm>
#include <ranges>

#include "rpc/local.h"

namespace sckpt {
namespace {

constexpr std::size_t kStepsRemembered = 64;  // of those that are over, in each job

}  // namespace

void RunningStep::set(std::uint32_t number, StepRank rank) {
    forget(number);
    at_[rank.node].insert(number);
    if (rank.wait_status) ++ended_;
    ranks_.emplace(number, std::move(rank));
}

void RunningStep::forget(std::uint32_t number) {
    const auto known = ranks_.find(number);
    if (known == ranks_.end()) return;
    if (known->second.wait_status) --ended_;
    const auto there = at_.find(known->second.node);
    there->second.erase(number);
    if (there->second.empty()) at_.erase(there);
    ranks_.erase(known);
}

void RunningStep::forget_node(const std::string& node) {
    const auto there = at_.find(node);
    if (there == at_.end()) return;
    for (const std::uint32_t number : std::set(there->second)) forget(number);
}

std::vector<StepRank> LiveJob::ranks() const {
    std::vector<StepRank> all;
    for (const auto& [key, step] : steps)
        for (const auto& [number, rank] : step.ranks()) all.push_back(rank);
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
    const auto known = step.ranks().find(task.task_id());
    if (known != step.ranks().end() && known->second.node == rank.node && known->second.wait_status == rank.wait_status) return false;
    step.set(task.task_id(), std::move(rank));
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
    const auto rank = step->second.ranks().find(task.task_id());
    if (rank == step->second.ranks().end() || rank->second.node != node) return;
    if (!task.ended()) {  // it has gone without a word of how
        step->second.forget(task.task_id());
        if (step->second.ranks().empty()) job->steps.erase(step);
    } else {
        StepRank last = rank->second;
        last.wait_status = task.wait_status();
        step->second.set(task.task_id(), std::move(last));
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
        for (auto& [key, step] : job.steps) step.forget_node(node);
        std::erase_if(job.steps, [](const auto& entry) { return entry.second.ranks().empty(); });
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

std::optional<StepRank> LiveJobs::rank_of(const rpc::Task& task) const {
    const LiveJob* job = find(task.job_id());
    if (job == nullptr) return std::nullopt;
    const auto step = job->steps.find(task.step_key());
    if (step == job->steps.end()) return std::nullopt;
    const auto rank = step->second.ranks().find(task.task_id());
    if (rank == step->second.ranks().end()) return std::nullopt;
    return rank->second;
}

std::optional<std::uint32_t> LiveJobs::step_key(std::uint32_t job_id, std::uint32_t step_id) const {
    const LiveJob* job = find(job_id);
    if (job == nullptr) return std::nullopt;
    for (const auto& [key, step] : job->steps)
        if (step.step_id == step_id && !step.over()) return key;
    return std::nullopt;
}

}  // namespace sckpt
