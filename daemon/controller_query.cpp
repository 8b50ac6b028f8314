// SPDX-License-Identifier: GPL-3.0-or-later
//
// What commands ask: the catalogue and the nodes, as messages.
#include <algorithm>
#include <format>

#include "daemon/controller.h"

namespace sckpt {
namespace {

rpc::CheckpointState to_rpc(CheckpointState state) { return static_cast<rpc::CheckpointState>(state); }
static_assert(static_cast<int>(CheckpointState::preparing) == rpc::PREPARING &&
              static_cast<int>(CheckpointState::captured) == rpc::CAPTURED &&
              static_cast<int>(CheckpointState::complete) == rpc::COMPLETE && static_cast<int>(CheckpointState::failed) == rpc::FAILED &&
              static_cast<int>(CheckpointState::bad) == rpc::BAD);

const char* outcome_name(JobOutcome outcome) {
    switch (outcome) {
        case JobOutcome::live: return "";
        case JobOutcome::succeeded: return "succeeded";
        case JobOutcome::failed: return "failed";
        case JobOutcome::cancelled: return "cancelled";
        case JobOutcome::unknown: break;
    }
    return "unknown";
}

// An answer about several checkpoints tells the images of those that have no more than these; one about a single checkpoint tells all of its
// images, and their files as long as it has no more than these. An answer has 64 MiB at most (rpc/channel.cpp).
constexpr std::uint32_t kFewImages = 20, kImagesWithFiles = 1000;

}  // namespace

rpc::Checkpoint Controller::describe(const CheckpointRow& row) const {
    rpc::Checkpoint message;
    message.set_number(row.number);
    message.set_state(to_rpc(row.state));
    message.set_created(row.created);
    message.set_completed(row.completed);
    message.set_bytes(row.bytes);
    message.set_frozen_ms(row.frozen_ms);
    message.set_reason(row.reason);
    message.set_new_bytes(row.new_bytes);
    message.set_pinned(row.pinned);
    if (const auto run = runs_.find(row.id); run != runs_.end() && run->second->progress.has_drain())
        *message.mutable_drain() = run->second->progress.drain();
    message.set_step(row.step);
    message.set_image_count(row.images);
    return message;
}

// files: of the images, too.
void Controller::describe_images(const CheckpointRow& row, bool files, rpc::Checkpoint& message) const {
    if (const auto images = catalogue_.images(row.id, files); worked(images))
        for (const ImageRow& image : *images) {
            rpc::Image& out = *message.add_images();
            out.set_task(image.task);
            out.set_node(image.node);
            out.set_fast_node(image.fast_node);
            out.set_path(image.manifest);
            out.set_digest(image.digest);
            out.set_bytes(image.bytes);
            *out.mutable_files() = to_message(image.files);
        }
    if (const auto ended = catalogue_.ended_tasks(row.id); worked(ended))
        for (const EndedTask& task : *ended) {
            rpc::EndedTask& out = *message.add_ended();
            out.set_task(task.task);
            out.set_wait_status(task.wait_status);
        }
}

rpc::Job Controller::describe(const JobRow& job, bool whole, std::optional<std::uint32_t> only_checkpoint) const {
    rpc::Job message;
    message.set_job_id(job.job_id);
    message.set_uid(job.uid);
    message.set_user(job.user.empty() ? user_name(job.uid) : job.user);
    message.set_account(job.account);
    message.set_outcome(outcome_name(job.outcome));
    message.set_interval_seconds(job.interval_seconds);
    message.set_max_restarts(job.max_restarts);
    message.set_restarts(job.restarts);
    message.set_held_reason(job.held_reason);
    message.set_last_error(job.last_error);
    const auto slurm = slurm_jobs_.find(job.job_id);
    if (slurm != slurm_jobs_.end() && slurm->second.uid == job.uid) {
        message.set_slurm_state(slurm->second.state_name);
        if (slurm->second.array_task) message.set_array_task(std::format("{}_{}", slurm->second.array_job_id, *slurm->second.array_task));
    }
    const LiveJob* live = live_.find(job.job_id);
    const auto session = resumes_.find(job.job_id);
    if (live != nullptr) message.set_node(live->node);
    else if (session != resumes_.end()) message.set_node(session->second.node);
    if (const auto rows = catalogue_.checkpoints(job.id))
        for (const CheckpointRow& row : *rows) {
            if (only_checkpoint && row.number != *only_checkpoint) continue;
            rpc::Checkpoint& checkpoint = *message.add_checkpoints();
            checkpoint = describe(row);
            if (whole && (only_checkpoint || row.images <= kFewImages))
                describe_images(row, row.images <= kImagesWithFiles, checkpoint);
        }
    if (!whole) return message;
    if (const auto rows = catalogue_.restarts(job.id))
        for (const RestartRow& row : *rows) {
            rpc::Restart& restart = *message.add_restarts_done();
            restart.set_time(row.time);
            restart.set_slurm_restart_count(row.slurm_restart_count);
            restart.set_checkpoint(row.checkpoint);
            restart.set_node(row.node);
            restart.set_outcome(row.outcome);
            restart.set_restore_ms(row.restore_ms);
        }
    if (const auto rows = catalogue_.events(job.id))
        for (const EventRow& row : *rows) {
            rpc::Event& event = *message.add_events();
            event.set_time(row.time);
            event.set_text(row.text);
        }
    return message;
}

// Those that are over are of interest as long as something can be made of them.
bool Controller::is_listed(const JobRow& job) const {
    if (job.outcome == JobOutcome::live || job.outcome == JobOutcome::failed) return true;
    const auto rows = catalogue_.checkpoints(job.id);
    return rows && std::ranges::find(*rows, CheckpointState::complete, &CheckpointRow::state) != rows->end();
}

Result<rpc::ListReply> Controller::list(std::uint32_t job_id, const rpc::Caller& caller) {
    const std::lock_guard lock(mutex_);
    rpc::ListReply reply;
    if (job_id != 0) {
        SCKPT_ASSIGN(const JobRow job, job_for(job_id, caller));
        *reply.add_jobs() = describe(job, false, std::nullopt);
        return reply;
    }
    SCKPT_ASSIGN(const std::vector<JobRow> rows, catalogue_.jobs(true));
    for (const JobRow& job : rows)
        if (may_act(job, caller) && is_listed(job)) *reply.add_jobs() = describe(job, false, std::nullopt);
    return reply;
}

Result<rpc::ShowReply> Controller::show(std::uint32_t job_id, std::uint32_t checkpoint, const rpc::Caller& caller) {
    const std::lock_guard lock(mutex_);
    SCKPT_ASSIGN(const JobRow job, job_for(job_id, caller));
    rpc::ShowReply reply;
    *reply.mutable_job() = describe(job, true, checkpoint != 0 ? std::optional(checkpoint) : std::nullopt);
    if (checkpoint != 0 && reply.job().checkpoints().empty())
        return fail(Errc::not_found,
                    std::format("job {} has no checkpoint {}; sckpt list {} shows those it has", job_id, checkpoint, job_id));
    return reply;
}

Result<rpc::WatchReply> Controller::under_way(const std::set<std::uint32_t>& job_ids, const rpc::Caller& caller) {
    const std::lock_guard lock(mutex_);
    for (const std::uint32_t job_id : job_ids) SCKPT_TRY(job_for(job_id, caller));
    std::map<std::uint32_t, std::uint32_t> jobs;  // job id → number of the checkpoint that is being made; 0: a restart
    for (const auto& [id, session] : resumes_)
        if (session.number != 0) jobs[id] = 0;
    for (const auto& [id, run] : runs_) jobs[run->job_id] = run->progress.checkpoint();
    rpc::WatchReply reply;
    for (const auto& [id, number] : jobs) {
        if (!job_ids.empty() && !job_ids.contains(id)) continue;
        const auto job = catalogue_.newest_job(id);
        if (worked(job) && *job && may_act(**job, caller)) *reply.add_jobs() = describe(**job, false, number);
    }
    return reply;
}

std::uint64_t Controller::wait_for_change(std::uint64_t seen) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(1), [&] { return changes_ != seen; });
    return changes_;
}

rpc::StatusReply Controller::status() {
    const Result<std::string> slurm = slurm_version();
    const std::lock_guard lock(mutex_);
    rpc::StatusReply reply;
    reply.set_version(SCKPT_VERSION);
    reply.set_started(started_);
    reply.set_catalogue(config_.controller.state_directory + "/catalogue.sqlite");
    reply.set_schema_version(Catalogue::kSchemaVersion);
    reply.set_slurm_reachable(slurm.has_value());
    reply.set_slurm_version(slurm.value_or(""));
    reply.set_cluster(cluster_);
    reply.set_store_id(catalogue_.store_id());
    if (!note_.empty()) reply.add_notes(note_);
    if (!store_trouble_.empty()) reply.add_notes(store_trouble_);
    if (waits_for_rebuild())
        reply.add_notes("the catalogue is being rebuilt from the store: until then no checkpoint is made and no job restarted");
    if (const std::string trouble = keeper_.trouble(); !trouble.empty()) reply.add_notes("the collector: " + trouble);
    if (const std::string files = keeper_.unremoved_files(); !files.empty()) reply.add_notes("the collector: " + files);
    if (const auto rows = catalogue_.jobs(false)) reply.set_jobs(static_cast<std::uint32_t>(rows->size()));
    if (const auto rows = catalogue_.checkpoints_in(CheckpointState::complete))
        reply.set_checkpoints_complete(static_cast<std::uint32_t>(rows->size()));
    for (const auto& [name, node] : nodes_) {
        rpc::NodeInfo& info = *reply.add_nodes();
        info = node.info;
        info.set_name(name);
        info.set_connected(node.outbox != nullptr);
    }
    return reply;
}

}  // namespace sckpt
