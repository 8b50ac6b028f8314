// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/unit/generation_pool.h"

#include <algorithm>
#include <format>
#include <span>
#include <stdexcept>

#include "rpc/task_name.h"

namespace sckpt::test {
namespace {

constexpr std::size_t kTrees = 3;
constexpr std::chrono::seconds kDumpTimeout{300};
const std::vector<LiveStep> kStep{{0, 2}};

std::size_t tree_of(const std::string& task) {
    for (std::size_t tree = 0; tree < kTrees; ++tree)
        if (tree_name(tree) == task) return tree;
    throw std::logic_error("no tree is called " + task);
}

std::uint8_t bit(std::size_t tree) { return static_cast<std::uint8_t>(1u << tree); }
std::string home_of(std::size_t tree) { return node_name(tree == 2 ? 1 : 0); }
GenerationImage image_of(std::size_t tree) { return {tree_name(tree), home_of(tree), 1, 0, {}}; }

std::vector<StepRank> ranks_of(std::array<Rank, 2> ranks) {
    std::vector<StepRank> known;
    for (std::uint32_t rank = 0; rank < 2; ++rank) {
        if (ranks[rank] == Rank::running) known.push_back({0, rank, node_name(rank), {}});
        if (ranks[rank] == Rank::ended) known.push_back({0, rank, node_name(rank), 0});
    }
    return known;
}

std::array<Rank, 2> unpack(std::uint8_t about) { return {static_cast<Rank>(about & 3), static_cast<Rank>(about >> 2)}; }

GenerationOrders put(Generation& generation, const GenerationPool::Input& input) {
    using What = GenerationPool::What;
    const std::string node = node_name(input.node);
    const std::size_t rank_tree = input.node + 1u;
    switch (input.what) {
        case What::begin: return generation.begin();
        case What::steps_found: return generation.steps_found(node, kStep);
        case What::ranks: return generation.ranks_known(ranks_of(unpack(input.about)));
        case What::script_dumped: return generation.script_dumped(node, image_of(0));
        case What::tasks_dumped:
            if (input.about == 1) return generation.tasks_dumped(node, {}, {{tree_name(rank_tree), 0}});
            return generation.tasks_dumped(node, {image_of(rank_tree)}, {});
        case What::part_stored: {
            std::vector<GenerationStored> images;
            for (std::size_t tree = 0; tree < kTrees; ++tree)
                if ((input.about & bit(tree)) != 0) images.push_back({tree_name(tree), {}, 1});
            return generation.part_stored(node, std::move(images));
        }
        case What::failed: return generation.failed(node, "a fault");
        case What::attached: return generation.attached(node, input.about == 1);
        case What::detached: return generation.detached(node);
        case What::captured: return generation.captured();
        case What::capture_failed: return generation.capture_failed("a fault");
        case What::completed: return generation.completed();
        case What::complete_failed: return generation.complete_failed("a fault");
        case What::deadline: return generation.deadline();
        case What::cancelled: return generation.cancelled("a fault");
    }
    return {};
}

}  // namespace

std::string node_name(std::size_t node) { return "n" + std::to_string(node); }
std::string tree_name(std::size_t tree) { return tree == 0 ? kBatchTask : task_name(0, static_cast<std::uint32_t>(tree - 1)); }

std::uint16_t GenerationPool::of_job() { return intern(Generation::of_job(node_name(0), kDumpTimeout, table_), {}); }

std::uint16_t GenerationPool::of_step(std::array<Rank, 2> ranks) {
    auto generation = Generation::of_steps(kStep, ranks_of(ranks), kDumpTimeout, table_);
    return generation ? intern(std::move(*generation), {ranks, {}}) : 0;
}

std::uint16_t GenerationPool::captured_before(std::uint8_t images, std::uint8_t ended) {
    std::vector<GenerationImage> kept;
    std::vector<EndedRank> over;
    for (std::size_t tree = 0; tree < kTrees; ++tree) {
        if ((images & bit(tree)) != 0) kept.push_back(image_of(tree));
        if ((ended & bit(tree)) != 0) over.push_back({tree_name(tree), 0});
    }
    return intern(Generation::captured_before(std::move(kept), std::move(over), table_), {{}, {true, true}});
}

const GenerationPool::Reply& GenerationPool::feed(std::uint16_t state, Input input) {
    const auto known = replies_.find({state, input});
    if (known != replies_.end()) return known->second;
    Generation generation = at(state).generation;
    Hidden hidden = at(state).hidden;
    if (input.what == What::ranks && generation.phase() == GenerationPhase::gathering)
        for (std::size_t rank = 0; rank < 2; ++rank) hidden.learnt[rank] = std::max(hidden.learnt[rank], unpack(input.about)[rank]);
    if (input.what == What::detached || input.what == What::attached) hidden.away[input.node] = input.what == What::detached;
    Reply reply;
    for (const GenerationOrder& order : put(generation, input))
        reply.orders.push_back({order.what, static_cast<std::uint8_t>(order.node == node_name(1) ? 1 : 0)});
    reply.state = intern(std::move(generation), hidden);
    return replies_.emplace(std::pair(state, input), std::move(reply)).first->second;
}

bool GenerationPool::awaits_part(std::uint16_t state, std::size_t node) const {
    const Generation& generation = at(state).generation;
    const bool is_stored =
        std::ranges::any_of(generation.stored(), [&](const auto& stored) { return home_of(tree_of(stored.first)) == node_name(node); });
    return generation.has_part(node_name(node)) && !is_stored;
}

std::uint16_t GenerationPool::intern(Generation generation, Hidden hidden) {
    if (generation.phase() != GenerationPhase::gathering && generation.phase() != GenerationPhase::freezing) hidden.learnt = {};
    if (generation.phase() != GenerationPhase::storing) hidden.away = {};
    State state{std::move(generation), hidden};
    std::string seen = std::format("{} {} {} {} {} {}:", static_cast<int>(state.generation.phase()), state.generation.limit().has_value(),
                                   static_cast<int>(hidden.learnt[0]), static_cast<int>(hidden.learnt[1]), hidden.away[0], hidden.away[1]);
    for (const std::string& node : state.generation.nodes()) seen += " part:" + node;
    for (const auto& [task, image] : state.generation.images()) {
        seen += " image:" + task;
        state.images |= bit(tree_of(task));
    }
    for (const EndedRank& rank : state.generation.ended()) {
        seen += " ended:" + rank.task;
        state.ended |= bit(tree_of(rank.task));
    }
    for (const auto& [task, stored] : state.generation.stored()) seen += " stored:" + task;
    const auto [number, is_new] = numbers_.emplace(std::move(seen), static_cast<std::uint16_t>(states_.size() + 1));
    if (is_new) states_.push_back(std::move(state));
    return number->second;
}

}  // namespace sckpt::test
