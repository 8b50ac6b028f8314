// SPDX-License-Identifier: GPL-3.0-or-later
//
// Tasks of steps in a checkpoint: their trees have to agree with each other, on this node and on all others, so each one stays frozen after its dump
// until sckptctld says that all of the checkpoint is captured. One thread and one criu for each; node.dump_streams of them write at once.
#include <algorithm>
#include <format>
#include <set>
#include <thread>

#include "common/log.h"
#include "common/process.h"
#include "daemon/dump_size.h"
#include "daemon/messages.h"
#include "daemon/node_agent.h"
#include "daemon/quiet.h"
#include "daemon/run_state.h"

namespace sckpt {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr milliseconds kFlushLimit{2000};
constexpr milliseconds kLook{200};  // at those that hold trees frozen

}  // namespace

// The trees of one order. What has begun to be dumped is let go at the latest when this is destroyed.
class NodeAgent::FrozenTrees {
   public:
    FrozenTrees(NodeAgent* agent, NodePart& part, const rpc::DumpOrder& order) : agent_(agent), part_(part), order_(order) {}
    FrozenTrees(const FrozenTrees&) = delete;
    FrozenTrees& operator=(const FrozenTrees&) = delete;
    ~FrozenTrees() {
        if (!finished_) agent_->lost(part_, order_, {Errc::internal, "the dump was broken off"});  // by this the threads end
    }

    Result<> find();
    Result<std::uint64_t> expected_bytes();
    std::vector<TaskPtr> running() const;
    void start(steady_clock::time_point deadline);
    Result<> wait_frozen();
    Carriers carriers() const;
    rpc::NodeMessage report(const std::string& note) const;
    Result<> finish();  // of what was released: the images become the part's

   private:
    struct Tree {
        const rpc::ImageOrder* ordered = nullptr;
        TaskPtr task;              // none: it had ended before
        std::optional<int> ended;  // its wait status: there is no image
        bool frozen = false;
        std::vector<UserFile> files;  // once frozen
        std::uint64_t bytes = 0;
        std::optional<Result<DumpReport>> dumped;  // at the end
        bool settled() const { return frozen || ended || dumped; }
    };
    void run(Tree& tree);
    Result<DumpReport> dump(Tree& tree);

    NodeAgent* agent_;
    NodePart& part_;
    const rpc::DumpOrder& order_;
    steady_clock::time_point deadline_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    bool finished_ = false;
    std::vector<Tree> trees_;                         // their number is fixed once they are found; the rest is under the mutex
    std::vector<std::unique_lock<std::mutex>> locks_;  // two dumps of one tree would disturb each other
    std::vector<std::jthread> threads_;               // last: they use the rest
};

Result<> NodeAgent::FrozenTrees::find() {
    std::set<std::string> names;
    std::set<SupervisedTask*> tasks;  // in an order that all such dumps lock them in
    for (const rpc::ImageOrder& ordered : order_.images()) {
        if (!names.insert(ordered.task()).second) return fail(Errc::invalid, "an order that names a task twice");
        Tree& tree = trees_.emplace_back();
        tree.ordered = &ordered;
        SCKPT_ASSIGN(tree.task, agent_->find_task(order_, ordered));
        if (tree.task) tasks.insert(tree.task.get());
        else tree.ended = agent_->ended_.find(order_.uid(), order_.job_id(), order_.restart_count(), ordered.step_key(), ordered.task_id());
        if (!tree.task && !tree.ended)
            return fail(Errc::not_found, std::format("task {} does not run under sckpt on this node, and how it ended is not known", ordered.task()));
    }
    for (SupervisedTask* task : tasks) locks_.emplace_back(task->dumping);
    return {};
}

// A task that ends meanwhile needs no room.
Result<std::uint64_t> NodeAgent::FrozenTrees::expected_bytes() {
    std::uint64_t sum = 0;
    for (Tree& tree : trees_) {
        if (!tree.task) continue;
        const auto expected = expected_dump_bytes(tree.task->root, tree.ordered->last_bytes());
        if (!expected) tree.ended = agent_->ended_by_now(*tree.task);
        if (!expected && !tree.ended) return expected;
        sum += expected.value_or(0);
    }
    return sum;
}

std::vector<NodeAgent::TaskPtr> NodeAgent::FrozenTrees::running() const {
    std::vector<TaskPtr> tasks;
    for (const Tree& tree : trees_)
        if (!tree.ended) tasks.push_back(tree.task);
    return tasks;
}

void NodeAgent::FrozenTrees::start(steady_clock::time_point deadline) {
    deadline_ = deadline;
    for (Tree& tree : trees_)
        if (!tree.ended) threads_.emplace_back([this, &tree] { run(tree); });
}

void NodeAgent::FrozenTrees::run(Tree& tree) {
    auto dumped = [&]() -> Result<DumpReport> {
        try {
            return dump(tree);
        } catch (const std::exception& e) {
            return fail(Errc::internal, e.what());
        }
    }();
    std::optional<int> ended;
    if (!dumped && !tree.frozen && part_.wanted()) ended = agent_->ended_by_now(*tree.task);
    if (ended) (void)remove_tree(part_.directory(tree.ordered->task()));
    if (!dumped && tree.frozen) agent_->lost(part_, order_, dumped.error().context("task " + tree.ordered->task()));
    const std::lock_guard lock(mutex_);
    if (ended) tree.ended = ended;
    else tree.dumped = std::move(dumped);
    changed_.notify_all();
}

Result<DumpReport> NodeAgent::FrozenTrees::dump(Tree& tree) {
    SCKPT_TRY(part_.wanted());
    const std::string directory = part_.directory(tree.ordered->task());
    const auto frozen = [&](const std::vector<UserFile>& files, std::uint64_t bytes, const std::function<bool()>& holds) -> Result<> {
        const std::string state = agent_->state_of(*tree.task);
        SCKPT_TRY(write_file_durable(directory + "/" + kRunStateName, state, 0600));
        {
            const std::lock_guard lock(mutex_);
            tree.frozen = true;
            tree.files = files;
            tree.bytes = bytes + state.size();
            changed_.notify_all();
        }
        while (!part_.wait(NodePart::Until::decided, kLook))
            if (!holds()) return fail(Errc::io, "what held its processes frozen was ended; the job runs on");
        return part_.wanted();
    };
    return agent_->dump_tree({order_, *tree.task, directory, deadline_, {}}, frozen);
}

Result<> NodeAgent::FrozenTrees::wait_frozen() {
    const auto failed = [](const Tree& tree) { return tree.dumped && !*tree.dumped; };
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return std::ranges::any_of(trees_, failed) || std::ranges::all_of(trees_, &Tree::settled); });
    const auto bad = std::ranges::find_if(trees_, failed);
    if (bad == trees_.end()) return {};
    return std::unexpected((*bad->dumped).error().context("task " + bad->ordered->task()));
}

// What they have printed is with slurmstepd, or on its way there and from there.
Carriers NodeAgent::FrozenTrees::carriers() const {
    const std::lock_guard lock(mutex_);
    std::set<pid_t> parents;
    Carriers carriers;
    for (const Tree& tree : trees_) {
        if (!tree.frozen) continue;
        carriers.writers.push_back(tree.task->supervisor);
        const auto supervisor = process_identity(tree.task->supervisor);
        const auto parent = supervisor ? process_identity(supervisor->parent) : std::unexpected(supervisor.error());
        if (parent && parent->uid == 0 && parent->command == "slurmstepd") parents.insert(parent->pid);
    }
    carriers.processes.assign(parents.begin(), parents.end());
    carriers.queue = Queue::send;
    return carriers;
}

rpc::NodeMessage NodeAgent::FrozenTrees::report(const std::string& note) const {
    rpc::NodeMessage message;
    rpc::DumpDone& done = *message.mutable_dump_done();
    done.set_checkpoint_id(part_.id());
    done.set_ok(true);
    done.set_error(note);
    const std::lock_guard lock(mutex_);
    for (const Tree& tree : trees_) {
        rpc::DumpedImage& image = *done.add_images();
        image.set_task(tree.ordered->task());
        image.set_ended(tree.ended.has_value());
        image.set_wait_status(tree.ended.value_or(0));
        image.set_bytes(tree.bytes);
        *image.mutable_files() = to_message(tree.files);
    }
    return message;
}

Result<> NodeAgent::FrozenTrees::finish() {
    finished_ = true;
    for (std::jthread& thread : threads_) thread.join();
    for (const Tree& tree : trees_) {
        if (tree.ended) continue;
        if (!*tree.dumped) return std::unexpected((*tree.dumped).error().context("task " + tree.ordered->task()));
        SCKPT_ASSIGN(HeldImage image, agent_->describe(order_, *tree.ordered, **tree.dumped));
        part_.add(std::move(image));
    }
    return {};
}

Result<> NodeAgent::dump_tasks(NodePart& part, const rpc::DumpOrder& order) {
    if (!probe_.usable) return fail(Errc::unsupported, probe_.reason);
    const auto timeout = seconds(config_.node.dump_timeout_seconds);
    const auto deadline = steady_clock::now() + timeout;  // to begin with it
    SCKPT_TRY(wait_for_leftovers(deadline));
    FrozenTrees trees(this, part, order);
    SCKPT_TRY(trees.find());
    SCKPT_ASSIGN(const std::uint64_t expected, trees.expected_bytes());
    SCKPT_TRY(part.make_room(expected, deadline));
    SCKPT_ASSIGN(Hold held, hold(trees.running()));
    const auto frozen_by = steady_clock::now() + timeout;
    trees.start(frozen_by);
    const auto settled = [&]() -> Result<> {
        SCKPT_TRY(trees.wait_frozen());
        const auto wanted = [&] { return part.wanted().has_value(); };
        const bool quiet = wait_until_quiet(trees.carriers(), kFlushLimit, wanted);
        part.reported();
        link_.send(trees.report(quiet ? "" : "slurmstepd had not yet sent on all output of the tasks"));
        return await(part, NodePart::Until::decided, frozen_by + kFrozenGrace);
    }();
    if (!settled) {
        lost(part, order, settled.error());
        return settled;
    }
    held.end();
    return trees.finish();
}

}  // namespace sckpt
