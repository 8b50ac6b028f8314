// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckptctld in the explorer's world: what daemon/controller_*.cpp does around class Generation, and its catalogue.
#include <algorithm>

#include "tests/unit/generation_world.h"

namespace sckpt::test {
namespace {

using Input = GenerationPool::Input;
using In = GenerationPool::What;
using What = GenerationOrder::What;

std::uint8_t small(std::size_t number) { return static_cast<std::uint8_t>(number); }

}  // namespace

bool ControllerModel::may_create() const {
    if (!world_.controller || world_.generation != 0 || world_.created >= scenario_.checkpoints || world_.job_over) return false;
    if (scenario_.script) return world_.links[0] != Link::off;
    const bool runs = world_.ranks[0] == Rank::running || world_.ranks[1] == Rank::running;
    return runs && world_.ranks[0] != Rank::unknown && world_.ranks[1] != Rank::unknown;
}

void ControllerModel::create() {
    world_.row = world_.created++;
    world_.rows[world_.row] = Row::preparing;
    world_.generation = scenario_.script ? pool_.of_job() : pool_.of_step(world_.ranks);
    feed({In::begin});
}

// What it hears of a checkpoint that is not under way is answered by the catalogue's state.
void ControllerModel::deliver(std::size_t node, Message message) {
    if (message.say == Say::hello) return hello(node, message);
    if (message.say == Say::rank) {
        world_.ranks[node] = std::max(world_.ranks[node], static_cast<Rank>(message.about));
        return tell_ranks();
    }
    if (world_.generation == 0 || world_.row != message.row) return settle(node, message.row);
    Input input{In::failed, small(node), message.about};
    if (message.say == Say::steps_found) input.what = In::steps_found;
    if (message.say == Say::script_dumped) input.what = In::script_dumped;
    if (message.say == Say::tasks_dumped) input.what = In::tasks_dumped;
    if (message.say == Say::part_stored) input.what = In::part_stored;
    if (message.say == Say::failed) lose(input);
    else feed(input);
}

void ControllerModel::hello(std::size_t node, Message message) {
    world_.links[node] = Link::live;
    world_.ranks[node] = static_cast<Rank>(message.about >> kRows);
    for (std::uint8_t row = 0; row < kRows; ++row) {
        const bool has_part = (message.about >> row & 1) != 0;
        if (world_.generation != 0 && world_.row == row) lose({In::attached, small(node), has_part});
        else if (has_part) settle(node, row);
    }
    tell_ranks();
}

void ControllerModel::notices_break(std::size_t node) {
    world_.links[node] = Link::off;
    world_.ranks[node] = Rank::unknown;
    if (world_.generation != 0) lose({In::detached, small(node)});
}

// A part is lost by this; of a captured checkpoint only if the node says so.
void ControllerModel::lose(const Input& input) {
    const bool is_captured = world_.rows[world_.row] == Row::captured;
    const bool says_so = input.what == In::failed || (input.what == In::attached && input.about == 0);
    const bool costs_it = pool_.awaits_part(world_.generation, input.node) && (!is_captured || says_so);
    feed(input);
    expect(!costs_it || world_.generation == 0, "a part is lost, and the checkpoint is not dropped at once");
}

void ControllerModel::settle(std::size_t node, std::uint8_t row) {
    (void)send(node, world_.rows[row] == Row::complete ? Say::stored : Say::drop, row);
}

void ControllerModel::restart() {
    world_.controller = true;
    for (std::uint8_t row = 0; row < kRows; ++row) {
        if (world_.rows[row] == Row::preparing) world_.rows[row] = Row::failed;
        if (world_.rows[row] != Row::captured) continue;
        world_.row = row;
        world_.generation = pool_.captured_before(world_.images[row], world_.ended[row]);
    }
}

void ControllerModel::deadline() { feed({In::deadline}); }
void ControllerModel::cancel() { feed({In::cancelled}); }

void ControllerModel::tell_ranks() {
    if (world_.generation == 0 || pool_.phase(world_.generation) != GenerationPhase::gathering) return;
    feed({In::ranks, 0, small(static_cast<unsigned>(world_.ranks[0]) + 4 * static_cast<unsigned>(world_.ranks[1]))});
}

void ControllerModel::feed(const Input& input) {
    carry_out(pool_.feed(world_.generation, input));
    if (world_.generation == 0) return;
    const GenerationPhase phase = pool_.phase(world_.generation);
    expect(phase != GenerationPhase::capturing && phase != GenerationPhase::completing, "the catalogue's answer leads nowhere");
}

void ControllerModel::carry_out(const GenerationPool::Reply& reply) {
    world_.generation = reply.state;
    for (const GenerationPool::Order& order : reply.orders) {
        Say say{};
        switch (order.what) {
            case What::hold_script: say = Say::hold_script; break;
            case What::dump_tasks: say = Say::dump_tasks; break;
            case What::dump_script: say = Say::dump_script; break;
            case What::ask_ranks: tell_ranks(); return;
            case What::capture: capture(); return;
            case What::complete: complete(); return;
            case What::fail: fail(); continue;
            case What::release: (void)send(order.node, Say::release, world_.row); continue;
            case What::stored: (void)send(order.node, Say::stored, world_.row); continue;
            case What::drop: (void)send(order.node, Say::drop, world_.row); continue;
        }
        if (send(order.node, say, world_.row)) continue;
        feed({In::detached, order.node});
        return;
    }
    if (pool_.is_over(world_.generation)) world_.generation = 0;
}

// False: no connection. A broken one that nobody has noticed takes the message and loses it.
bool ControllerModel::send(std::size_t node, Say say, std::uint8_t row) {
    if (world_.links[node] == Link::off) return false;
    if (world_.links[node] == Link::live) world_.nodes[node].down.push({say, row, 0});
    return true;
}

void ControllerModel::capture() {
    if (world_.catalogue_fails) {
        world_.catalogue_fails = false;
        return feed({In::capture_failed});
    }
    expect(world_.rows[world_.row] == Row::preparing, "the catalogue captures a checkpoint that is not being prepared");
    world_.rows[world_.row] = Row::captured;
    world_.images[world_.row] = pool_.images(world_.generation);
    world_.ended[world_.row] = pool_.ended(world_.generation);
    feed({In::captured});
}

void ControllerModel::complete() {
    if (world_.catalogue_fails) {
        world_.catalogue_fails = false;
        return feed({In::complete_failed});
    }
    check_complete();
    world_.rows[world_.row] = Row::complete;
    feed({In::completed});
}

void ControllerModel::fail() {
    Row& row = world_.rows[world_.row];
    expect(row == Row::preparing || row == Row::captured, "a checkpoint is dropped that is complete, or dropped already");
    row = Row::failed;
    world_.given_up[world_.row] = true;
}

void ControllerModel::check_complete() {
    const std::uint8_t row = world_.row;
    const Cut& cut = world_.cuts[row];
    const std::uint8_t script = scenario_.script ? 1 : 0;
    expect(world_.rows[row] == Row::captured, "a checkpoint is completed that is not captured");
    expect(!world_.given_up[row], "a checkpoint is completed that was dropped");
    expect((world_.images[row] & ~world_.in_store[row]) == 0, "a checkpoint is completed, and an image of it is not in the store");
    expect(cut.made, "a checkpoint is completed, and its trees were never frozen together");
    const std::uint8_t ranks = cut.step_live ? kAllRanks : 0;
    expect((cut.frozen | cut.ended) == ranks, "a checkpoint is completed, and a rank ran on while the others were dumped");
    expect(world_.images[row] == (cut.frozen | script),
           "a checkpoint is completed, and its images are not those of the trees that were frozen together");
    expect(world_.ended[row] == cut.ended, "a checkpoint is completed, and its ended ranks are not those that had ended");
}

}  // namespace sckpt::test
