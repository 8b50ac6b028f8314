// SPDX-License-Identifier: GPL-3.0-or-later
//
// What commands ask: the catalogue and the nodes, as messages.
#include <pwd.h>
#include <algorithm>
#include <format>

#include "common/interval.h"
#include "daemon/controller.h"

namespace sckpt {
namespace {

std::string user_name(uid_t uid) {
    char buffer[4096];
    passwd entry{};
    passwd* found = nullptr;
    if (getpwuid_r(uid, &entry, buffer, sizeof buffer, &found) == 0 && found != nullptr) return found->pw_name;
    return std::to_string(uid);
}

rpc::CheckpointState to_rpc(CheckpointState state) { return static_cast<rpc::CheckpointState>(state); }
static_assert(static_cast<int>(CheckpointState::preparing) == rpc::PREPARING &&
              static_cast<int>(CheckpointState::captured) == rpc::CAPTURED &&
              static_cast<int>(CheckpointState::complete) == rpc::COMPLETE && static_cast<int>(CheckpointState::failed) == rpc::FAILED &&
              static_cast<int>(CheckpointState::bad) == rpc::BAD && static_cast<int>(CheckpointState::deleting) == rpc::DELETING);

}  // namespace

rpc::Checkpoint Controller::describe(const CheckpointRow& row, bool whole) const {
    rpc::Checkpoint message;
    message.set_number(row.number);
    message.set_state(to_rpc(row.state));
    message.set_created(row.created);
    message.set_completed(row.completed);
    message.set_bytes(row.bytes);
    message.set_frozen_ms(row.frozen_ms);
    message.set_reason(row.reason);
    if (!whole) return message;
    const auto image = catalogue_.image(row.id);
    if (!image || !*image) return message;
    rpc::Image& out = *message.add_images();
    out.set_task((*image)->task);
    out.set_node((*image)->node);
    out.set_path((*image)->path);
    out.set_digest((*image)->digest);
    out.set_bytes((*image)->bytes);
    for (const FileRow& file : (*image)->files) {
        rpc::File& entry = *out.add_files();
        entry.set_path(file.path);
        entry.set_inode(file.inode);
        entry.set_size(file.size);
        entry.set_append(file.append);
        entry.set_stdio(file.stdio);
    }
    return message;
}

rpc::Job Controller::describe(const JobRow& job, bool whole, std::uint32_t only_checkpoint) const {
    rpc::Job message;
    message.set_job_id(job.job_id);
    message.set_uid(job.uid);
    message.set_user(user_name(job.uid));
    message.set_interval_seconds(job.interval_seconds);
    message.set_max_restarts(job.max_restarts);
    message.set_restarts(job.restarts);
    message.set_held_reason(job.held_reason);
    message.set_last_error(job.last_error);
    const auto slurm = slurm_jobs_.find(job.job_id);
    if (slurm != slurm_jobs_.end() && slurm->second.uid == job.uid) message.set_slurm_state(slurm->second.state_name);
    const auto live = live_.find(job.job_id);
    if (live != live_.end() && !job.ended) message.set_node(live->second.node);
    if (const auto rows = catalogue_.checkpoints(job.id))
        for (const CheckpointRow& row : *rows)
            if (only_checkpoint == 0 || row.number == only_checkpoint) *message.add_checkpoints() = describe(row, whole);
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

Result<rpc::ListReply> Controller::list(std::uint32_t job_id, const rpc::Caller& caller) {
    const std::lock_guard lock(mutex_);
    rpc::ListReply reply;
    if (job_id != 0) {
        SCKPT_ASSIGN(const std::optional<JobRow> job, catalogue_.newest_job(job_id));
        if (!job)
            return fail(Errc::not_found,
                        std::format("job {} is not known to sckpt: was it submitted with --ckpt, and has it started?", job_id));
        SCKPT_TRY(may_act(*job, caller));
        *reply.add_jobs() = describe(*job, false, 0);
        return reply;
    }
    SCKPT_ASSIGN(const std::vector<JobRow> rows, catalogue_.jobs(false));
    for (const JobRow& job : rows)
        if (may_act(job, caller)) *reply.add_jobs() = describe(job, false, 0);
    return reply;
}

Result<rpc::ShowReply> Controller::show(std::uint32_t job_id, std::uint32_t checkpoint, const rpc::Caller& caller) {
    const std::lock_guard lock(mutex_);
    SCKPT_ASSIGN(const std::optional<JobRow> job, catalogue_.newest_job(job_id));
    if (!job)
        return fail(Errc::not_found,
                    std::format("job {} is not known to sckpt: was it submitted with --ckpt, and has it started?", job_id));
    SCKPT_TRY(may_act(*job, caller));
    rpc::ShowReply reply;
    *reply.mutable_job() = describe(*job, true, checkpoint);
    if (checkpoint != 0 && reply.job().checkpoints().empty())
        return fail(Errc::not_found,
                    std::format("job {} has no checkpoint {}; sckpt list {} shows those it has", job_id, checkpoint, job_id));
    return reply;
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
