// SPDX-License-Identifier: GPL-3.0-or-later
//
// The heart of sckptctld: which jobs are supervised where, which checkpoint is being made, what a restarted job goes on from.
//
// What must survive is in the catalogue and is written before it is acted upon; what is here in memory is rebuilt from the
// nodes' hello messages and from Slurm. Calls come from gRPC's threads, the nodes' workers and from the watcher's thread; one mutex guards the state,
// and no call to Slurm is made while it is held (slurmctld may take seconds to answer). Nothing here waits for the store: which checkpoints
// go, and when their files do, is the keeper's business (daemon/store_keeper.h).
//   controller.cpp              start, jobs                       controller_nodes.cpp    nodes and the tasks they report
//   controller_generations.cpp  checkpoints while they are made   controller_orders.cpp   what nodes are told about them
//   controller_resume.cpp       restarts of batch scripts         controller_tasks.cpp    restarts of their steps' tasks
//   controller_steps.cpp        steps started from checkpoints    controller_query.cpp   what commands ask
//   controller_watch.cpp        the watcher: Slurm's view, due work    controller_jobs.cpp    tasks of job arrays
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/config.h"
#include "common/log.h"
#include "common/result.h"
#include "daemon/drain_grants.h"
#include "daemon/drain_sum.h"
#include "daemon/generation.h"
#include "daemon/live_jobs.h"
#include "daemon/restart_policy.h"
#include "daemon/slurm_api.h"
#include "daemon/store_keeper.h"
#include "daemon/store_orders.h"
#include "image_store/catalogue.h"
#include "rpc/auth_munge.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

// One checkpoint while it is made; read and written under the controller's mutex only.
struct CheckpointRun {
    CheckpointRun(RowId row, RowId job_row, std::uint32_t slurm_job, Generation state)
        : id(row), job(job_row), job_id(slurm_job), generation(std::move(state)) {}
    RowId id, job;
    std::uint32_t job_id;
    std::string step;  // the one whose tasks alone it is of, as in CheckpointRow
    bool urgent = false;
    Generation generation;
    // What is timed: the phase and its limit, as they have been since then.
    std::pair<GenerationPhase, std::optional<std::chrono::seconds>> timed{generation.phase(), generation.limit()};
    std::chrono::steady_clock::time_point timed_since = std::chrono::steady_clock::now();
    // Read when the first order is sent: what all of them say, and the images of its base, by task.
    std::optional<rpc::DumpOrder> order;
    RowId base_row = 0;
    std::map<std::string, ImageRow> base;
    DrainSum drains;
    rpc::CreateProgress progress;
    std::optional<Error> error;  // it was dropped
    bool finished = false;       // complete or dropped
};

// True when it worked. A failure of the catalogue, whose disk is full or gone, is told in the log: what is at hand is lost, nothing else.
template <class T>
bool worked(const Result<T>& done, std::string_view doing = "the catalogue") {
    if (!done) log_error("{}: {}", doing, done.error().text);
    return done.has_value();
}

class Controller {
   public:
    // note: what an administrator should know of the catalogue, for status().
    Controller(const Config& config, Catalogue& catalogue, StoreOrders& orders, StoreKeeper& keeper, std::string note);

    // --- commands; the caller is authenticated, what it may do is decided here
    // Follows one checkpoint: each next() waits for news, at most a second, so that the caller can see whether its client is still there.
    class Watch {
       public:
        // The newest progress; nothing when there is no news yet; the error when the checkpoint was dropped.
        Result<std::optional<rpc::CreateProgress>> next();
        bool finished() const { return finished_; }

       private:
        friend class Controller;
        Watch(Controller* controller, std::shared_ptr<CheckpointRun> run) : controller_(controller), run_(std::move(run)) {}
        Controller* controller_;
        std::shared_ptr<CheckpointRun> run_;
        std::string last_;
        bool finished_ = false;
    };
    // Orders a checkpoint of a job, or of the tasks of one of its steps (Slurm's id), or joins the one being dumped; urgent: drained before others.
    // Errc::exists: the one before is still on its way into the store, or is of something else; ask again.
    Result<Watch> create(std::uint32_t job_id, std::optional<std::uint32_t> step_id, bool urgent, const rpc::Caller& caller);
    static Result<> check_not_suspended(std::uint32_t job_id);  // asks Slurm
    // Puts a running job back into the queue; it will go on from its latest complete checkpoint.
    Result<> requeue(std::uint32_t job_id, const rpc::Caller& caller);
    Result<rpc::PinReply> pin(const rpc::PinRequest& request, const rpc::Caller& caller);
    // What a step of the caller's would go on from, if srun starts it now.
    Result<rpc::FindStepReply> find_step(const rpc::FindStepRequest& request, const rpc::Caller& caller);
    Result<rpc::ListReply> list(std::uint32_t job_id, const rpc::Caller& caller);
    Result<rpc::ShowReply> show(std::uint32_t job_id, std::uint32_t checkpoint, const rpc::Caller& caller);
    rpc::StatusReply status();
    Result<rpc::FindJobsReply> find_jobs(const rpc::FindJobsRequest& request, const rpc::Caller& caller);
    // What is under way of the jobs that the caller may see; none named: of all.
    Result<rpc::WatchReply> under_way(const std::set<std::uint32_t>& job_ids, const rpc::Caller& caller);
    // Waits until something has changed since `seen`, at most a second; answers what to give the next time.
    std::uint64_t wait_for_change(std::uint64_t seen);
    Result<> may_administer(const rpc::Caller& caller) const;  // operators only
    std::vector<rpc::Orphan> fast_tier_leftovers();            // that nodes had and were told to drop, the latest last

    // --- nodes
    void attach(const rpc::NodeHello& hello, const std::shared_ptr<NodeOutbox>& outbox);
    void handle(const std::string& node, const rpc::NodeMessage& message);
    static bool asks_slurm(const rpc::NodeMessage& message);  // handle() may wait for slurmctld about it
    void detach(const std::string& node, const std::shared_ptr<NodeOutbox>& outbox);

    // --- the watcher: once every poll_seconds
    void tick();

   private:
    struct NodeState {
        std::shared_ptr<NodeOutbox> outbox;  // null: not connected
        rpc::NodeInfo info;
    };
    struct ResumeSession {  // one restart of a job: which checkpoints were tried
        std::uint32_t restart_count = 0;
        std::string node;
        std::uint32_t number = 0;  // the one ordered last; 0: none, or its restore has failed
        std::uint32_t below = 0;   // those from this number on have failed; 0: none has
        std::uint64_t query = 0;   // that it was ordered for
        int lost = 0;              // queries for it whose outcome nobody told: sckptd was killed meanwhile
        bool reported = false;     // its success
        std::uint32_t doubted = 0; // the one whose image the node could not verify
        bool node_fault = false;   // the node could not restore, whatever the image: an older one would fare no better
    };

    // controller.cpp (the mutex is held in all private functions, but in recover_generations(), verify_task() and those that say so)
    void recover_generations();
    Result<> may_act(const JobRow& job, const rpc::Caller& caller) const;
    Result<JobRow> job_for(std::uint32_t job_id, const rpc::Caller& caller) const;
    Result<JobRow> ensure_job(const rpc::Task& task, const SlurmJob& slurm);
    void end_job(const JobRow& job, JobOutcome outcome);
    bool waits_for_rebuild() const;
    bool send(const std::string& node, rpc::ControllerMessage message);
    void schedule_next(LiveJob& live, const JobRow& job);
    void note(RowId job, const std::string& text);
    void announce();  // something that watchers look at has changed

    // controller_generations.cpp
    using Run = std::shared_ptr<CheckpointRun>;
    Result<Run> begin_checkpoint(const JobRow& job, LiveJob& live, bool urgent);
    Result<Run> begin_step_checkpoint(const JobRow& job, const LiveJob& live, std::uint32_t key, bool urgent);
    Result<Run> begin_run(const JobRow& job, Generation generation, const std::string& step, bool urgent);
    Run run_of_job(std::uint32_t job_id) const;
    bool is_suspended(const JobRow& job) const;
    void carry_out(const Run& run, GenerationOrders orders);
    GenerationOrders carry_out_one(const Run& run, const GenerationOrder& order);
    GenerationOrders capture(const Run& run);
    GenerationOrders complete(const Run& run);
    void dropped(const Run& run);
    void finish(const Run& run, std::optional<Error> error);
    void make_urgent(CheckpointRun& run);
    void make_due(std::uint32_t job_id);
    void abandon_unfinished(const JobRow& job, const std::string& reason);
    void rank_changed(const rpc::Task& task);
    void steps_found(const std::string& node, const rpc::StepsFound& found);
    void dump_done(const std::string& node, const rpc::DumpDone& done);  // takes the mutex itself
    void drain_request(const std::string& node, const rpc::DrainRequest& request);
    void drain_progress(const std::string& node, const rpc::DrainProgress& progress);
    void store_done(const std::string& node, const rpc::StoreDone& done);
    bool drain_is_near(const JobRow& job);

    // controller_orders.cpp
    Result<> prepare_order(CheckpointRun& run) const;
    Result<rpc::DumpOrder> dump_order(CheckpointRun& run, const std::vector<std::string>& tasks) const;
    bool send_dump(CheckpointRun& run, const std::string& node, const std::vector<std::string>& tasks);
    void send_script(const std::string& node, RowId checkpoint);
    void send_release(const CheckpointRun& run, const std::string& node);
    void send_grants();
    void send_drop(const std::string& node, RowId checkpoint);
    void send_stored(const std::string& node, RowId checkpoint);
    void send_urgent(const std::string& node, RowId checkpoint);
    void settle(const std::string& node, RowId checkpoint);

    // controller_nodes.cpp
    void settle_nodes();
    void take_stock(const rpc::NodeHello& hello);
    bool keeps_part(const std::string& node, const rpc::HeldImage& part);
    void task_started(const std::string& node, const rpc::Task& task);  // takes the mutex itself
    void script_started(const std::string& node, const rpc::Task& task, const JobRow& job);
    void task_ended(const std::string& node, const rpc::Task& task);
    void connection_lost(const std::string& node);
    Result<SlurmJob> verify_task(const std::string& node, const rpc::Task& task);   // without the mutex, as the next
    Result<SlurmJob> slurm_job_of(const std::string& node, const rpc::Task& task);

    // controller_resume.cpp
    void resume_query(const std::string& node, const rpc::ResumeQuery& query);  // takes the mutex itself
    rpc::ResumeOrder choose_resume(const JobRow& job, const rpc::ResumeQuery& query, const std::string& node, bool& hold);
    Result<rpc::ResumeOrder> restore_order(const JobRow& job, const CheckpointRow& checkpoint, const std::string& task);
    rpc::ResumeOrder give_up(const JobRow& job, RestartRow restart);
    void restore_done(const std::string& node, const rpc::RestoreDone& done);  // takes the mutex itself
    std::optional<std::uint32_t> job_of_restore(const std::string& node, const rpc::RestoreDone& done);
    void restored(const std::string& node, const rpc::RestoreDone& done);
    void restore_failed(const CheckpointRow& checkpoint, const std::string& node, const rpc::RestoreDone& done);
    void resumed(RowId job, std::uint32_t number);
    void record_restart(RowId job, const RestartRow& restart);

    // controller_tasks.cpp
    rpc::ResumeOrder resume_task(const JobRow& job, const rpc::Task& task);
    void task_restored(const std::string& node, const rpc::RestoreDone& done);
    void task_restore_failed(const JobRow& job, const CheckpointRow& checkpoint, const std::string& node, const rpc::RestoreDone& done);

    // controller_steps.cpp
    Result<JobRow> origin_job(std::uint32_t job_id, uid_t uid) const;
    Result<CheckpointRow> origin_checkpoint(const JobRow& job, std::uint32_t step_key, std::uint32_t number) const;
    Result<> check_not_running(const JobRow& job, std::uint32_t step_key) const;
    Result<bool> has_rank(const CheckpointRow& checkpoint, std::uint32_t step_key, std::uint32_t rank) const;
    Result<rpc::FindStepReply> count_ranks(const JobRow& job, std::uint32_t step_key, std::uint32_t number) const;
    Result<> lend(const JobRow& job, std::uint32_t number);
    void end_lease(RowId checkpoint);
    rpc::ResumeOrder resume_step(const rpc::Task& task);
    Result<rpc::ResumeOrder> origin_image(const rpc::Task& task);
    void step_restored(const std::string& node, const rpc::RestoreDone& done);  // takes the mutex itself

    // controller_watch.cpp
    struct Errands {  // calls to Slurm that tick() makes once the mutex is free
        std::vector<std::uint32_t> start_now, requeue;
        std::vector<std::pair<std::uint32_t, std::uint32_t>> end;  // steps: job id, step id
        std::map<std::uint32_t, std::string> hold;  // job id → why
        std::vector<JobRow> gone;  // not in Slurm's list: asked for once more before they are forgotten
    };
    void watch_jobs(const std::vector<SlurmJob>& jobs, std::chrono::steady_clock::time_point snapshot, Errands& errands);
    void watch_job(const JobRow& job, std::chrono::steady_clock::time_point snapshot, Errands& errands);
    void watch_ended(const JobRow& job, const SlurmJob& slurm, Errands& errands);
    void check_generations();
    void start_due_checkpoints();
    void learn_store();
    void learn_cluster();  // without the mutex, as those that follow
    void run_errands(const Errands& errands);
    void hold(std::uint32_t job_id, const std::string& reason);

    // controller_query.cpp
    rpc::Job describe(const JobRow& job, bool whole, std::optional<std::uint32_t> only_checkpoint) const;
    rpc::Checkpoint describe(const CheckpointRow& row) const;
    void describe_images(const CheckpointRow& row, bool files, rpc::Checkpoint& message) const;
    bool is_listed(const JobRow& job) const;

    const Config config_;
    const std::int64_t started_;
    const std::string note_;
    Catalogue& catalogue_;
    StoreOrders& orders_;
    StoreKeeper& keeper_;
    std::set<uid_t> operators_;  // uid 0, this process's own (SlurmUser) and controller.operators

    mutable std::mutex mutex_;
    std::condition_variable changed_;  // a generation made progress, or a restart
    std::uint64_t changes_ = 0;
    std::string store_trouble_;  // why the catalogue does not know its store yet
    std::string cluster_;  // Slurm's ClusterName; "" until slurmctld has answered
    std::map<std::string, NodeState> nodes_;
    std::map<std::string, rpc::NodeHello> unsettled_;  // of nodes whose stock is taken once the catalogue is rebuilt
    LiveJobs live_;
    std::map<RowId, Run> runs_;  // by checkpoint, until finished
    DrainGrants grants_;
    std::map<std::uint32_t, ResumeSession> resumes_;                          // by job id
    std::map<std::uint32_t, std::uint32_t> counted_;                          // job id → restart count whose failed end was counted
    std::map<std::uint32_t, std::uint32_t> started_now_;                      // job id → restart count whose begin time was moved
    std::map<std::uint32_t, SlurmJob> slurm_jobs_;                            // as of the last tick
    std::map<std::uint32_t, std::chrono::steady_clock::time_point> touched_;  // job id → its last report: newer than an older list
    std::vector<std::pair<std::string, rpc::Task>> unverified_;               // Slurm did not answer yet, or the catalogue is not ready
    std::vector<std::pair<std::string, rpc::RestoreDone>> unconfirmed_;       // Slurm was to be asked about them, and did not answer yet
    std::map<RowId, std::chrono::steady_clock::time_point> waiting_;          // captured checkpoints that a restart waits for, since when
    std::map<std::uint32_t, std::uint32_t> avoid_;                            // job id → its restart begins below this checkpoint: tasks of it failed
    std::vector<std::uint32_t> to_requeue_;                                   // a task of theirs cannot be restored
    std::map<std::uint32_t, std::string> to_hold_;                            // job id → why
    std::vector<std::pair<std::uint32_t, std::uint32_t>> to_end_;             // steps of which a task could not be restored: job id, step id
    std::map<RowId, std::int64_t> lent_;                                      // checkpoints for steps that srun is about to start: until when
    std::deque<rpc::Orphan> leftovers_;                                       // of fast tiers
    bool slurm_reachable_ = false;
};

}  // namespace sckpt
