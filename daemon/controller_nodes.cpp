// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the nodes report: their tasks, dumps, drains and restores.
#include <algorithm>
#include <format>

#include "common/log.h"
#include "daemon/controller.h"
#include "rpc/local.h"

namespace sckpt {
namespace {

// An image whose restore takes sckptd down again and again is left aside for an older one.
constexpr int kLostAttempts = 3;

// How long a restart waits for a newer image that is being stored.
constexpr std::chrono::seconds kDrainWait{120};

bool is_batch(const rpc::Task& task) { return task.step_id() == local::kBatchStep; }

std::vector<FileRow> file_rows(const google::protobuf::RepeatedPtrField<rpc::File>& files) {
    std::vector<FileRow> rows;
    for (const rpc::File& file : files) rows.push_back({file.path(), file.inode(), file.size(), file.append(), file.stdio()});
    return rows;
}

}  // namespace

std::shared_ptr<NodeOutbox> Controller::attach(const rpc::NodeHello& hello) {
    auto outbox = std::make_shared<NodeOutbox>();
    {
        const std::lock_guard lock(mutex_);
        NodeState& node = nodes_[hello.name()];
        node.outbox = outbox;
        node.info = hello.info();
        node.info.set_name(hello.name());
        node.info.set_last_seen(unix_now());
        std::erase_if(live_, [&](const auto& entry) { return entry.second.node == hello.name(); });
        removing_.clear();  // orders may have been lost with the earlier connection; removing twice does no harm

        // What the node holds in its fast tier and the catalogue awaits goes on; the rest is dropped on either side.
        std::set<RowId> held;
        for (const rpc::HeldImage& image : hello.images()) {
            const RowId id = static_cast<RowId>(image.checkpoint_id());
            const auto found = generations_.find(id);
            if (found != generations_.end() && found->second->progress.phase() == rpc::CreateProgress::CAPTURED) {
                held.insert(id);
                continue;
            }
            rpc::ControllerMessage message;
            message.mutable_drop()->set_checkpoint_id(image.checkpoint_id());
            outbox->push(std::move(message));
        }
        std::vector<RowId> lost;
        for (const auto& [id, generation] : generations_)
            if (generation->node == hello.name() && !held.contains(id)) lost.push_back(id);
        for (const RowId id : lost)
            drop_generation(id, std::format("sckptd on {} was restarted, or the node's memory was lost", hello.name()));
    }
    for (const rpc::Task& task : hello.tasks())
        if (!task.resuming()) task_started(hello.name(), task);
    log_info("node {} attached: sckptd {}, {}", hello.name(), hello.version(), hello.info().backend());
    return outbox;
}

void Controller::detach(const std::string& node, const std::shared_ptr<NodeOutbox>& outbox) {
    const std::lock_guard lock(mutex_);
    const auto found = nodes_.find(node);
    if (found == nodes_.end() || found->second.outbox != outbox) return;  // it has attached anew meanwhile
    found->second.outbox = nullptr;
    removing_.clear();
    log_warning("node {} lost", node);
    for (const auto& [job_id, live] : live_) {
        if (live.node != node) continue;
        if (const auto job = catalogue_.newest_job(job_id); job && *job)
            note((*job)->id, std::format("the connection to {} is lost, where the job runs", node));
    }
}

void Controller::handle(const std::string& node, const rpc::NodeMessage& message) {
    {
        const std::lock_guard lock(mutex_);
        nodes_[node].info.set_last_seen(unix_now());
    }
    switch (message.what_case()) {
        case rpc::NodeMessage::kTaskStarted: return task_started(node, message.task_started().task());
        case rpc::NodeMessage::kTaskEnded: return task_ended(node, message.task_ended().task());
        case rpc::NodeMessage::kResumeQuery: return resume_query(node, message.resume_query());
        case rpc::NodeMessage::kDumpDone: return dump_done(node, message.dump_done());
        case rpc::NodeMessage::kStoreProgress: return store_progress(message.store_progress());
        case rpc::NodeMessage::kStoreDone: return store_done(node, message.store_done());
        case rpc::NodeMessage::kRestoreDone: return restore_done(node, message.restore_done());
        case rpc::NodeMessage::kRemoved: return removed(message.removed());
        case rpc::NodeMessage::kInfo: {
            const std::lock_guard lock(mutex_);
            nodes_[node].info = message.info();
            nodes_[node].info.set_name(node);
            nodes_[node].info.set_last_seen(unix_now());
            return;
        }
        case rpc::NodeMessage::kHello:
        case rpc::NodeMessage::WHAT_NOT_SET: return;
    }
}

// A task's word counts only as far as Slurm confirms it: the job is this user's, and its batch script runs on this node.
Result<SlurmJob> Controller::verify_task(const std::string& node, const rpc::Task& task) {
    SCKPT_ASSIGN(SlurmJob slurm, slurm_job(task.job_id()));
    if (slurm.uid != task.uid())
        return fail(Errc::denied, std::format("uid {} on {} claims job {} of uid {}", task.uid(), node, task.job_id(), slurm.uid));
    if (!slurm.batch || slurm.batch_host != node)
        return fail(Errc::invalid,
                    std::format("{} claims the batch script of job {}, which runs on '{}'", node, task.job_id(), slurm.batch_host));
    if (slurm.restart_count != task.restart_count())  // a report of an earlier run that waited for a connection
        return fail(Errc::busy, std::format("{} reports run {} of job {}, which is at run {}", node, task.restart_count(), task.job_id(),
                                            slurm.restart_count));
    return slurm;
}

void Controller::task_started(const std::string& node, const rpc::Task& task) {
    if (!is_batch(task)) return;
    const Result<SlurmJob> slurm = verify_task(node, task);
    const std::lock_guard lock(mutex_);
    if (!slurm) {
        if (slurm.error().code == Errc::unavailable || slurm.error().code == Errc::io) unverified_.emplace_back(node, task);
        return log_warning("task of job {} on {} not accepted yet: {}", task.job_id(), node, slurm.error().text);
    }
    const Result<JobRow> job = ensure_job(task, *slurm);
    if (!job) return log_error("job {}: {}", task.job_id(), job.error().text);
    const auto session = resumes_.find(task.job_id());
    if (session != resumes_.end()) {
        // The report of the restore may have been lost with a connection; that the task runs says the same.
        const ResumeSession& last = session->second;
        if (last.restart_count == task.restart_count() && last.number != 0) {
            if (!last.reported) record_restart(job->id, {unix_now(), last.restart_count, last.number, node, "restored", 0});
            resumed(job->id, last.number);
        }
        resumes_.erase(session);
    }
    if (auto done = catalogue_.set_job_held(job->id, ""); !done) log_error("catalogue: {}", done.error().text);
    LiveTask& live = live_[task.job_id()];
    live.node = node;
    live.task = task;
    schedule_next(live, *job);
}

void Controller::task_ended(const std::string& node, const rpc::Task& task) {
    if (!is_batch(task)) return;
    const std::lock_guard lock(mutex_);
    const auto live = live_.find(task.job_id());
    if (live != live_.end() && live->second.node == node && live->second.task.uid() == task.uid()) live_.erase(live);
}

// The job goes on from `number`: what was made after it belongs to a course of events that did not happen.
void Controller::resumed(RowId job, std::uint32_t number) {
    const auto rows = catalogue_.checkpoints(job);
    if (!rows) return log_error("catalogue: {}", rows.error().text);
    for (const CheckpointRow& row : *rows)
        if (row.number > number && row.state == CheckpointState::complete)
            if (auto done = catalogue_.bad(row.id, std::format("the job went on from checkpoint {}", number)); !done)
                log_error("catalogue: {}", done.error().text);
}

void Controller::resume_query(const std::string& node, const rpc::ResumeQuery& query) {
    const rpc::Task& task = query.task();
    rpc::ControllerMessage message;
    rpc::ResumeOrder& order = *message.mutable_resume();
    bool hold_it = false;
    if (!is_batch(task)) {
        order.set_action(rpc::ResumeOrder::FROM_BEGINNING);  // a step's task starts anew with the script that starts it
    } else if (const Result<SlurmJob> slurm = verify_task(node, task); !slurm) {
        if (slurm.error().code == Errc::unavailable || slurm.error().code == Errc::io || slurm.error().code == Errc::busy)
            return;  // the node asks again
        order.set_action(rpc::ResumeOrder::REFUSE);
        order.set_text(slurm.error().text);
    } else {
        const std::lock_guard lock(mutex_);
        const Result<JobRow> job = ensure_job(task, *slurm);
        if (!job) {
            order.set_action(rpc::ResumeOrder::REFUSE);
            order.set_text("the catalogue of sckptctld fails: " + job.error().text);
        } else if (drain_is_near(*job)) {
            return;  // the node asks again
        } else {
            order = choose_resume(*job, query, node, hold_it);
        }
    }
    order.set_query(query.query());
    const std::string reason = order.text();
    if (hold_it) hold(task.job_id(), reason);
    const std::lock_guard lock(mutex_);
    send(node, std::move(message));
}

// With the mutex held. True while an image of the job, newer than what is complete, is on its way into the store from a living node: a
// restart waits for it, for kDrainWait at most.
bool Controller::drain_is_near(const JobRow& job) {
    const auto generation = generation_of_job(job.job_id);
    if (!generation || generation->progress.phase() != rpc::CreateProgress::CAPTURED) return false;
    const auto node = nodes_.find(generation->node);
    if (node == nodes_.end() || !node->second.outbox) return false;
    const auto [entry, is_new] = waiting_.try_emplace(generation->id, std::chrono::steady_clock::now());
    return std::chrono::steady_clock::now() - entry->second < kDrainWait;
}

// With the mutex held. The newest complete checkpoint that has not failed in this restart; from the beginning only when there never was
// one. The same query may come twice, and sckptd may be killed during a restore: neither says anything against the checkpoint.
rpc::ResumeOrder Controller::choose_resume(const JobRow& job, const rpc::ResumeQuery& query, const std::string& node, bool& hold_it) {
    const rpc::Task& task = query.task();
    abandon_unfinished(job, "the job was restarted before it was complete");
    ResumeSession& session = resumes_[task.job_id()];
    if (session.restart_count != task.restart_count()) {
        session = {};
        session.restart_count = task.restart_count();
    }
    if (session.number != 0 && session.query != query.query() && ++session.lost >= kLostAttempts) {
        session.below = session.number;
        session.lost = 0;
    }
    rpc::ResumeOrder order;
    const auto next = catalogue_.newest_complete(job.id, session.below);
    if (!next) {
        order.set_action(rpc::ResumeOrder::REFUSE);
        order.set_text("the catalogue of sckptctld fails: " + next.error().text);
        return order;
    }
    if (*next && !session.node_fault) {
        const auto image = catalogue_.image((*next)->id);
        if (!image || !*image) {
            order.set_action(rpc::ResumeOrder::REFUSE);
            order.set_text("the catalogue of sckptctld has no image for checkpoint " + std::to_string((*next)->number));
            return order;
        }
        session.number = (*next)->number;
        session.query = query.query();
        order.set_action(rpc::ResumeOrder::RESTORE);
        order.set_checkpoint_id(static_cast<std::uint64_t>((*next)->id));
        order.set_number((*next)->number);
        order.set_path((*image)->path);
        order.set_digest((*image)->digest);
        order.set_uid(job.uid);
        return order;
    }
    const auto rows = catalogue_.checkpoints(job.id);
    const bool any_bad = rows && std::ranges::any_of(*rows, [](const CheckpointRow& row) { return row.state == CheckpointState::bad; });
    RestartRow restart{unix_now(), task.restart_count(), 0, node, "", 0};
    if (session.below != 0 || session.node_fault || any_bad) {
        const auto fresh = catalogue_.newest_job(job.job_id);
        const std::string last = fresh && *fresh ? (*fresh)->last_error : "";
        const std::string reason =
            std::format("no checkpoint of job {} could be restored{}{}", job.job_id, last.empty() ? "" : "; the last error: ", last);
        if (auto done = catalogue_.set_job_held(job.id, reason); !done) log_error("catalogue: {}", done.error().text);
        restart.outcome = "held: " + reason;
        note(job.id, restart.outcome);
        order.set_action(rpc::ResumeOrder::REFUSE);
        order.set_text(std::format("{}. The job is held: `sckpt show {}` tells more; `scontrol release {}` tries again", reason, job.job_id,
                                   job.job_id));
        hold_it = true;
        resumes_.erase(task.job_id());
    } else {
        restart.outcome = "from the beginning: there was no complete checkpoint";
        note(job.id, restart.outcome);
        order.set_action(rpc::ResumeOrder::FROM_BEGINNING);
        order.set_text(std::format("job {} has no complete checkpoint: it starts from the beginning", job.job_id));
    }
    if (auto done = catalogue_.add_restart(job.id, restart); !done) log_error("catalogue: {}", done.error().text);
    return order;
}

void Controller::dump_done(const std::string& node, const rpc::DumpDone& done) {
    const std::lock_guard lock(mutex_);
    const RowId id = static_cast<RowId>(done.checkpoint_id());
    const auto found = generations_.find(id);
    if (found == generations_.end()) {
        rpc::ControllerMessage message;  // dropped meanwhile
        message.mutable_drop()->set_checkpoint_id(done.checkpoint_id());
        send(node, std::move(message));
        return;
    }
    if (!done.ok()) return drop_generation(id, done.error());
    const std::shared_ptr<Generation> generation = found->second;
    if (auto stored = catalogue_.captured(id, done.bytes(), done.frozen_ms(), file_rows(done.files())); !stored)
        return drop_generation(id, "the catalogue fails: " + stored.error().text);
    generation->progress.set_phase(rpc::CreateProgress::CAPTURED);
    generation->progress.set_bytes(done.bytes());
    generation->progress.set_frozen_ms(done.frozen_ms());
    changed_.notify_all();
}

void Controller::store_progress(const rpc::StoreProgress& progress) {
    const std::lock_guard lock(mutex_);
    const auto found = generations_.find(static_cast<RowId>(progress.checkpoint_id()));
    if (found == generations_.end()) return;
    found->second->progress.set_bytes_stored(progress.bytes_stored());
    changed_.notify_all();
}

void Controller::store_done(const std::string& node, const rpc::StoreDone& done) {
    const std::lock_guard lock(mutex_);
    const RowId id = static_cast<RowId>(done.checkpoint_id());
    rpc::ControllerMessage drop;
    drop.mutable_drop()->set_checkpoint_id(done.checkpoint_id());
    const auto found = generations_.find(id);
    if (found == generations_.end()) {
        send(node, std::move(drop));
        return;
    }
    if (!done.ok()) return drop_generation(id, done.error());
    const std::shared_ptr<Generation> generation = found->second;
    if (auto stored = catalogue_.complete(id, done.image().digest(), done.image().bytes(), unix_now()); !stored)
        return drop_generation(id, "the catalogue fails: " + stored.error().text);
    send(node, std::move(drop));
    generation->progress.set_phase(rpc::CreateProgress::COMPLETE);
    generation->progress.set_bytes(done.image().bytes());
    generation->progress.set_bytes_stored(done.image().bytes());
    note(generation->job, std::format("checkpoint {} complete: {} bytes, frozen {} ms", generation->progress.checkpoint(),
                                      done.image().bytes(), generation->progress.frozen_ms()));
    finish_generation(generation, std::nullopt);
    if (auto cleared = catalogue_.set_job_error(generation->job, ""); !cleared) log_error("catalogue: {}", cleared.error().text);
    const auto job = catalogue_.newest_job(generation->job_id);
    if (job && *job && (*job)->id == generation->job) prune(**job);
}

void Controller::restore_done(const std::string& node, const rpc::RestoreDone& done) {
    const std::lock_guard lock(mutex_);
    const RowId id = static_cast<RowId>(done.checkpoint_id());
    const auto row = catalogue_.checkpoint(id);
    if (!row || !*row) return;
    const CheckpointRow& checkpoint = **row;
    RestartRow restart{unix_now(), 0, checkpoint.number, node, "restored", done.restore_ms()};
    for (auto& [job_id, session] : resumes_) {
        const auto job = catalogue_.newest_job(job_id);
        if (!job || !*job || (*job)->id != checkpoint.job) continue;
        restart.slurm_restart_count = session.restart_count;
        if (session.number != checkpoint.number || session.query != done.query()) continue;
        session.reported = done.ok();
        if (done.ok()) continue;
        session.node_fault = done.node_fault();
        if (!session.node_fault) session.below = session.number;
        session.number = 0;
        session.lost = 0;
    }
    if (done.ok()) {
        // At once, not when the task reports: a sckptctld that is killed in between must not restore what belongs to the other history.
        resumed(checkpoint.job, checkpoint.number);
    } else {
        restart.outcome = "failed: " + done.error();
        const std::string text = std::format("restart from checkpoint {} on {}: {}", checkpoint.number, node, done.error());
        if (auto set = catalogue_.set_job_error(checkpoint.job, text); !set) log_error("catalogue: {}", set.error().text);
        if (done.image_bad() && checkpoint.state == CheckpointState::complete)
            if (auto set = catalogue_.bad(id, done.error()); !set) log_error("catalogue: {}", set.error().text);
    }
    record_restart(checkpoint.job, restart);
}

void Controller::record_restart(RowId job, const RestartRow& restart) {
    note(job, std::format("restart from checkpoint {} on {}: {}", restart.checkpoint, restart.node, restart.outcome));
    if (auto added = catalogue_.add_restart(job, restart); !added) log_error("catalogue: {}", added.error().text);
}

void Controller::removed(const rpc::Removed& removed) {
    const std::lock_guard lock(mutex_);
    const RowId id = static_cast<RowId>(removed.checkpoint_id());
    removing_.erase(id);
    if (!removed.ok()) return log_warning("checkpoint row {} is not removed yet: {}", id, removed.error());
    if (auto done = catalogue_.deleted(id); !done) log_warning("catalogue: {}", done.error().text);
}

}  // namespace sckpt
