// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/controller.h"

#include <pwd.h>
#include <unistd.h>
#include <algorithm>
#include <ctime>
#include <format>

#include "common/interval.h"
#include "common/log.h"

namespace sckpt {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

// Past the node's own deadline for a dump, the node is not heard of any more.
constexpr seconds kDumpGrace{60};

std::string job_directory(const JobRow& job) { return std::format("job-{}-{}", job.job_id, job.id); }

// A failure of the catalogue while something else goes on: the disk is full or gone. The checkpoint at hand is lost, no other.
void log_failure(std::string_view doing, const Error& error) { log_error("{}: {}", doing, error.text); }

}  // namespace

std::int64_t unix_now() { return static_cast<std::int64_t>(time(nullptr)); }

Controller::Controller(Config config, Catalogue catalogue)
    : config_(std::move(config)), started_(unix_now()), operators_{0, geteuid()}, catalogue_(std::move(catalogue)) {
    for (const std::string& name : config_.controller.operators) {
        if (const passwd* user = getpwnam(name.c_str()); user != nullptr) operators_.insert(user->pw_uid);
        else log_warning("controller.operators: no user {}", name);
    }
    recover_generations();
}

// After a restart of sckptctld. Dumps that were under way have an unknown outcome and are dropped here and by the nodes; captured
// images are awaited: their nodes report them when they attach.
void Controller::recover_generations() {
    const auto preparing = catalogue_.checkpoints_in(CheckpointState::preparing);
    if (!preparing) return log_failure("reading the catalogue", preparing.error());
    for (const CheckpointRow& row : *preparing)
        if (auto done = catalogue_.failed(row.id, "sckptctld was restarted during the dump"); !done) log_failure("catalogue", done.error());
    const auto captured = catalogue_.checkpoints_in(CheckpointState::captured);
    const auto jobs = catalogue_.jobs(true);
    if (!captured || !jobs) return log_failure("reading the catalogue", !captured ? captured.error() : jobs.error());
    for (const CheckpointRow& row : *captured) {
        const auto image = catalogue_.image(row.id);
        const auto job = std::ranges::find(*jobs, row.job, &JobRow::id);
        if (!image || !*image || job == jobs->end()) continue;
        auto generation = std::make_shared<Generation>();
        generation->id = row.id;
        generation->job = row.job;
        generation->job_id = job->job_id;
        generation->node = (*image)->node;
        generation->path = (*image)->path;
        generation->progress.set_checkpoint(row.number);
        generation->progress.set_phase(rpc::CreateProgress::CAPTURED);
        generation->progress.set_bytes(row.bytes);
        generation->progress.set_frozen_ms(row.frozen_ms);
        generations_[row.id] = generation;
    }
}

Result<> Controller::may_act(const JobRow& job, const rpc::Caller& caller) const {
    if (caller.uid == job.uid || operators_.contains(caller.uid)) return {};
    return fail(Errc::denied, std::format("job {} is not yours: only its owner, an operator or root may do this", job.job_id));
}

Result<JobRow> Controller::ensure_job(const rpc::Task& task, const SlurmJob& slurm) {
    SCKPT_ASSIGN(const std::optional<JobRow> known, catalogue_.newest_job(task.job_id()));
    // Slurm uses job ids again. The first start of another submission has another submit time; a requeue changes it too, and
    // raises the restart count.
    touched_[task.job_id()] = std::chrono::steady_clock::now();
    if (known && !known->ended && is_run_of(*known, slurm)) {
        if (known->slurm_restart_count != slurm.restart_count)
            SCKPT_TRY(catalogue_.set_job_run(known->id, slurm.restart_count, slurm.submit_time));
        JobRow row = *known;
        row.slurm_restart_count = slurm.restart_count;
        row.submit_time = slurm.submit_time;
        return row;
    }
    if (known && !known->ended) discard_checkpoints(*known);
    JobRow job;
    job.job_id = task.job_id();
    job.uid = slurm.uid;
    job.submit_time = slurm.submit_time;
    job.interval_seconds = task.interval_seconds() < 0 ? config_.policy.interval_seconds : task.interval_seconds();
    job.max_restarts = task.max_restarts() < 0 ? config_.policy.max_restarts : task.max_restarts();
    job.slurm_restart_count = task.restart_count();
    SCKPT_ASSIGN(job.id, catalogue_.add_job(job));
    return job;
}

// The job that the row is about: the run last seen, or a later one of it. Slurm uses job ids again, and a requeue gives a new submit time.
bool Controller::is_run_of(const JobRow& row, const SlurmJob& slurm) {
    if (row.uid != slurm.uid) return false;
    if (slurm.restart_count == row.slurm_restart_count) return slurm.submit_time == row.submit_time;
    return slurm.restart_count > row.slurm_restart_count && slurm.submit_time > row.submit_time;
}

void Controller::schedule_next(LiveTask& live, const JobRow& job) {
    live.due = job.interval_seconds > 0 ? steady_clock::now() + seconds(job.interval_seconds) : steady_clock::time_point::max();
}

std::shared_ptr<Generation> Controller::generation_of_job(std::uint32_t job_id) const {
    for (const auto& [id, generation] : generations_)
        if (generation->job_id == job_id) return generation;
    return nullptr;
}

Result<std::shared_ptr<Generation>> Controller::begin_generation(const JobRow& job, LiveTask& live) {
    const auto node = nodes_.find(live.node);
    if (node == nodes_.end() || !node->second.outbox)
        return fail(Errc::unavailable, std::format("node {} of job {} has no connection to sckptctld", live.node, job.job_id));
    if (!node->second.info.backend_usable())
        return fail(Errc::unsupported, std::format("node {} cannot make checkpoints: {}", live.node, node->second.info.backend_reason()));
    ImageRow image;
    image.task = "batch";
    image.node = live.node;
    image.path = job_directory(job);
    SCKPT_ASSIGN(const CheckpointRow row, catalogue_.begin_checkpoint(job.id, image, unix_now()));
    SCKPT_ASSIGN(const std::optional<ImageRow> stored, catalogue_.image(row.id));
    auto generation = std::make_shared<Generation>();
    generation->id = row.id;
    generation->job = job.id;
    generation->job_id = job.job_id;
    generation->node = live.node;
    generation->path = stored->path;
    generation->progress.set_phase(rpc::CreateProgress::ORDERED);
    generation->progress.set_checkpoint(row.number);
    generation->dump_deadline = steady_clock::now() + seconds(config_.node.dump_timeout_seconds) + kDumpGrace;
    generations_[row.id] = generation;

    rpc::ControllerMessage message;
    rpc::DumpOrder& order = *message.mutable_dump();
    order.set_checkpoint_id(static_cast<std::uint64_t>(row.id));
    order.set_job_id(job.job_id);
    order.set_step_id(live.task.step_id());
    order.set_task_id(live.task.task_id());
    order.set_uid(job.uid);
    order.set_path(generation->path);
    order.set_number(row.number);
    send(live.node, std::move(message));
    schedule_next(live, job);
    return generation;
}

Result<Controller::Watch> Controller::create(std::uint32_t job_id, const rpc::Caller& caller) {
    const std::lock_guard lock(mutex_);
    SCKPT_ASSIGN(const std::optional<JobRow> job, catalogue_.newest_job(job_id));
    if (!job)
        return fail(Errc::not_found, std::format("job {}: no batch job that was started with --ckpt is known under this number", job_id));
    SCKPT_TRY(may_act(*job, caller));
    const auto live = live_.find(job_id);
    if (live == live_.end())
        return fail(Errc::busy, std::format("job {} is not running under sckpt now; squeue -j {} shows its state", job_id, job_id));
    auto generation = generation_of_job(job_id);
    if (generation && generation->progress.phase() == rpc::CreateProgress::CAPTURED)
        return fail(Errc::exists, "");  // the service waits for it, and asks again
    if (!generation) {
        SCKPT_ASSIGN(generation, begin_generation(*job, live->second));
        note(job->id, std::format("checkpoint {} ordered by uid {}", generation->progress.checkpoint(), caller.uid));
    }
    return Watch(this, generation);
}

Result<> Controller::requeue(std::uint32_t job_id, const rpc::Caller& caller) {
    {
        const std::lock_guard lock(mutex_);
        SCKPT_ASSIGN(const std::optional<JobRow> job, catalogue_.newest_job(job_id));
        if (!job) return fail(Errc::not_found, std::format("job {} is not known", job_id));
        SCKPT_TRY(may_act(*job, caller));
        note(job->id, std::format("requeue ordered by uid {}", caller.uid));
    }
    return slurm_requeue_job(job_id, false);
}

Result<std::optional<rpc::CreateProgress>> Controller::Watch::next() {
    std::unique_lock lock(controller_->mutex_);
    const auto news = [&] { return generation_->finished || generation_->progress.SerializeAsString() != last_; };
    if (!controller_->changed_.wait_for(lock, std::chrono::seconds(1), news)) return std::optional<rpc::CreateProgress>();
    last_ = generation_->progress.SerializeAsString();
    finished_ = generation_->finished;
    if (generation_->error) return std::unexpected(*generation_->error);
    return std::optional(generation_->progress);
}

void Controller::finish_generation(const std::shared_ptr<Generation>& generation, std::optional<Error> error) {
    generation->error = std::move(error);
    generation->finished = true;
    generations_.erase(generation->id);
    waiting_.erase(generation->id);
    changed_.notify_all();
}

void Controller::drop_generation(RowId checkpoint, const std::string& reason) {
    const auto found = generations_.find(checkpoint);
    if (found == generations_.end()) return;
    const std::shared_ptr<Generation> generation = found->second;
    if (auto done = catalogue_.failed(checkpoint, reason); !done) log_failure("dropping a checkpoint", done.error());
    if (auto done = catalogue_.set_job_error(generation->job, std::format("checkpoint {}: {}", generation->progress.checkpoint(), reason));
        !done)
        log_failure("catalogue", done.error());
    note(generation->job, std::format("checkpoint {} dropped: {}", generation->progress.checkpoint(), reason));
    rpc::ControllerMessage message;
    message.mutable_drop()->set_checkpoint_id(static_cast<std::uint64_t>(checkpoint));
    send(generation->node, std::move(message));
    finish_generation(generation, Error{Errc::io, std::format("checkpoint {} of job {} was dropped: {}. The job runs on, and its earlier "
                                                              "complete checkpoints, if any, stay as they are",
                                                              generation->progress.checkpoint(), generation->job_id, reason)});
}

void Controller::abandon_unfinished(const JobRow& job, const std::string& reason) {
    while (const auto generation = generation_of_job(job.job_id)) drop_generation(generation->id, reason);
}

// Keeps policy.keep complete checkpoints; failed ones go when something newer is complete, but for their reason in the events.
void Controller::prune(const JobRow& job) {
    const auto rows = catalogue_.checkpoints(job.id);
    if (!rows) return log_failure("pruning", rows.error());
    std::int64_t complete = 0;
    for (auto row = rows->rbegin(); row != rows->rend(); ++row) {
        const bool unfinished = row->state == CheckpointState::preparing || row->state == CheckpointState::captured;
        if (row->state == CheckpointState::complete && complete < config_.policy.keep) {
            ++complete;
            continue;
        }
        if (unfinished || row->state == CheckpointState::deleting || complete == 0) continue;
        if (auto done = catalogue_.begin_delete(row->id); !done) log_failure("pruning", done.error());
        else send_remove(row->id);
    }
}

void Controller::discard_checkpoints(const JobRow& job) {
    abandon_unfinished(job, "the job is over");
    started_now_.erase(job.job_id);
    counted_.erase(job.job_id);
    resumes_.erase(job.job_id);
    touched_.erase(job.job_id);
    if (auto done = catalogue_.set_job_ended(job.id, true); !done) return log_failure("ending a job", done.error());
    const auto rows = catalogue_.checkpoints(job.id);
    if (!rows) return log_failure("discarding", rows.error());
    for (const CheckpointRow& row : *rows) {
        if (row.state != CheckpointState::deleting)
            if (auto done = catalogue_.begin_delete(row.id); !done) {
                log_failure("discarding", done.error());
                continue;
            }
        send_remove(row.id);
    }
}

// The store belongs to root, so any connected node removes; what no node could remove is asked for again at the next tick.
void Controller::send_remove(RowId checkpoint) {
    const auto image = catalogue_.image(checkpoint);
    if (!image || !*image || removing_.contains(checkpoint)) return;
    const auto node = std::ranges::find_if(nodes_, [](const auto& entry) { return entry.second.outbox != nullptr; });
    if (node == nodes_.end()) return;
    rpc::ControllerMessage message;
    message.mutable_remove()->set_checkpoint_id(static_cast<std::uint64_t>(checkpoint));
    message.mutable_remove()->set_path((*image)->path);
    if (send(node->first, std::move(message))) removing_.insert(checkpoint);
}

bool Controller::send(const std::string& node, rpc::ControllerMessage message) {
    const auto found = nodes_.find(node);
    if (found == nodes_.end() || !found->second.outbox) return false;
    found->second.outbox->push(std::move(message));
    return true;
}

void Controller::note(RowId job, const std::string& text) {
    log_info("job row {}: {}", job, text);
    if (auto done = catalogue_.add_event(job, unix_now(), text); !done) log_failure("writing an event", done.error());
}

}  // namespace sckpt
