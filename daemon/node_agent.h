// SPDX-License-Identifier: GPL-3.0-or-later
//
// The heart of sckptd: the supervised tasks of this node, dumps and restores through the backend, the fast tier, the drains, and the work
// on the store that sckptctld orders.
//
// Threads: one for each supervisor's connection (it also carries out that task's restore), one for each order to dump and each task that is
// dumped for it, one for each drain and order of the store, and the link's. One mutex guards the tables; neither the backend nor the store nor the
// fast tier is called while it is held.
//   node_agent.cpp     start, what is told to sckptctld and what comes from there
//   node_tasks.cpp     supervisors and their tasks           node_restore.cpp   how a restarted task comes back
//   node_dump.cpp      dumps: orders, the batch script       node_dump_tasks.cpp   tasks of steps, which stay frozen together
//   node_held.cpp      what becomes of what was dumped       node_recover.cpp   what an earlier sckptd left
//   node_store.cpp     orders about the store
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <semaphore>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "backend/backend.h"
#include "common/config.h"
#include "daemon/connection_limits.h"
#include "daemon/controller_link.h"
#include "daemon/drain_queue.h"
#include "daemon/task_ends.h"
#include "daemon/fast_tier.h"
#include "daemon/held_part.h"
#include "daemon/node_part.h"
#include "daemon/store_client.h"
#include "daemon/store_work.h"
#include "daemon/supervised_task.h"
#include "rpc/local.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

// What the backend writes into an image directory for people to read: not of the image.
inline const std::set<std::string> kNotOfTheImage = {"dump.log", "criu.out", "stats-dump"};

class NodeAgent {
   public:
    NodeAgent(Config config, std::unique_ptr<Backend> backend);

    // Mounts the fast tier, probes the backend, takes up what an earlier sckptd left, connects to sckptctld.
    Result<> start();
    std::optional<Supervisor> admit(UniqueFd connection);  // nothing: its user holds too many
    void serve(Supervisor supervisor);                     // a supervisor's connection, until it ends; in a thread of its own
    void send_info();

   private:
    // The uid is part of it: what one user claims never takes the place of another's task.
    using TaskKey = std::tuple<uid_t, std::uint32_t, std::uint32_t, std::uint32_t>;  // uid, job, step, task
    struct PendingResume {
        rpc::Task task;
        std::optional<rpc::ResumeOrder> order;
    };

    rpc::NodeInfo info() const;
    Result<rpc::NodeHello> hello();
    void reconnected();
    void received(const rpc::ControllerMessage& message);
    DrainQueue::Hooks drain_hooks();
    void watch_store();

    // tasks (node_tasks.cpp)
    using TaskPtr = std::shared_ptr<SupervisedTask>;
    static TaskKey key_of(const SupervisedTask& task);
    Result<TaskPtr> greet(Supervisor& supervisor);
    Result<> wait_started(const TaskPtr& task, ConnectionLimits::Place& place);
    Result<> accept_started(const TaskPtr& task, const local::Message& message);
    Result<> listen(const TaskPtr& task);
    Result<> answer(const TaskPtr& task);
    void forget(const TaskPtr& task);
    static Result<> tell(const SupervisedTask& task, local::Kind kind, const std::string& text = {});
    static Result<> send(const SupervisedTask& task, const local::Message& message, const UniqueFd* descriptor = nullptr);
    void watch_ended();
    // Tasks whose sckpt-run was told to hold; it may go on when this is destroyed.
    class Hold {
       public:
        Hold(NodeAgent* agent, std::vector<TaskPtr> tasks) : agent_(agent), tasks_(std::move(tasks)) {}
        Hold(Hold&& other) noexcept : agent_(other.agent_), tasks_(std::exchange(other.tasks_, {})) {}
        Hold& operator=(Hold&&) = delete;
        ~Hold() { end(); }
        void end();

       private:
        NodeAgent* agent_;
        std::vector<TaskPtr> tasks_;
    };
    static Result<> check_not_suspended(const std::vector<TaskPtr>& tasks);
    Result<Hold> hold(std::vector<TaskPtr> tasks);
    Result<> ask_states(const std::vector<TaskPtr>& tasks);
    std::string state_of(const SupervisedTask& task) const;
    std::optional<int> ended_by_now(const SupervisedTask& task);

    // dumps (node_dump.cpp)
    using PartPtr = std::shared_ptr<NodePart>;
    void begin_dump(const rpc::DumpOrder& order);
    void work_on(const PartPtr& part, const rpc::DumpOrder& order);
    void lost(NodePart& part, const rpc::DumpOrder& order, const Error& why);
    void connection_lost();
    void finish(const PartPtr& part, const rpc::DumpOrder& order);
    PartPtr part(std::uint64_t checkpoint_id) const;
    void release(const rpc::ReleaseOrder& order);
    Result<> await(NodePart& part, NodePart::Until until, std::chrono::steady_clock::time_point deadline);
    Result<TaskPtr> find_task(const rpc::DumpOrder& order, const rpc::ImageOrder& ordered) const;  // none: it does not run here
    std::vector<pid_t> siblings_of(const SupervisedTask& task) const;
    Result<> dump_script(NodePart& part, const rpc::DumpOrder& order);
    Result<DumpReport> dump_script_tree(NodePart& part, const rpc::DumpOrder& order, const SupervisedTask& task, const std::vector<pid_t>& sruns);
    struct TreeToDump {
        const rpc::DumpOrder& order;
        const SupervisedTask& task;
        std::string directory;
        std::chrono::steady_clock::time_point deadline;
        std::vector<pid_t> helpers;
    };
    using FrozenFn = decltype(DumpRequest::frozen);
    Result<DumpReport> dump_tree(const TreeToDump& tree, const FrozenFn& frozen = {});
    Result<HeldImage> describe(const rpc::DumpOrder& order, const rpc::ImageOrder& ordered, const DumpReport& report) const;
    std::string keep_log(const std::string& directory, const char* name, const std::string& as) const;

    // tasks of steps (node_dump_tasks.cpp)
    class FrozenTrees;
    Result<> dump_tasks(NodePart& part, const rpc::DumpOrder& order);

    // what was dumped (node_held.cpp)
    std::optional<HeldPart> held(std::uint64_t checkpoint_id) const;
    Result<> drain(std::uint64_t checkpoint_id, const StoreCall& call);
    Result<> keep_stored(std::uint64_t checkpoint_id, std::size_t image, const StoredImage& stored);
    Result<StoredImage> drain_image(const HeldPart& part, const HeldImage& image, const StoreCall& call);
    void drained(std::uint64_t checkpoint_id, const Result<>& outcome);
    void send_store_done(const HeldPart& part);
    void send_lost(std::uint64_t checkpoint_id, const std::string& why);
    void acknowledged(std::uint64_t checkpoint_id);
    void make_urgent(std::uint64_t checkpoint_id);
    void drop(std::uint64_t checkpoint_id);
    void discard(std::uint64_t checkpoint_id);
    void evicted(const std::string& name);
    Result<> save(const HeldPart& part) const;

    // what an earlier sckptd left (node_recover.cpp)
    void recover();
    bool take_up(const std::string& name);
    void begin_removal(const std::string& name);
    void remove_leftover(const std::string& name);
    Result<> wait_for_leftovers(FastTier::Clock::time_point deadline);

    // restarts (node_restore.cpp)
    Result<> resume(const TaskPtr& task);
    Result<> end_likewise(const SupervisedTask& task, const rpc::ResumeOrder& order);
    Result<rpc::ResumeOrder> ask(const rpc::Task& task, std::uint64_t& query);
    Result<> restore(const SupervisedTask& task, const rpc::ResumeOrder& order);
    static Result<> refuse_restore(const SupervisedTask& task, const Error& why);
    static Result<> tell_restoring(const SupervisedTask& task, const rpc::ResumeOrder& order, const std::string& image);
    Result<> attempt(const SupervisedTask& task, const rpc::ResumeOrder& order, const std::string& name);
    struct Brought {
        std::optional<FastTier::Reader> source;  // of the fast tier's image whose files are linked; none: they came from the store
        FastTier::Reservation room;              // for the directory; goes first
    };
    Result<Brought> bring(const SupervisedTask& task, const rpc::ResumeOrder& order, const std::string& name);
    Result<Brought> bring_in_time(const SupervisedTask& task, const rpc::ResumeOrder& order, const std::string& name);
    Result<bool> link_verified(const std::string& source, const StoreClient::Fetch& fetch, const StoreCall& call) const;

    // the store (node_store.cpp)
    void begin_store_order(const rpc::StoreOrder& order);
    void store_order(const rpc::StoreOrder& order, const std::atomic<bool>& stop);
    void stop_store_orders(std::optional<std::uint64_t> order);  // none: all of them
    StoreAnswer answer_to(std::uint64_t order);
    Result<> backup_catalogue(const rpc::StoreOrder& order, const StoreCall& call);

    const Config config_;
    const std::unique_ptr<Backend> backend_;
    const StoreClient store_;
    BackendProbe probe_;
    ControllerLink link_;
    ConnectionLimits limits_;
    TaskEnds ended_;
    std::counting_semaphore<> dump_slots_;  // of node.dump_streams
    std::vector<std::string> notes_;  // of the fast tier

    mutable std::mutex mutex_;
    std::condition_variable answered_, task_changed_, part_ended_, leftover_ended_;
    std::map<TaskKey, TaskPtr> tasks_;
    std::map<std::uint64_t, PartPtr> parts_;          // checkpoints that are being made, by checkpoint id
    std::map<std::uint64_t, HeldPart> held_;          // by checkpoint id
    std::map<std::uint64_t, PendingResume> resumes_;  // by query
    std::map<std::uint64_t, std::shared_ptr<std::atomic<bool>>> store_orders_;  // at work; set: it is to end
    std::uint64_t next_query_ = 1;
    int leftovers_ = 0;  // drivers of an earlier sckptd that are still at work
    std::string store_note_ = "store: not asked yet";
    StoreId seen_store_;  // at store.directory

    std::unique_ptr<FastTier> tier_;      // from start() on
    std::unique_ptr<DrainQueue> drains_;  // last: its threads use the rest
};

}  // namespace sckpt
