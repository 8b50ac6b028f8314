// SPDX-License-Identifier: GPL-3.0-or-later
//
// A node in the explorer's world: sckptd, the trees that it dumps, what it keeps, and its end of the connection.
#include "tests/unit/generation_world.h"

namespace sckpt::test {
namespace {

std::uint8_t bit(std::size_t number) { return static_cast<std::uint8_t>(1u << number); }

}  // namespace

void NodeModel::deliver(Message message) {
    Part& part = node_.parts[message.row];
    switch (message.say) {
        case Say::hold_script:
            if (part.script != Script::none) return;
            act(message.say, message.row);
            part.script = step_is_live() ? Script::held : Script::dumping;
            if (part.script == Script::held) send(Say::steps_found, message.row);
            return;
        case Say::dump_tasks:
            if (part.tasks != Tasks::none) return;
            act(message.say, message.row);
            part.tasks = Tasks::dumping;
            return;
        case Say::dump_script:
            if (part.script != Script::held) return;  // let go meanwhile, which was reported
            act(message.say, message.row);
            part.script = Script::dumping;
            return;
        case Say::release:
            if (!part.is_there() || part.released) return;
            act(message.say, message.row);
            part.released = true;
            if (world_.trees[rank_tree()] == Tree::frozen) world_.trees[rank_tree()] = Tree::running;
            return;
        case Say::drop: return remove(message.row);
        default: return;  // stored: the part is a cache from now on
    }
}

void NodeModel::connect() {
    node_.link = Link::live;
    std::uint8_t held = 0;
    for (std::uint8_t row = 0; row < kRows; ++row)
        if (node_.parts[row].is_there()) held |= bit(row);
    send(Say::hello, 0, static_cast<std::uint8_t>(held | static_cast<unsigned>(rank()) << kRows));
    for (std::uint8_t row = 0; row < kRows; ++row)
        if (node_.parts[row].stored) send(Say::part_stored, row, world_.in_store[row] & (index_ == 0 ? 0b011 : 0b100));
}

void NodeModel::freeze_tasks(std::uint8_t row) {
    Part& part = node_.parts[row];
    Tree& tree = world_.trees[rank_tree()];
    if (tree == Tree::ended) {
        part.tasks = Tasks::ended;
        if (!scenario_.script) make_cut(row, true);
        send(Say::tasks_dumped, row, 1);
        if (part.script == Script::none) part = {};  // nothing of it is here
        return;
    }
    if (tree != Tree::running) return lose_part(row);
    tree = Tree::frozen;
    part.tasks = Tasks::frozen;
    if (!scenario_.script) make_cut(row, true);
    send(Say::tasks_dumped, row);
}

void NodeModel::dump_script(std::uint8_t row) {
    Part& part = node_.parts[row];
    make_cut(row, (node_.acted[row] & bit(static_cast<std::size_t>(Say::dump_script) - static_cast<std::size_t>(Say::hold_script))) != 0);
    part.script = Script::dumped;
    send(Say::script_dumped, row);
}

// Which ranks are frozen with an image of this checkpoint, or have ended, at this moment. The last such moment before the script's dump is
// that of a step alone.
void NodeModel::make_cut(std::uint8_t row, bool step_live) {
    Cut cut{true, step_live, 0, 0};
    for (std::size_t tree = 1; step_live && tree < kTrees; ++tree) {
        if (world_.trees[tree] == Tree::ended) cut.ended |= bit(tree);
        if (world_.trees[tree] == Tree::frozen && world_.nodes[tree - 1].parts[row].tasks == Tasks::frozen) cut.frozen |= bit(tree);
    }
    if (scenario_.script || (cut.frozen | cut.ended) == kAllRanks) world_.cuts[row] = cut;
}

void NodeModel::drain(std::uint8_t row) {
    Part& part = node_.parts[row];
    std::uint8_t trees = 0;
    if (part.script == Script::dumped) trees |= bit(0);
    if (part.tasks == Tasks::frozen) trees |= bit(rank_tree());
    part.stored = true;
    world_.in_store[row] |= trees;
    send(Say::part_stored, row, trees);
}

void NodeModel::lose_part(std::uint8_t row) {
    remove(row);
    send(Say::failed, row);
}

// A dump has a deadline of its own.
bool NodeModel::may_time_out(std::uint8_t row) const {
    const Part& part = node_.parts[row];
    if (scenario_.defect == Defect::waits_for_ever) return false;
    if (scenario_.defect == Defect::keeps_part_of_running_tree && world_.trees[rank_tree()] != Tree::frozen) return false;
    return part.is_there() && !part.released && part.script != Script::dumping && part.tasks != Tasks::dumping;
}

void NodeModel::times_out(std::uint8_t row) {
    if (scenario_.defect != Defect::keeps_part_of_running_tree) return lose_part(row);
    world_.trees[rank_tree()] = Tree::running;
}

void NodeModel::rank_ends() {
    world_.trees[rank_tree()] = Tree::ended;
    send(Say::rank, 0, static_cast<std::uint8_t>(Rank::ended));
}

void NodeModel::crash() {
    for (std::uint8_t row = 0; row < kRows; ++row)
        if (!node_.parts[row].released) remove(row);
    node_.sckptd = false;
}

void NodeModel::break_link(std::size_t keep_up, std::size_t keep_down) {
    node_.down.keep(keep_down);
    node_.up.keep(keep_up);
    if (world_.links[index_] == Link::live) {
        node_.old_up = node_.up;
        world_.links[index_] = Link::dead;
    }
    node_.up.clear();  // else the hello is among it, and sckptctld never sees the connection
    node_.link = Link::dead;
}

Rank NodeModel::rank() const {
    const Tree tree = world_.trees[rank_tree()];
    if (tree == Tree::ended) return Rank::ended;
    return tree == Tree::running || tree == Tree::frozen ? Rank::running : Rank::unknown;
}

void NodeModel::send(Say say, std::uint8_t row, std::uint8_t about) {
    if (node_.sckptd && node_.link == Link::live) node_.up.push({say, row, about});
}

void NodeModel::act(Say say, std::uint8_t row) {
    const std::uint8_t order = bit(static_cast<std::size_t>(say) - static_cast<std::size_t>(Say::hold_script));
    if ((node_.acted[row] & order) != 0) wrong_ = "an order is acted on twice";
    node_.acted[row] |= order;
}

// First the part goes, then its trees go on.
void NodeModel::remove(std::uint8_t row) {
    const Part part = node_.parts[row];
    node_.parts[row] = {};
    if (part.tasks == Tasks::frozen && !part.released && world_.trees[rank_tree()] == Tree::frozen)
        world_.trees[rank_tree()] = Tree::running;
}

bool NodeModel::step_is_live() const {
    for (std::size_t tree = 1; tree < kTrees; ++tree)
        if (world_.trees[tree] == Tree::running || world_.trees[tree] == Tree::frozen) return true;
    return false;
}

}  // namespace sckpt::test
