// SPDX-License-Identifier: GPL-3.0-or-later
//
// A small world for the explorer of the protocol (doc/protocol.md): sckptctld, which drives the real class Generation, its catalogue, two
// nodes with their sckptd, process trees and fast tiers, and the network between them. The batch script (tree 0) and rank 0 (tree 1) are on
// node 0, rank 1 (tree 2) is on node 1. A world is a few hundred plain bytes; successors() tells everything that may happen next in it.
//
// What is assumed
// - A connection delivers in order. When it breaks, any tail of what is under way is lost in either direction, the rest may still come, and
// each
//   side learns of it in its own time; a node may have connected anew before sckptctld has noticed, and what is left of the old connection
//   comes after the new one's hello. Between nodes there is no order at all.
// - sckptd's death lets its frozen trees go, and what was not released is dropped by the next sckptd; released and stored parts survive it.
// - The catalogue's writes are atomic and durable.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/unit/generation_pool.h"

namespace sckpt::test {

inline constexpr std::size_t kNodes = 2, kTrees = 3, kRows = 2, kQueue = 8;
inline constexpr std::uint8_t kAllRanks = 0b110;  // as a set of trees

enum class Say : std::uint8_t {
    hello = 1,
    rank,
    steps_found,
    script_dumped,
    tasks_dumped,
    failed,
    part_stored,  // to sckptctld
    hold_script,
    dump_tasks,
    dump_script,
    release,
    drop,
    stored,  // to the node
};
struct Message {
    Say say{};
    std::uint8_t row = 0;
    std::uint8_t about = 0;  // hello: parts held (bit a row) and rank; rank: see Rank; tasks_dumped: 1 when ended; part_stored: trees
};
struct Queue {
    std::uint8_t size = 0;
    std::array<Message, kQueue> messages{};
    void push(Message message);
    Message pop();
    void keep(std::size_t count);  // the rest is lost
    void clear() { *this = {}; }
};

enum class Tree : std::uint8_t { none, running, frozen, ended, gone };
enum class Script : std::uint8_t { none, held, dumping, dumped };
enum class Tasks : std::uint8_t { none, dumping, frozen, ended };
struct Part {  // of a checkpoint, on a node
    Script script{};
    Tasks tasks{};
    bool released = false, stored = false;
    bool is_there() const { return script != Script::none || tasks != Tasks::none; }
};
enum class Link : std::uint8_t { off, live, dead };  // dead: broken, and not noticed yet

struct Node {
    bool sckptd = true, lost = false;
    Link link = Link::live;
    Queue up, old_up, down;  // old_up: of a connection that is broken
    std::array<Part, kRows> parts{};
    std::array<std::uint8_t, kRows> acted{};  // orders that were acted on, a bit each: none is twice
};

enum class Row : std::uint8_t { none, preparing, captured, complete, failed };

// What was true when the script was dumped (of a step alone: when the last rank froze), for the verdict on the checkpoint.
struct Cut {
    bool made = false, step_live = false;
    std::uint8_t frozen = 0, ended = 0;  // sets of trees
};

struct World {
    std::uint16_t generation = 0;  // of the pool; 0: none
    std::uint8_t row = 0;          // of the generation
    std::uint8_t faults = 0;
    std::array<Node, kNodes> nodes{};
    std::array<Tree, kTrees> trees{};
    // sckptctld's memory
    bool controller = true;
    std::array<Link, kNodes> links{Link::live, Link::live};
    std::array<Rank, kNodes> ranks{};
    // the catalogue
    std::array<Row, kRows> rows{};
    std::array<std::uint8_t, kRows> images{}, ended{};  // sets of trees
    bool catalogue_fails = false;                       // its next write for capture or complete
    // beside them
    std::uint8_t created = 0;
    bool job_over = false;
    std::array<Cut, kRows> cuts{};
    std::array<std::uint8_t, kRows> in_store{};  // sets of trees
    std::array<bool, kRows> given_up{};          // sckptctld has said so
    bool harmed = false;                         // by a fault that may cost a checkpoint
};
static_assert(std::has_unique_object_representations_v<World>, "worlds are compared by their bytes");

// Seeded in the node, to see that the rules rest on what it does.
enum class Defect { none, waits_for_ever, keeps_part_of_running_tree };

struct Scenario {
    bool script = true;       // else a checkpoint of the step alone
    bool step = true;         // a step is live
    bool ranks_told = true;   // sckptctld knows them from the start
    std::size_t may_end = 0;  // so many of its ranks, at any moment
    std::size_t checkpoints = 1;
    std::uint8_t faults = 0;  // at most, in one history
    bool time_waits = false;  // deadlines pass only when nothing else can happen; else at any moment
    bool all_return = true;   // sckptctld starts again, and nodes connect again
    Defect defect = Defect::none;
};

enum class Kind { ordinary, environment, time, fault };
struct Successor {
    const char* what = "";
    std::uint8_t who = 0;  // node
    Say message{};         // that was delivered
    Kind kind{};
    World world;
    const char* wrong = nullptr;  // a rule that is broken
};

World first_world(const Scenario& scenario);
std::vector<Successor> successors(const World& world, const Scenario& scenario, GenerationPool& pool);
// What is wrong with a world in which nothing can happen any more but a fault; null: nothing.
const char* end_is_wrong(const World& world, const Scenario& scenario);

std::string describe(const Successor& successor);

// ---- sckptctld (generation_world_controller.cpp)
class ControllerModel {
   public:
    ControllerModel(World& world, const Scenario& scenario, GenerationPool& pool) : world_(world), scenario_(scenario), pool_(pool) {}
    bool may_create() const;
    void create();
    void deliver(std::size_t node, Message message);
    void notices_break(std::size_t node);
    void restart();
    void deadline();
    void cancel();
    const char* wrong() const { return wrong_; }

   private:
    void feed(const GenerationPool::Input& input);
    void carry_out(const GenerationPool::Reply& reply);
    bool send(std::size_t node, Say say, std::uint8_t row);
    void hello(std::size_t node, Message message);
    void lose(const GenerationPool::Input& input);
    void settle(std::size_t node, std::uint8_t row);
    void tell_ranks();
    void capture();
    void complete();
    void fail();
    void check_complete();
    void expect(bool right, const char* rule) {
        if (!right && wrong_ == nullptr) wrong_ = rule;
    }

    World& world_;
    const Scenario& scenario_;
    GenerationPool& pool_;
    const char* wrong_ = nullptr;
};

// ---- a node (generation_world_node.cpp)
class NodeModel {
   public:
    NodeModel(World& world, std::size_t node, const Scenario& scenario)
        : world_(world), node_(world.nodes[node]), index_(node), scenario_(scenario) {}
    void deliver(Message message);
    void connect();
    void freeze_tasks(std::uint8_t row);
    void dump_script(std::uint8_t row);
    void drain(std::uint8_t row);
    void lose_part(std::uint8_t row);
    bool may_time_out(std::uint8_t row) const;
    void times_out(std::uint8_t row);
    void rank_ends();
    void crash();
    void break_link(std::size_t keep_up, std::size_t keep_down);
    const char* wrong() const { return wrong_; }

   private:
    std::size_t rank_tree() const { return index_ + 1; }
    Rank rank() const;
    void send(Say say, std::uint8_t row, std::uint8_t about = 0);
    void act(Say say, std::uint8_t row);
    void remove(std::uint8_t row);
    void make_cut(std::uint8_t row, bool step_live);
    bool step_is_live() const;

    World& world_;
    Node& node_;
    const std::size_t index_;
    const Scenario& scenario_;
    const char* wrong_ = nullptr;
};

}  // namespace sckpt::test
