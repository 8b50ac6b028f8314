// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/generation_ranks.h"

#include <format>
#include <set>

#include "rpc/task_name.h"

namespace sckpt {
namespace {

std::string how_it_is(const StepRank& rank) {
    return rank.wait_status ? std::format("ended on {}", rank.node) : std::format("running on {}", rank.node);
}

std::unexpected<Error> contradiction(const StepRank& one, const StepRank& other) {
    return fail(Errc::invalid,
                std::format("task {} is reported as {} and as {}: the nodes contradict each other, so no checkpoint can be made of "
                            "the step now",
                            task_name(one.step_key, one.rank), how_it_is(one), how_it_is(other)));
}

bool is_same(const StepRank& one, const StepRank& other) { return one.node == other.node && one.wait_status == other.wait_status; }

}  // namespace

Result<GenerationRanks> GenerationRanks::of(std::span<const LiveStep> steps) {
    GenerationRanks ranks;
    if (steps.empty()) return fail(Errc::invalid, "no live step was named");
    for (const LiveStep& step : steps) {
        if (step.tasks == 0) return fail(Errc::invalid, std::format("the step of {} has no tasks", task_name(step.key, 0)));
        if (!ranks.steps_.emplace(step.key, step.tasks).second)
            return fail(Errc::invalid, std::format("the step of {} is told of twice", task_name(step.key, 0)));
        ranks.total_ += step.tasks;
    }
    return ranks;
}

Result<> GenerationRanks::learn(std::span<const StepRank> ranks) {
    std::set<Key> told;
    for (const StepRank& rank : ranks) {
        const auto step = steps_.find(rank.step_key);
        if (step == steps_.end()) continue;
        if (rank.rank >= step->second)
            return fail(Errc::invalid, std::format("task {} is reported by {}, and its step has {} tasks: the report cannot be right",
                                                   task_name(rank.step_key, rank.rank), rank.node, step->second));
        const Key key(rank.step_key, rank.rank);
        const auto [known, is_new] = known_.try_emplace(key, rank);
        const bool first_word = told.insert(key).second;
        if (is_new || is_same(known->second, rank)) continue;
        const bool may_be_news =
            first_word && known->second.node == rank.node && known->second.wait_status.has_value() != rank.wait_status.has_value();
        if (!may_be_news) return contradiction(known->second, rank);
        if (rank.wait_status) known->second = rank;  // else it is late: an end is final
    }
    return {};
}

std::string GenerationRanks::missing_text() const {
    for (const auto& [step, tasks] : steps_)
        for (std::uint32_t rank = 0; rank < tasks; ++rank)
            if (!known_.contains({step, rank}))
                return std::format(
                    "{} of {} tasks are not known to sckptctld (the first of them: {}): they were started without sckpt, have not "
                    "begun yet, or their node has no connection",
                    missing(), total_, task_name(step, rank));
    return "";
}

std::map<std::string, std::vector<std::string>> GenerationRanks::running() const {
    std::map<std::string, std::vector<std::string>> nodes;
    for (const auto& [key, rank] : known_)
        if (!rank.wait_status) nodes[rank.node].push_back(task_name(key.first, key.second));
    return nodes;
}

std::vector<EndedRank> GenerationRanks::ended() const {
    std::vector<EndedRank> ended;
    for (const auto& [key, rank] : known_)
        if (rank.wait_status) ended.push_back({task_name(key.first, key.second), *rank.wait_status});
    return ended;
}

}  // namespace sckpt
