// SPDX-License-Identifier: GPL-3.0-or-later
//
// The heart of sckptd: the supervised tasks of this node, dumps and restores through the backend, the fast tier, the drains, and the work
// on the store that sckptctld orders.
//
// Threads: one for each supervisor's connection (it also carries out that task's restore), one for each dump, drain and order of the store,
// and the link's. One mutex guards the tables; neither the backend nor the store nor the fast tier is called while it is held.
//   node_agent.cpp     start, what is told to sckptctld and what comes from there
//   node_tasks.cpp     supervisors and their tasks           node_dump.cpp      dumps, drains, what becomes of held images
//   node_recover.cpp   what an earlier sckptd left           node_restore.cpp   how a restarted task comes back
//   node_store.cpp     orders about the store
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "backend/backend.h"
#include "common/config.h"
#include "daemon/connection_limits.h"
#include "daemon/controller_link.h"
#include "daemon/drain_queue.h"
#include "daemon/fast_tier.h"
#include "daemon/held_image.h"
#include "daemon/store_client.h"
#include "rpc/local.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

// What the backend writes into an image directory for people to read: not of the image.
inline const std::set<std::string> kNotOfTheImage = {"dump.log", "criu.out", "stats-dump"};


// One supervised task: a connection of sckpt-run.
struct SupervisedTask {
    local::Message hello;
    UniqueFd socket;
    UniqueFd stdio[3], status;  // kept until the payload runs
    uid_t uid = 0;              // the kernel's word
    pid_t supervisor = 0;
    pid_t root = 0;      // the payload's; 0: not running yet
    std::mutex dumping;  // two dumps of one tree would disturb each other
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
    static TaskKey key_of(const SupervisedTask& task);
    Result<std::shared_ptr<SupervisedTask>> greet(Supervisor& supervisor);
    Result<> wait_started(const std::shared_ptr<SupervisedTask>& task, ConnectionLimits::Place& place);
    Result<> accept_started(const std::shared_ptr<SupervisedTask>& task, const local::Message& message);
    Result<> answer(const std::shared_ptr<SupervisedTask>& task);
    void forget(const std::shared_ptr<SupervisedTask>& task);
    Result<> tell(const SupervisedTask& task, local::Kind kind, const std::string& text = {});

    // dumps and drains (node_dump.cpp)
    void begin_dump(const rpc::DumpOrder& order);
    void dump(const rpc::DumpOrder& order);
    Result<HeldImage> capture(const rpc::DumpOrder& order);
    Result<DumpReport> dump_task(const rpc::DumpOrder& order, const SupervisedTask& task, const std::string& directory);
    Result<std::shared_ptr<SupervisedTask>> task_to_dump(const rpc::DumpOrder& order) const;
    Result<HeldImage> describe(const rpc::DumpOrder& order, const DumpReport& report) const;
    void hold(const HeldImage& image);
    std::optional<HeldImage> held(std::uint64_t checkpoint_id) const;
    Result<StoredImage> drain(std::uint64_t checkpoint_id, const StoreCall& call);
    void drained(std::uint64_t checkpoint_id, const Result<StoredImage>& outcome);
    void send_store_done(const HeldImage& image);
    void acknowledged(std::uint64_t checkpoint_id);
    void make_urgent(std::uint64_t checkpoint_id);
    void drop(std::uint64_t checkpoint_id);
    void discard(std::uint64_t checkpoint_id);
    void evicted(const std::string& name);
    Result<> save(const HeldImage& image) const;
    std::string keep_log(const std::string& directory, const char* name, const std::string& as) const;

    // what an earlier sckptd left (node_recover.cpp)
    void recover();
    bool take_up(const std::string& name);
    void begin_removal(const std::string& name);
    void remove_leftover(const std::string& name);
    Result<> wait_for_leftovers(FastTier::Clock::time_point deadline);

    // restarts (node_restore.cpp)
    Result<> resume(const std::shared_ptr<SupervisedTask>& task);
    Result<rpc::ResumeOrder> ask(const rpc::Task& task, std::uint64_t& query);
    bool restore(const SupervisedTask& task, const rpc::ResumeOrder& order);
    Result<> attempt(const SupervisedTask& task, const rpc::ResumeOrder& order, const std::string& name);
    struct Brought {
        std::optional<FastTier::Reader> source;  // of the fast tier's image whose files are linked; none: they came from the store
        FastTier::Reservation room;              // for the directory; goes first
    };
    Result<Brought> bring(const SupervisedTask& task, const rpc::ResumeOrder& order, const std::string& name);
    Result<Brought> bring_in_time(const SupervisedTask& task, const rpc::ResumeOrder& order, const std::string& name);
    Result<bool> link_verified(const std::string& source, const StoreClient::Fetch& fetch, const StoreCall& call) const;

    // the store (node_store.cpp)
    void store_order(const rpc::StoreOrder& order);
    class StoreAnswer;
    Result<> carry_out(const rpc::StoreOrder& order, StoreAnswer& answer);
    Result<> scan_store(const rpc::Scan& order, StoreAnswer& answer, const StoreCall& call);
    Result<> check_store(const rpc::Check& order, StoreAnswer& answer, const StoreCall& call);
    Result<> compact_store(const rpc::Compact& order, StoreAnswer& answer, const StoreCall& call);
    Result<> backup_catalogue(const rpc::StoreOrder& order, const StoreCall& call);

    const Config config_;
    const std::unique_ptr<Backend> backend_;
    const StoreClient store_;
    BackendProbe probe_;
    ControllerLink link_;
    ConnectionLimits limits_;
    std::vector<std::string> notes_;  // of the fast tier

    mutable std::mutex mutex_;
    std::condition_variable answered_, dump_ended_, leftover_ended_;
    std::map<TaskKey, std::shared_ptr<SupervisedTask>> tasks_;
    std::map<std::uint64_t, HeldImage> held_;         // by checkpoint id
    std::set<std::uint64_t> dumps_;                   // ordered and not ended, by checkpoint id
    std::set<std::uint64_t> unwanted_;                // of these, those that were dropped meanwhile
    std::map<std::uint64_t, PendingResume> resumes_;  // by query
    std::uint64_t next_query_ = 1;
    int leftovers_ = 0;  // drivers of an earlier sckptd that are still at work
    std::string store_note_ = "store: not asked yet";

    std::unique_ptr<FastTier> tier_;      // from start() on
    std::unique_ptr<DrainQueue> drains_;  // last: its threads use the rest
};

}  // namespace sckpt
