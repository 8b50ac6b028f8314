// SPDX-License-Identifier: GPL-3.0-or-later
//
// The ranks of the steps that are live at a checkpoint, and what is known of them: for each where it runs, or how it has ended. Pure
// bookkeeping. Time and memory grow with the ranks, and what is told again costs nothing but the look.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/result.h"
#include "image_store/manifest.h"

namespace sckpt {

struct LiveStep {
    std::uint32_t key = 0;    // rpc/task_name.h
    std::uint32_t tasks = 0;  // how many ranks it has
};

struct StepRank {
    std::uint32_t step_key = 0, rank = 0;
    std::string node;                // where it runs, or ran
    std::optional<int> wait_status;  // it has ended, as waitpid(2) gave it
};

using EndedRank = EndedTask;

class GenerationRanks {
   public:
    // Errc::invalid: no step, one without tasks, one that is told of twice.
    static Result<GenerationRanks> of(std::span<const LiveStep> steps);

    // What has become known. Ranks of other steps are passed over, what is known already too, and a running rank may end; whatever else
    // does not fit is Errc::invalid: a rank that the step does not have, one that runs on two nodes, one that runs and has ended.
    Result<> learn(std::span<const StepRank> ranks);

    std::size_t total() const { return total_; }
    std::size_t missing() const { return total_ - known_.size(); }
    std::string missing_text() const;                                 // a sentence; missing() is not 0
    std::map<std::string, std::vector<std::string>> running() const;  // node → names of the tasks there
    std::vector<EndedRank> ended() const;

   private:
    using Key = std::pair<std::uint32_t, std::uint32_t>;  // step key, rank
    std::map<std::uint32_t, std::uint32_t> steps_;        // key → tasks
    std::map<Key, StepRank> known_;
    std::size_t total_ = 0;
};

}  // namespace sckpt
