// SPDX-License-Identifier: GPL-3.0-or-later
//
// The heart of sckptd: the supervised tasks of this node, dumps and restores through the backend, the fast tier, the drain.
//
// Threads: one for each supervisor's connection (it also carries out that task's restore), one for each dump with its drain, and
// the link's. One mutex guards the tables; neither the backend nor the store is called while it is held.
//   node_agent.cpp   tasks, dumps, drains, removals          node_restore.cpp   how a restarted task comes back
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <tuple>

#include "backend/backend.h"
#include "common/config.h"
#include "daemon/connection_limits.h"
#include "daemon/controller_link.h"
#include "image_store/store.h"
#include "rpc/local.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

// One supervised task: a connection of sckpt-run.
struct SupervisedTask {
    local::Message hello;
    UniqueFd socket;
    UniqueFd stdio[3], status;  // kept until the payload runs
    uid_t uid = 0;              // the kernel's word
    pid_t supervisor = 0;
    pid_t root = 0;  // the payload's; 0: not running yet
    rpc::Task describe() const;
};

// A connection that was let in: who it is, by the kernel's word.
struct Supervisor {
    UniqueFd connection;
    uid_t uid;
    pid_t pid;
    ConnectionLimits::Place place;
};

class NodeAgent {
   public:
    NodeAgent(Config config, std::unique_ptr<Backend> backend);

    // Probes the backend, makes the fast tier, takes up what an earlier sckptd left there, connects to sckptctld.
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
    struct HeldImage {  // in the fast tier, captured
        std::uint64_t checkpoint_id = 0;
        std::uint32_t job_id = 0;
        std::string path;                       // where it goes in the store
        std::optional<rpc::StoreDone> outcome;  // of the drain; said again at each connection until sckptctld has the image dropped
    };

    rpc::NodeInfo info() const;
    Result<rpc::NodeHello> hello();
    void reconnected();
    void received(const rpc::ControllerMessage& message);

    // tasks
    static TaskKey key_of(const SupervisedTask& task);
    Result<std::shared_ptr<SupervisedTask>> greet(Supervisor& supervisor);
    Result<> wait_started(const std::shared_ptr<SupervisedTask>& task, ConnectionLimits::Place& place);
    Result<> accept_started(const std::shared_ptr<SupervisedTask>& task, const local::Message& message);
    void forget(const std::shared_ptr<SupervisedTask>& task);
    Result<> tell(const SupervisedTask& task, local::Kind kind, const std::string& text = {});

    // dumps and drains
    void dump(const rpc::DumpOrder& order);
    Result<DumpReport> dump_task(const rpc::DumpOrder& order, const std::string& directory);
    void drain(const HeldImage& image);
    void drop(std::uint64_t checkpoint_id);
    void remove(const rpc::RemoveOrder& order);
    void recover();
    void remove_leftover(const std::string& directory);
    Result<> wait_for_leftovers();
    std::string image_directory(std::uint64_t checkpoint_id) const;
    std::string keep_log(const std::string& directory, const char* name, const std::string& as) const;

    // restarts (node_restore.cpp)
    Result<> resume(const std::shared_ptr<SupervisedTask>& task);
    Result<> answer(const std::shared_ptr<SupervisedTask>& task);
    Result<rpc::ResumeOrder> ask(const rpc::Task& task, std::uint64_t& query);
    bool restore(const SupervisedTask& task, const rpc::ResumeOrder& order);

    const Config config_;
    const std::unique_ptr<Backend> backend_;
    BackendProbe probe_;
    ControllerLink link_;
    ConnectionLimits limits_;

    mutable std::mutex mutex_;
    std::condition_variable answered_;
    std::map<TaskKey, std::shared_ptr<SupervisedTask>> tasks_;
    std::map<std::uint64_t, HeldImage> held_;         // by checkpoint id
    std::map<std::uint64_t, PendingResume> resumes_;  // by query
    std::uint64_t next_query_ = 1;
    int leftovers_ = 0;  // drivers of an earlier sckptd that are still at work
    std::condition_variable leftover_ended_;
};

}  // namespace sckpt
