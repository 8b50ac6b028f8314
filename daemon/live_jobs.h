// SPDX-License-Identifier: GPL-3.0-or-later
//
// Which supervised tasks run where, as nodes tell: the batch script of each job, and the ranks of its steps. Pure bookkeeping; what a node's
// word is worth has been checked before. A step that is over is remembered for a while: a checkpoint may be told of its ranks a moment
// later than they have ended.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "daemon/generation_ranks.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

class RunningStep {
   public:
    std::uint32_t step_id = 0;  // Slurm's
    std::uint32_t tasks = 0;
    const std::map<std::uint32_t, StepRank>& ranks() const { return ranks_; }  // known so far
    bool over() const { return ranks_.size() >= tasks && ended_ == ranks_.size(); }  // all of them have ended

    // What each costs does not grow with the number of ranks.
    void set(std::uint32_t number, StepRank rank);
    void forget(std::uint32_t number);
    void forget_node(const std::string& node);

   private:
    std::map<std::uint32_t, StepRank> ranks_;
    std::map<std::string, std::set<std::uint32_t>> at_;  // node → ranks there
    std::size_t ended_ = 0;                              // how many of them
};

struct LiveJob {
    std::uint32_t uid = 0;
    std::string node;                             // where its batch script runs; "": not known, or it has none
    rpc::Task script;
    std::chrono::steady_clock::time_point due{};  // its next periodic checkpoint
    std::map<std::uint32_t, RunningStep> steps;   // by key
    std::deque<std::uint32_t> steps_over;         // in the order of their ends
    bool has_script() const { return !node.empty(); }
    std::vector<StepRank> ranks() const;  // of all steps
};

class LiveJobs {
   public:
    using Jobs = std::map<std::uint32_t, LiveJob>;

    LiveJob& script_started(const std::string& node, const rpc::Task& task);
    // Of a step. False: nothing is new.
    bool task_started(const std::string& node, const rpc::Task& task);
    void task_ended(const std::string& node, const rpc::Task& task);
    void node_attached(const std::string& node);  // what ran there is told anew
    void forget(std::uint32_t job_id) { jobs_.erase(job_id); }

    LiveJob* find(std::uint32_t job_id);
    const LiveJob* find(std::uint32_t job_id) const;
    // The step that Slurm knows by this id, if any of its tasks runs; its key.
    std::optional<std::uint32_t> step_key(std::uint32_t job_id, std::uint32_t step_id) const;
    std::optional<StepRank> rank_of(const rpc::Task& task) const;  // of a step, as it is known now
    Jobs& all() { return jobs_; }
    const Jobs& all() const { return jobs_; }

   private:
    Jobs jobs_;  // by job id
};

}  // namespace sckpt
