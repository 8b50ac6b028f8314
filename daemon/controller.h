// SPDX-License-Identifier: GPL-3.0-or-later
//
// The heart of sckptctld: which jobs are supervised where, which checkpoint is being made, what a restarted job goes on from.
//
// What must survive is in the catalogue and is written before it is acted upon; what is here in memory is rebuilt from the
// nodes' hello messages and from Slurm. Calls come from gRPC threads and from the watcher's thread; one mutex guards the state,
// and no call to Slurm is made while it is held (slurmctld may take seconds to answer).
//   controller.cpp        start, jobs and checkpoints          controller_nodes.cpp   what nodes report
//   controller_watch.cpp  the watcher: Slurm's view, due work  controller_query.cpp   what commands ask
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/result.h"
#include "daemon/outbox.h"
#include "daemon/restart_policy.h"
#include "daemon/slurm_api.h"
#include "image_store/catalogue.h"
#include "rpc/auth_munge.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

// One checkpoint while it is made; read and written under the controller's mutex only.
struct Generation {
    RowId id = 0, job = 0;
    std::uint32_t job_id = 0;
    std::string node, path;
    rpc::CreateProgress progress;
    std::optional<Error> error;  // it was dropped
    bool finished = false;       // complete or dropped
    std::chrono::steady_clock::time_point dump_deadline;
};

using NodeOutbox = Outbox<rpc::ControllerMessage>;

class Controller {
   public:
    Controller(Config config, Catalogue catalogue);

    // --- commands; the caller is authenticated, what it may do is decided here
    // Follows one checkpoint: each next() waits for news, at most a second, so that the caller can see whether its client is still there.
    class Watch {
       public:
        // The newest progress; nothing when there is no news yet; the error when the checkpoint was dropped.
        Result<std::optional<rpc::CreateProgress>> next();
        bool finished() const { return finished_; }

       private:
        friend class Controller;
        Watch(Controller* controller, std::shared_ptr<Generation> generation)
            : controller_(controller), generation_(std::move(generation)) {}
        Controller* controller_;
        std::shared_ptr<Generation> generation_;
        std::string last_;
        bool finished_ = false;
    };
    // Orders a checkpoint, or joins the one being dumped. Errc::exists: the one before is still on its way into the store; ask again.
    Result<Watch> create(std::uint32_t job_id, const rpc::Caller& caller);
    // Puts a running job back into the queue; it will go on from its latest complete checkpoint.
    Result<> requeue(std::uint32_t job_id, const rpc::Caller& caller);
    Result<rpc::ListReply> list(std::uint32_t job_id, const rpc::Caller& caller);
    Result<rpc::ShowReply> show(std::uint32_t job_id, std::uint32_t checkpoint, const rpc::Caller& caller);
    rpc::StatusReply status();

    // --- nodes
    std::shared_ptr<NodeOutbox> attach(const rpc::NodeHello& hello);
    void handle(const std::string& node, const rpc::NodeMessage& message);
    void detach(const std::string& node, const std::shared_ptr<NodeOutbox>& outbox);

    // --- the watcher: once every poll_seconds
    void tick();

   private:
    struct NodeState {
        std::shared_ptr<NodeOutbox> outbox;  // null: not connected
        rpc::NodeInfo info;
    };
    struct LiveTask {  // the batch script of a running job
        std::string node;
        rpc::Task task;
        std::chrono::steady_clock::time_point due;
    };
    struct ResumeSession {  // one restart of a job: which checkpoints were tried
        std::uint32_t restart_count = 0;
        std::uint32_t number = 0;  // the one ordered last; 0: none, or its restore has failed
        std::uint32_t below = 0;   // those from this number on have failed; 0: none has
        std::uint64_t query = 0;   // that it was ordered for
        int lost = 0;              // queries for it whose outcome nobody told: sckptd was killed meanwhile
        bool reported = false;     // its success
        bool node_fault = false;   // the node could not restore, whatever the image: an older one would fare no better
    };

    // controller.cpp (the mutex is held in all of these, but in recover_generations(), which the constructor calls)
    void recover_generations();
    Result<> may_act(const JobRow& job, const rpc::Caller& caller) const;
    Result<JobRow> ensure_job(const rpc::Task& task, const SlurmJob& slurm);
    static bool is_run_of(const JobRow& row, const SlurmJob& slurm);
    Result<std::shared_ptr<Generation>> begin_generation(const JobRow& job, LiveTask& live);
    void drop_generation(RowId checkpoint, const std::string& reason);
    void finish_generation(const std::shared_ptr<Generation>& generation, std::optional<Error> error);
    void abandon_unfinished(const JobRow& job, const std::string& reason);
    void prune(const JobRow& job);
    void discard_checkpoints(const JobRow& job);
    void send_remove(RowId checkpoint);
    bool send(const std::string& node, rpc::ControllerMessage message);
    void schedule_next(LiveTask& live, const JobRow& job);
    void note(RowId job, const std::string& text);
    std::shared_ptr<Generation> generation_of_job(std::uint32_t job_id) const;

    // controller_nodes.cpp
    void task_started(const std::string& node, const rpc::Task& task);
    void task_ended(const std::string& node, const rpc::Task& task);
    void resume_query(const std::string& node, const rpc::ResumeQuery& query);
    rpc::ResumeOrder choose_resume(const JobRow& job, const rpc::ResumeQuery& query, const std::string& node, bool& hold);
    void dump_done(const std::string& node, const rpc::DumpDone& done);
    void store_progress(const rpc::StoreProgress& progress);
    void store_done(const std::string& node, const rpc::StoreDone& done);
    void restore_done(const std::string& node, const rpc::RestoreDone& done);
    void removed(const rpc::Removed& removed);
    void resumed(RowId job, std::uint32_t number);
    void record_restart(RowId job, const RestartRow& restart);
    bool drain_is_near(const JobRow& job);
    Result<SlurmJob> verify_task(const std::string& node, const rpc::Task& task);

    // controller_watch.cpp
    struct Errands {  // calls to Slurm that tick() makes once the mutex is free
        std::vector<std::uint32_t> start_now, requeue;
        std::vector<JobRow> gone;  // not in Slurm's list: asked for once more before they are forgotten
    };
    void watch_job(const JobRow& job, std::chrono::steady_clock::time_point snapshot, Errands& errands);
    void watch_ended(const JobRow& job, const SlurmJob& slurm, Errands& errands);
    void forgotten(const JobRow& job);
    void check_generations();
    void start_due_checkpoints();
    void run_errands(const Errands& errands);
    void hold(std::uint32_t job_id, const std::string& reason);

    // controller_query.cpp
    rpc::Job describe(const JobRow& job, bool whole, std::uint32_t only_checkpoint) const;
    rpc::Checkpoint describe(const CheckpointRow& row, bool whole) const;

    const Config config_;
    const std::int64_t started_;
    std::set<uid_t> operators_;  // uid 0, this process's own (SlurmUser) and controller.operators

    std::mutex mutex_;
    std::condition_variable changed_;  // a generation made progress
    Catalogue catalogue_;
    std::map<std::string, NodeState> nodes_;
    std::map<std::uint32_t, LiveTask> live_;                                  // by job id
    std::map<RowId, std::shared_ptr<Generation>> generations_;                // by checkpoint, until finished
    std::map<std::uint32_t, ResumeSession> resumes_;                          // by job id
    std::map<std::uint32_t, std::uint32_t> counted_;                          // job id → restart count whose failed end was counted
    std::map<std::uint32_t, std::uint32_t> started_now_;                      // job id → restart count whose begin time was moved
    std::map<std::uint32_t, SlurmJob> slurm_jobs_;                            // as of the last tick
    std::map<std::uint32_t, std::chrono::steady_clock::time_point> touched_;  // job id → its last report: newer than an older list
    std::vector<std::pair<std::string, rpc::Task>> unverified_;               // Slurm did not answer yet
    std::map<RowId, std::chrono::steady_clock::time_point> waiting_;          // captured checkpoints that a restart waits for, since when
    std::set<RowId> removing_;                                                // orders under way
    bool slurm_reachable_ = false;
};

std::int64_t unix_now();

}  // namespace sckpt
