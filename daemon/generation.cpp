// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/generation.h"

#include <algorithm>
#include <format>
#include <utility>

#include "daemon/generation_limits.h"
#include "rpc/task_name.h"

namespace sckpt {

using P = GenerationPhase;
using E = GenerationEvent;
using A = GenerationAction;
using What = GenerationOrder::What;

struct Generation::Input {
    std::string node;  // that has spoken, or is spoken of
    std::string why;   // should this drop the checkpoint
};

namespace {

template <class T>
std::vector<std::string> names_of(const std::vector<T>& list) {
    std::vector<std::string> names;
    for (const T& item : list) names.push_back(item.task);
    return names;
}

std::vector<std::string> sorted(std::vector<std::string> names) {
    std::ranges::sort(names);
    return names;
}

}  // namespace

Generation Generation::of_job(const std::string& script_node, std::chrono::seconds dump_timeout, const GenerationTable& table) {
    Generation generation(dump_timeout, table);
    generation.script_node_ = script_node;
    generation.parts_[script_node];
    return generation;
}

Result<Generation> Generation::of_steps(std::span<const LiveStep> steps, std::span<const StepRank> ranks, std::chrono::seconds dump_timeout,
                                        const GenerationTable& table) {
    Generation generation(dump_timeout, table);
    generation.phase_ = P::freezing;
    SCKPT_ASSIGN(generation.ranks_, GenerationRanks::of(steps));
    SCKPT_TRY(generation.ranks_.learn(ranks));
    if (generation.ranks_.missing() != 0) return fail(Errc::busy, generation.ranks_.missing_text());
    generation.ended_ = generation.ranks_.ended();
    if (generation.ranks_.running().empty()) return fail(Errc::busy, "all tasks have ended, so there is nothing to make a checkpoint of");
    return generation;
}

Generation Generation::captured_before(std::vector<GenerationImage> images, std::vector<EndedRank> ended, const GenerationTable& table) {
    Generation generation(std::chrono::seconds(0), table);
    generation.phase_ = P::storing;
    generation.ended_ = std::move(ended);
    for (GenerationImage& image : images) {
        const std::string node = image.node;
        if (image.task == kBatchTask) generation.script_node_ = node;
        generation.parts_[node].frozen = true;
        generation.add_image(node, std::move(image));
    }
    generation.to_store_ = generation.parts_.size();
    for (auto& [node, part] : generation.parts_) generation.set_away(part, true);
    return generation;
}

// ---------------------------------------------------------------- inputs: each becomes an event of the table

GenerationOrders Generation::begin() { return step(E::begin, {script_node_, ""}); }

GenerationOrders Generation::steps_found(const std::string& node, std::span<const LiveStep> steps) {
    if (node != script_node_) return step(E::stray, {node, ""});
    if (awaits(E::steps_found)) {
        auto ranks = GenerationRanks::of(steps);
        if (!ranks) return failed(node, ranks.error().text);
        ranks_ = std::move(*ranks);
    }
    return step(E::steps_found, {node, ""});
}

GenerationOrders Generation::ranks_known(std::span<const StepRank> ranks) {
    if (!awaits(E::ranks_missing)) return {};
    if (auto learnt = ranks_.learn(ranks); !learnt) return step(E::failed, {"", learnt.error().text});
    if (ranks_.missing() != 0) return step(E::ranks_missing, {});
    ended_ = ranks_.ended();
    return step(ended_.size() == ranks_.total() ? E::ranks_ended : E::ranks_known, {script_node_, ""});
}

GenerationOrders Generation::script_dumped(const std::string& node, const GenerationImage& image) {
    if (node != script_node_) return step(E::stray, {node, ""});
    if (awaits(E::script_dumped)) {
        if (image.task != kBatchTask) return failed(node, std::format("sckptd has dumped {} in place of the batch script", image.task));
        add_image(node, image);
    }
    return step(E::script_dumped, {node, ""});
}

GenerationOrders Generation::tasks_dumped(const std::string& node, std::vector<GenerationImage> images, std::vector<EndedRank> ended) {
    Part* part = part_of(node);
    if (part == nullptr) return step(E::stray, {node, ""});
    if (part->tasks.empty() || part->frozen) return step(E::repeated, {node, ""});
    const E last = script_node_.empty() ? E::all_frozen_alone : E::all_frozen;
    const E event = to_freeze_ == 1 ? last : E::part_frozen;
    if (!awaits(event)) return step(event, {node, ""});
    return take_frozen(node, *part, std::move(images), std::move(ended));
}

GenerationOrders Generation::part_stored(const std::string& node, std::vector<GenerationStored> images) {
    Part* part = part_of(node);
    if (part == nullptr) return step(E::stray, {node, ""});
    if (part->stored) return step(E::repeated, {node, ""});
    const E event = to_store_ == 1 ? E::all_stored : E::part_stored;
    if (awaits(event)) {
        if (sorted(names_of(images)) != sorted(part->images))
            return failed(node, "sckptd has stored other images than those that it had dumped");
        for (GenerationStored& image : images) stored_[image.task] = std::move(image);
        set_away(*part, false);
        part->stored = true;
        --to_store_;
    }
    return step(event, {node, ""});
}

GenerationOrders Generation::failed(const std::string& node, const std::string& why) {
    return step(has_part(node) ? E::failed : E::stray, {node, std::format("{}: {}", node, why)});
}

GenerationOrders Generation::attached(const std::string& node, bool has_it) {
    Part* part = part_of(node);
    if (part == nullptr) return has_it ? step(E::stray, {node, ""}) : GenerationOrders();
    if (part->stored) return step(E::repeated, {node, ""});
    set_away(*part, false);
    if (has_it) return step(E::attached_with, {node, std::format("the connection to {} was lost while the checkpoint was made", node)});
    return step(E::attached_without,
                {node, std::format("{} has lost its part of the checkpoint: sckptd was restarted before the job's processes "
                                   "were let go, or the node's memory was lost",
                                   node)});
}

GenerationOrders Generation::detached(const std::string& node) {
    Part* part = part_of(node);
    if (part == nullptr) return {};
    if (awaits(E::detached) && !part->stored) set_away(*part, true);
    return step(E::detached, {node, std::format("the connection to {} was lost while the checkpoint was made", node)});
}

GenerationOrders Generation::captured() { return step(E::captured, {}); }
GenerationOrders Generation::capture_failed(const std::string& why) { return step(E::capture_failed, {"", "the catalogue fails: " + why}); }
GenerationOrders Generation::completed() { return step(E::completed, {}); }
GenerationOrders Generation::complete_failed(const std::string& why) {
    return step(E::complete_failed, {"", "the catalogue fails: " + why});
}
GenerationOrders Generation::deadline() { return step(E::deadline, {"", late_text()}); }
GenerationOrders Generation::cancelled(const std::string& why) { return step(E::cancelled, {"", why}); }

// ---------------------------------------------------------------- the table at work

Generation::Part* Generation::part_of(const std::string& node) {
    const auto found = parts_.find(node);
    return found == parts_.end() ? nullptr : &found->second;
}

const GenerationTransition& Generation::transition(GenerationEvent event) const {
    return (*table_)[static_cast<std::size_t>(event)][static_cast<std::size_t>(phase_)];
}

// What comes with the event is taken in only then.
bool Generation::awaits(GenerationEvent event) const { return !is_over() && transition(event).action != A::ignore; }

GenerationOrders Generation::step(GenerationEvent event, const Input& input) {
    const GenerationTransition to = transition(event);
    phase_ = to.next;
    return act(to.action, input);
}

GenerationOrders Generation::act(GenerationAction action, const Input& input) {
    const auto to_one = [&](What what) { return GenerationOrders{{what, input.node, {}}}; };
    switch (action) {
        case A::ignore:
        case A::note: return {};
        case A::hold_script: return to_one(What::hold_script);
        case A::ask_ranks: return {{What::ask_ranks, "", {}}};
        case A::dump_tasks: return order_tasks();
        case A::dump_script: return {{What::dump_script, script_node_, {}}};
        case A::capture: return {{What::capture, "", {}}};
        case A::release_all: to_store_ = parts_.size(); return to_all(What::release);
        case A::release_one: return to_one(What::release);
        case A::complete: return {{What::complete, "", {}}};
        case A::stored_all: return to_all(What::stored);
        case A::stored_one: return to_one(What::stored);
        case A::drop_all: {
            why_ = input.why;
            GenerationOrders orders = to_all(What::drop);
            orders.insert(orders.begin(), {What::fail, "", {}});
            return orders;
        }
        case A::drop_one: return to_one(What::drop);
    }
    std::unreachable();
}

GenerationOrders Generation::order_tasks() {
    GenerationOrders orders;
    for (auto& [node, tasks] : ranks_.running()) {
        parts_[node].tasks = sorted(tasks);
        ++to_freeze_;
        orders.push_back({What::dump_tasks, node, std::move(tasks)});
    }
    return orders;
}

GenerationOrders Generation::to_all(What what) const {
    GenerationOrders orders;
    for (const auto& [node, part] : parts_) orders.push_back({what, node, {}});
    return orders;
}

void Generation::set_away(Part& part, bool away) {
    if (std::exchange(part.away, away) == away) return;
    if (away) ++away_;
    else --away_;
}

// A node whose tasks have all ended by themselves has no part any more, but for the script's.
GenerationOrders Generation::take_frozen(const std::string& node, Part& part, std::vector<GenerationImage> images,
                                         std::vector<EndedRank> ended) {
    std::vector<std::string> told = names_of(images);
    for (const EndedRank& rank : ended) told.push_back(rank.task);
    if (sorted(std::move(told)) != part.tasks) return failed(node, "sckptd has dumped other tasks than those that it was ordered to");
    part.frozen = true;
    --to_freeze_;
    const bool leaves = images.empty() && node != script_node_;
    for (GenerationImage& image : images) add_image(node, std::move(image));
    ended_.insert(ended_.end(), std::make_move_iterator(ended.begin()), std::make_move_iterator(ended.end()));

    GenerationOrders orders;
    if (leaves) {
        orders.push_back({What::drop, node, {}});
        parts_.erase(node);
    }
    GenerationOrders next;
    if (to_freeze_ != 0) next = step(E::part_frozen, {node, ""});
    else if (!script_node_.empty()) next = step(E::all_frozen, {node, ""});
    else if (parts_.empty()) next = step(E::failed, {"", "all tasks ended before they could be dumped"});
    else next = step(E::all_frozen_alone, {node, ""});
    orders.insert(orders.end(), std::make_move_iterator(next.begin()), std::make_move_iterator(next.end()));
    return orders;
}

void Generation::add_image(const std::string& node, GenerationImage image) {
    image.node = node;
    parts_[node].images.push_back(image.task);
    images_[image.task] = std::move(image);
}

// ---------------------------------------------------------------- what the owner asks

std::optional<std::chrono::seconds> Generation::limit() const {
    switch (phase_) {
        case P::asked:
        case P::freezing: return dump_answer_limit(dump_timeout_);
        case P::gathering: return kGatherLimit;
        case P::scripting: return script_answer_limit(dump_timeout_);
        case P::storing: return away_ == 0 ? std::nullopt : std::optional<std::chrono::seconds>(kAwayLimit);
        default: return std::nullopt;
    }
}

std::string Generation::late_text() const {
    const auto seconds = limit().value_or(std::chrono::seconds(0)).count();
    const auto first = [this](auto is_late) -> std::string {
        const auto found = std::ranges::find_if(parts_, [&](const auto& entry) { return is_late(entry.second); });
        return found == parts_.end() ? "a node" : found->first;
    };
    switch (phase_) {
        case P::asked: return std::format("{} has not dumped the batch script, nor told of its steps, within {} s", script_node_, seconds);
        case P::gathering: return std::format("{} (waited for {} s)", ranks_.missing_text(), seconds);
        case P::freezing:
            return std::format("nodes that have not dumped their tasks within {} s: {} (the first of them: {})", seconds, to_freeze_,
                               first([](const Part& part) { return !part.frozen && !part.tasks.empty(); }));
        case P::scripting: return std::format("{} has not dumped the batch script within {} s", script_node_, seconds);
        default: break;
    }
    return std::format("{} has had no connection for {} s, and its part of the checkpoint is not stored",
                       first([](const Part& part) { return part.away; }), seconds);
}

std::string Generation::leader() const {
    if (!script_node_.empty()) return kBatchTask;
    return images_.empty() ? "" : images_.begin()->first;
}

std::vector<std::string> Generation::nodes() const {
    std::vector<std::string> nodes;
    for (const auto& [node, part] : parts_) nodes.push_back(node);
    return nodes;
}

}  // namespace sckpt
