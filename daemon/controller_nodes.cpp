// SPDX-License-Identifier: GPL-3.0-or-later
//
// Nodes: they come and go, with the images in their fast tiers and the tasks that run there.
#include <algorithm>
#include <format>
#include <utility>

#include "daemon/controller.h"
#include "daemon/running_job.h"
#include "rpc/local.h"

namespace sckpt {
namespace {

constexpr std::size_t kLeftoversTold = 200;

bool is_batch(const rpc::Task& task) { return task.step_id() == local::kBatchStep; }

// Of the kept runs, because what is told to one may end it.
template <class Runs>
auto values_of(const Runs& runs) {
    std::vector<typename Runs::mapped_type> values;
    for (const auto& [id, run] : runs) values.push_back(run);
    return values;
}

}  // namespace

void Controller::attach(const rpc::NodeHello& hello, const std::shared_ptr<NodeOutbox>& outbox) {
    {
        const std::lock_guard lock(mutex_);
        NodeState& node = nodes_[hello.name()];
        if (node.outbox) connection_lost(hello.name());  // the end of the old connection has not been seen yet
        node.outbox = outbox;
        node.info = hello.info();
        node.info.set_name(hello.name());
        node.info.set_last_seen(unix_now());
        live_.node_attached(hello.name());
        grants_.node_lost(hello.name());  // it asks again for the drains that it has
        unsettled_[hello.name()] = hello;
        settle_nodes();
        orders_.attached(hello.name(), outbox);
    }
    for (const rpc::Task& task : hello.tasks())
        if (!task.resuming()) task_started(hello.name(), task);
    log_info("node {} attached: sckptd {}, {}", hello.name(), hello.version(), hello.info().backend());
    keeper_.wake();
}

// A catalogue that is yet to be rebuilt does not know what is to be kept: until then nothing of what nodes hold is judged.
void Controller::settle_nodes() {
    if (unsettled_.empty() || waits_for_rebuild()) return;
    for (const auto& [name, hello] : std::exchange(unsettled_, {}))
        if (const auto node = nodes_.find(name); node != nodes_.end() && node->second.outbox) take_stock(hello);
}

// What the node holds in its fast tier and the catalogue awaits or has stored stays; the rest is dropped on either side.
void Controller::take_stock(const rpc::NodeHello& hello) {
    worked(catalogue_.forget_fast_node(hello.name()));
    std::set<RowId> held;
    for (const rpc::HeldImage& image : hello.images()) {
        const RowId id = static_cast<RowId>(image.checkpoint_id());
        if (keeps_part(hello.name(), image)) {
            held.insert(id);
            if (!image.dumping()) worked(catalogue_.set_fast_node(id, hello.name()));
            continue;
        }
        send_drop(hello.name(), id);
        rpc::Orphan leftover;
        leftover.set_kind(rpc::Orphan::FAST_TIER);
        leftover.set_what(std::format("an image of job {} on {}", image.job_id(), hello.name()));
        leftover.set_bytes(image.bytes());
        leftover.set_done("dropped when the node connected");
        leftovers_.push_back(std::move(leftover));
        if (leftovers_.size() > kLeftoversTold) leftovers_.pop_front();
    }
    for (const Run& run : values_of(runs_)) carry_out(run, run->generation.attached(hello.name(), held.contains(run->id)));
    send_grants();
}

// Of a checkpoint that is under way its Generation decides, which is told of this a moment later.
bool Controller::keeps_part(const std::string& node, const rpc::HeldImage& part) {
    const RowId id = static_cast<RowId>(part.checkpoint_id());
    if (const auto found = runs_.find(id); found != runs_.end()) {
        if (found->second->urgent) send_urgent(node, id);  // the word may have been lost
        return found->second->generation.has_part(node);
    }
    const auto row = catalogue_.checkpoint(id);
    if (!worked(row)) return true;  // not known now: nothing is thrown away for that
    if (part.dumping() || !*row || (*row)->state != CheckpointState::complete) return false;
    if (!part.stored()) send_stored(node, id);
    return true;
}

std::vector<rpc::Orphan> Controller::fast_tier_leftovers() {
    const std::lock_guard lock(mutex_);
    return {leftovers_.begin(), leftovers_.end()};
}

void Controller::detach(const std::string& node, const std::shared_ptr<NodeOutbox>& outbox) {
    const std::lock_guard lock(mutex_);
    const auto found = nodes_.find(node);
    if (found == nodes_.end() || found->second.outbox != outbox) return;  // it has attached anew meanwhile
    found->second.outbox = nullptr;
    orders_.detached(node);
    log_warning("node {} lost", node);
    for (const auto& [job_id, live] : live_.all()) {
        if (live.node != node) continue;
        if (const auto job = catalogue_.newest_job(job_id); job && *job)
            note((*job)->id, std::format("the connection to {} is lost, where the job runs", node));
    }
    connection_lost(node);
}

void Controller::connection_lost(const std::string& node) {
    grants_.node_lost(node);
    for (const Run& run : values_of(runs_)) carry_out(run, run->generation.detached(node));
    send_grants();
}

bool Controller::asks_slurm(const rpc::NodeMessage& message) {
    return message.has_task_started() || message.has_resume_query() || message.has_restore_done();
}

void Controller::handle(const std::string& node, const rpc::NodeMessage& message) {
    if (message.has_task_started()) return task_started(node, message.task_started().task());
    if (message.has_resume_query()) return resume_query(node, message.resume_query());
    if (message.has_restore_done()) return restore_done(node, message.restore_done());
    if (message.has_dump_done()) return dump_done(node, message.dump_done());
    const std::lock_guard lock(mutex_);
    nodes_[node].info.set_last_seen(unix_now());
    const bool of_images = message.has_drain_request() || message.has_drain_progress() || message.has_store_done() || message.has_evicted() ||
                           message.has_steps_found();
    if (of_images && waits_for_rebuild()) return;  // said again, or seen when the node's stock is taken
    switch (message.what_case()) {
        case rpc::NodeMessage::kTaskEnded: return task_ended(node, message.task_ended().task());
        case rpc::NodeMessage::kDrainRequest: return drain_request(node, message.drain_request());
        case rpc::NodeMessage::kDrainProgress: return drain_progress(node, message.drain_progress());
        case rpc::NodeMessage::kStoreDone: return store_done(node, message.store_done());
        case rpc::NodeMessage::kEvicted: worked(catalogue_.evicted(static_cast<RowId>(message.evicted().checkpoint_id()), node)); return;
        case rpc::NodeMessage::kStepsFound: return steps_found(node, message.steps_found());
        case rpc::NodeMessage::kStoreReply: return orders_.reply(node, message.store_reply());
        case rpc::NodeMessage::kInfo:
            nodes_[node].info = message.info();
            nodes_[node].info.set_name(node);
            nodes_[node].info.set_last_seen(unix_now());
            return;
        default: return;
    }
}

// What Slurm says of the job: as it was told a moment ago, where that is enough.
Result<SlurmJob> Controller::slurm_job_of(const std::string& node, const rpc::Task& task) {
    if (!is_batch(task)) {
        const std::lock_guard lock(mutex_);
        const auto known = slurm_jobs_.find(task.job_id());
        if (known != slurm_jobs_.end() && known->second.uid == task.uid() && runs_on(known->second, task.restart_count()) &&
            known->second.nodes.contains(node))
            return known->second;
    }
    return slurm_job(task.job_id());
}

// A task's word counts only as far as Slurm confirms it: the job is this user's, and it, or its batch script, runs on this node.
Result<SlurmJob> Controller::verify_task(const std::string& node, const rpc::Task& task) {
    SCKPT_ASSIGN(SlurmJob slurm, slurm_job_of(node, task));
    if (slurm.uid != task.uid())
        return fail(Errc::denied, std::format("uid {} on {} claims job {} of uid {}", task.uid(), node, task.job_id(), slurm.uid));
    if (!is_batch(task)) {
        if (!slurm.nodes.contains(node))
            return fail(Errc::invalid, std::format("{} claims a task of job {}, which does not run there", node, task.job_id()));
        // What is left of an earlier run, or of a job that is over, must be taken for no run of the job's.
        if (runs_on(slurm, task.restart_count())) return slurm;
        return fail(Errc::busy, std::format("{} reports a task of run {} of job {}, which is at run {} and {}", node, task.restart_count(),
                                            task.job_id(), slurm.restart_count, slurm.state_name));
    }
    if (!slurm.batch || slurm.batch_host != node)
        return fail(Errc::invalid,
                    std::format("{} claims the batch script of job {}, which runs on '{}'", node, task.job_id(), slurm.batch_host));
    if (slurm.restart_count != task.restart_count())  // a report of an earlier run that waited for a connection
        return fail(Errc::busy, std::format("{} reports run {} of job {}, which is at run {}", node, task.restart_count(), task.job_id(),
                                            slurm.restart_count));
    return slurm;
}

void Controller::task_started(const std::string& node, const rpc::Task& task) {
    const Result<SlurmJob> slurm = verify_task(node, task);
    const std::lock_guard lock(mutex_);
    if (!slurm) {
        if (slurm.error().code == Errc::unavailable || slurm.error().code == Errc::io) unverified_.emplace_back(node, task);
        if (task.ended() && slurm.error().code == Errc::busy) return;  // nodes keep the ends of tasks for a while after their job
        return log_warning("task of job {} on {} not accepted yet: {}", task.job_id(), node, slurm.error().text);
    }
    if (waits_for_rebuild()) {  // else a row's number could be given that an image in the store has already
        unverified_.emplace_back(node, task);
        return;
    }
    const Result<JobRow> job = ensure_job(task, *slurm);
    if (!job) return log_error("job {}: {}", task.job_id(), job.error().text);
    if (is_batch(task)) return script_started(node, task, *job);
    if (live_.task_started(node, task)) rank_changed(task);
}

void Controller::script_started(const std::string& node, const rpc::Task& task, const JobRow& job) {
    const auto session = resumes_.find(task.job_id());
    if (session != resumes_.end()) {
        // The report of the restore may have been lost with a connection; that the task runs says the same.
        const ResumeSession& last = session->second;
        if (last.restart_count == task.restart_count() && last.number != 0) {
            if (!last.reported) record_restart(job.id, {unix_now(), last.restart_count, last.number, node, "restored", 0});
            resumed(job.id, last.number);
        }
        resumes_.erase(session);
    }
    worked(catalogue_.set_job_held(job.id, ""));
    schedule_next(live_.script_started(node, task), job);
    announce();
}

void Controller::task_ended(const std::string& node, const rpc::Task& task) {
    live_.task_ended(node, task);
    if (!is_batch(task)) rank_changed(task);
}

}  // namespace sckpt
