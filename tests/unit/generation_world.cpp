// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/unit/generation_world.h"

#include <algorithm>
#include <cstdlib>
#include <format>
#include <utility>

namespace sckpt::test {

void Queue::push(Message message) {
    if (size == kQueue) std::abort();  // the explorer's own limit
    messages[size++] = message;
}

Message Queue::pop() {
    const Message first = messages[0];
    std::shift_left(messages.begin(), messages.end(), 1);
    messages[--size] = {};
    return first;
}

void Queue::keep(std::size_t count) {
    while (size > count) messages[--size] = {};
}

World first_world(const Scenario& scenario) {
    World world;
    world.trees[0] = Tree::running;
    if (!scenario.step) return world;
    for (std::size_t node = 0; node < kNodes; ++node) {
        world.trees[node + 1] = Tree::running;
        if (scenario.ranks_told) world.ranks[node] = Rank::running;
        else world.nodes[node].up.push({Say::rank, 0, static_cast<std::uint8_t>(Rank::running)});
    }
    return world;
}

namespace {

// Everything that may happen next, each in a copy of the world.
class Future {
   public:
    Future(const World& world, const Scenario& scenario, GenerationPool& pool) : now_(world), scenario_(scenario), pool_(pool) {}

    std::vector<Successor> all() {
        for (std::size_t node = 0; node < kNodes; ++node) network(node);
        for (std::size_t node = 0; node < kNodes; ++node) work(node);
        controller();
        const bool is_idle = std::ranges::none_of(list_, [](const Successor& successor) { return successor.kind == Kind::ordinary; });
        if (is_idle || !scenario_.time_waits) time();
        if (now_.faults < scenario_.faults) faults();
        return std::move(list_);
    }

   private:
    Successor& add(Kind kind, const char* what, std::size_t who, Say message = {}) {
        list_.push_back({what, static_cast<std::uint8_t>(who), message, kind, now_, nullptr});
        World& world = list_.back().world;
        if (kind == Kind::fault) {
            ++world.faults;
            world.harmed = true;
        }
        return list_.back();
    }
    template <class Act>
    void by_node(Kind kind, const char* what, std::size_t who, Act act, Say message = {}) {
        Successor& next = add(kind, what, who, message);
        NodeModel node(next.world, who, scenario_);
        act(node, next.world);
        next.wrong = node.wrong();
    }
    template <class Act>
    void by_controller(Kind kind, const char* what, std::size_t who, Act act, Say message = {}) {
        Successor& next = add(kind, what, who, message);
        ControllerModel controller(next.world, scenario_, pool_);
        act(controller, next.world);
        next.wrong = controller.wrong();
    }

    void network(std::size_t n) {
        const Node& node = now_.nodes[n];
        if (now_.controller && node.up.size != 0)
            by_controller(
                Kind::ordinary, "sckptctld hears", n,
                [n](ControllerModel& controller, World& world) { controller.deliver(n, world.nodes[n].up.pop()); },
                node.up.messages[0].say);
        if (now_.controller && node.old_up.size != 0)
            by_controller(
                Kind::ordinary, "sckptctld hears from before", n,
                [n](ControllerModel& controller, World& world) { controller.deliver(n, world.nodes[n].old_up.pop()); },
                node.old_up.messages[0].say);
        if (now_.controller && now_.links[n] == Link::dead && node.old_up.size == 0)
            by_controller(Kind::ordinary, "sckptctld notices a break", n,
                          [n](ControllerModel& controller, World&) { controller.notices_break(n); });
        if (!node.sckptd) return;
        if (node.down.size != 0)
            by_node(
                Kind::ordinary, "hears", n, [n](NodeModel& model, World& world) { model.deliver(world.nodes[n].down.pop()); },
                node.down.messages[0].say);
        if (node.link == Link::dead && node.down.size == 0)
            by_node(Kind::ordinary, "notices a break", n, [n](NodeModel&, World& world) { world.nodes[n].link = Link::off; });
        if (node.link == Link::off && now_.controller && scenario_.all_return)
            by_node(Kind::ordinary, "connects", n, [](NodeModel& model, World&) { model.connect(); });
    }

    void work(std::size_t n) {
        const Node& node = now_.nodes[n];
        if (node.lost) {
            by_node(Kind::ordinary, "boots again", n, [n](NodeModel&, World& world) {
                world.nodes[n].lost = false;
                world.nodes[n].sckptd = true;
            });
            return;
        }
        if (!node.sckptd) {
            by_node(Kind::ordinary, "sckptd starts again", n, [n](NodeModel&, World& world) { world.nodes[n].sckptd = true; });
            return;
        }
        for (std::uint8_t row = 0; row < kRows; ++row) {
            const Part& part = node.parts[row];
            if (part.tasks == Tasks::dumping)
                by_node(Kind::ordinary, "freezes its tasks", n, [row](NodeModel& model, World&) { model.freeze_tasks(row); });
            if (part.script == Script::dumping)
                by_node(Kind::ordinary, "dumps the script", n, [row](NodeModel& model, World&) { model.dump_script(row); });
            if (part.released && !part.stored)
                by_node(Kind::ordinary, "has stored its part", n, [row](NodeModel& model, World&) { model.drain(row); });
        }
        if (n < scenario_.may_end && now_.trees[n + 1] == Tree::running)
            by_node(Kind::environment, "its rank ends", n, [](NodeModel& model, World&) { model.rank_ends(); });
    }

    void controller() {
        if (!now_.controller) {
            if (scenario_.all_return)
                by_controller(Kind::ordinary, "sckptctld starts again", 0,
                              [](ControllerModel& controller, World&) { controller.restart(); });
            return;
        }
        World copy = now_;
        if (ControllerModel(copy, scenario_, pool_).may_create())
            by_controller(Kind::ordinary, "a checkpoint is begun", 0, [](ControllerModel& controller, World&) { controller.create(); });
        if (now_.job_over && now_.generation != 0)
            by_controller(Kind::ordinary, "Slurm tells that the job is over", 0,
                          [](ControllerModel& controller, World&) { controller.cancel(); });
    }

    void time() {
        if (now_.generation != 0 && pool_.has_limit(now_.generation))
            by_controller(Kind::time, "the phase has lasted too long", 0,
                          [](ControllerModel& controller, World&) { controller.deadline(); });
        for (std::size_t n = 0; n < kNodes; ++n)
            for (std::uint8_t row = 0; row < kRows; ++row) {
                World copy = now_;
                if (!now_.nodes[n].sckptd || !NodeModel(copy, n, scenario_).may_time_out(row)) continue;
                by_node(Kind::time, "lets go, having heard nothing", n, [row](NodeModel& model, World&) { model.times_out(row); });
            }
    }

    void faults() {
        for (std::size_t n = 0; n < kNodes; ++n) {
            if (now_.nodes[n].lost) continue;
            if (now_.nodes[n].sckptd) node_faults(n);
            if (!now_.job_over) lose_node(n);
            repeat(n);
        }
        if (now_.controller) controller_faults();
    }

    void node_faults(std::size_t n) {
        const Node& node = now_.nodes[n];
        const std::size_t up = now_.links[n] == Link::live ? node.up.size : 0u;
        for (std::size_t keep_up = 0; keep_up <= up; ++keep_up) {
            for (std::size_t keep_down = 0; node.link == Link::live && keep_down <= node.down.size; ++keep_down)
                by_node(Kind::fault, "its connection breaks", n, [=, this](NodeModel& model, World& world) {
                    model.break_link(keep_up, keep_down);
                    world.harmed = now_.harmed || is_preparing();
                });
            by_node(Kind::fault, "its sckptd is killed", n, [=, this](NodeModel& model, World& world) {
                world.harmed = now_.harmed || is_preparing() || std::ranges::any_of(world.nodes[n].parts, [](const Part& part) {
                                   return part.is_there() && !part.released;
                               });
                if (world.nodes[n].link == Link::live) model.break_link(keep_up, 0);
                model.crash();
                world.nodes[n].link = Link::off;
                world.nodes[n].down.clear();
            });
        }
        for (std::uint8_t row = 0; row < kRows; ++row) {
            const Part& part = node.parts[row];
            if (part.tasks == Tasks::dumping || part.script == Script::dumping)
                by_node(Kind::fault, "a dump fails", n, [row](NodeModel& model, World&) { model.lose_part(row); });
            if (part.released && !part.stored)
                by_node(Kind::fault, "its part cannot be stored", n, [row](NodeModel& model, World&) { model.lose_part(row); });
        }
    }

    void lose_node(std::size_t n) {
        by_node(Kind::fault, "is lost", n, [n](NodeModel& model, World& world) {
            Node& node = world.nodes[n];
            if (node.link == Link::live) model.break_link(node.up.size, 0);
            const auto acted = node.acted;
            const Queue old_up = node.old_up;
            node = {};
            node.acted = acted;
            node.old_up = old_up;
            node.sckptd = false;
            node.lost = true;
            node.link = Link::off;
            for (std::size_t tree = 0; tree < kTrees; ++tree)
                if ((tree == 2) == (n == 1) && (world.trees[tree] == Tree::running || world.trees[tree] == Tree::frozen))
                    world.trees[tree] = Tree::gone;
            world.job_over = true;
        });
    }

    // A checkpoint that is begun and not captured yet, or not even begun, may fail by anything. One that is captured does not fail by a
    // broken connection, nor by a restart of sckptctld.
    bool is_preparing() const {
        return now_.created < scenario_.checkpoints || std::ranges::find(now_.rows, Row::preparing) != now_.rows.end();
    }

    // What is said again after a new connection: an order to dump is not.
    void repeat(std::size_t n) {
        const Node& node = now_.nodes[n];
        if (node.up.size != 0 && node.up.size < kQueue && node.up.messages[0].say != Say::hello)
            by_node(
                Kind::fault, "a message from it comes twice", n,
                [n, this](NodeModel&, World& world) {
                    world.nodes[n].up.push(world.nodes[n].up.messages[0]);
                    world.harmed = now_.harmed;
                },
                node.up.messages[0].say);
        const Say say = node.down.messages[0].say;
        if (node.down.size != 0 && node.down.size < kQueue && say != Say::hold_script && say != Say::dump_tasks)
            by_node(
                Kind::fault, "a message to it comes twice", n,
                [n, this](NodeModel&, World& world) {
                    world.nodes[n].down.push(world.nodes[n].down.messages[0]);
                    world.harmed = now_.harmed;
                },
                say);
    }

    void controller_faults() {
        for (std::size_t keep = 0; keep <= now_.nodes[0].down.size; ++keep)
            for (std::size_t keep_too = 0; keep_too <= now_.nodes[1].down.size; ++keep_too) {
                World& world = add(Kind::fault, "sckptctld is killed", 0).world;
                for (std::size_t n = 0; n < kNodes; ++n) {
                    if (world.nodes[n].link == Link::live) NodeModel(world, n, scenario_).break_link(0, n == 0 ? keep : keep_too);
                    world.nodes[n].old_up.clear();
                    world.links[n] = Link::off;
                    world.ranks[n] = Rank::unknown;
                }
                world.harmed = now_.harmed || is_preparing();
                world.controller = false;
                world.generation = 0;
                world.row = 0;
            }
        if (now_.generation == 0) return;
        if (!now_.catalogue_fails) add(Kind::fault, "the catalogue cannot be written", 0).world.catalogue_fails = true;
        if (now_.job_over) return;
        by_controller(Kind::fault, "the job is requeued", 0, [](ControllerModel& controller, World& world) {
            world.job_over = true;
            controller.cancel();
        });
    }

    const World& now_;
    const Scenario& scenario_;
    GenerationPool& pool_;
    std::vector<Successor> list_;
};

}  // namespace

std::vector<Successor> successors(const World& world, const Scenario& scenario, GenerationPool& pool) {
    return Future(world, scenario, pool).all();
}

const char* end_is_wrong(const World& world, const Scenario& scenario) {
    if (std::ranges::find(world.trees, Tree::frozen) != world.trees.end()) return "a tree stays frozen for ever";
    for (const Node& node : world.nodes)
        for (const Part& part : node.parts)
            if (part.script == Script::held) return "a script is held for ever";
    if (world.generation != 0) return "a checkpoint is neither completed nor dropped";
    if (!scenario.all_return) return nullptr;  // the rest waits for them
    if (!world.job_over && world.created < scenario.checkpoints && scenario.script) return "no checkpoint can be begun any more";
    for (std::uint8_t row = 0; row < world.created; ++row) {
        if (world.rows[row] != Row::complete && world.rows[row] != Row::failed) return "a row is left that is neither complete nor failed";
        if (scenario.time_waits && !world.harmed && world.rows[row] != Row::complete)
            return "a checkpoint is dropped though nothing has failed that costs one";
        for (const Node& node : world.nodes) {
            if (!node.parts[row].is_there()) continue;
            if (world.rows[row] == Row::failed) return "a part of a dropped checkpoint stays on its node";
            if (!node.parts[row].released) return "a part of a complete checkpoint waits for ever for a word";
        }
    }
    return nullptr;
}

std::string describe(const Successor& successor) {
    static const char* const kSaid[] = {"",
                                        "hello",
                                        "rank",
                                        "steps found",
                                        "script dumped",
                                        "tasks dumped",
                                        "failed",
                                        "part stored",
                                        "hold the script",
                                        "dump the tasks",
                                        "dump the script",
                                        "release",
                                        "drop",
                                        "stored"};
    const char* said = kSaid[static_cast<std::size_t>(successor.message)];
    return std::format("n{}: {}{}{}{}", successor.who, successor.what, *said != 0 ? " \"" : "", said, *said != 0 ? "\"" : "");
}

}  // namespace sckpt::test
