// SPDX-License-Identifier: GPL-3.0-or-later
//
// What nodes are told about checkpoints that are being made.
#include <format>

#include "daemon/controller.h"
#include "rpc/task_name.h"

namespace sckpt {
namespace {

std::uint64_t wire_id(RowId id) { return static_cast<std::uint64_t>(id); }

}  // namespace

// What the orders to all nodes have in common.
Result<> Controller::prepare_order(CheckpointRun& run) const {
    SCKPT_ASSIGN(const std::optional<JobRow> job, catalogue_.job(run.job));
    SCKPT_ASSIGN(const std::optional<CheckpointRow> row, catalogue_.checkpoint(run.id));
    if (!job || !row) return fail(Errc::internal, std::format("checkpoint row {} has gone", run.id));
    if (row->base != 0) {
        SCKPT_ASSIGN(std::vector<ImageRow> images, catalogue_.images(row->base));
        for (ImageRow& image : images) run.base.emplace(image.task, std::move(image));
        run.base_row = row->base;
    }
    rpc::DumpOrder& order = run.order.emplace();
    order.set_checkpoint_id(wire_id(run.id));
    order.set_job_id(job->job_id);
    order.set_uid(job->uid);
    order.set_directory(job_directory(job->job_id, job->id));
    order.set_number(row->number);
    order.set_store_id(catalogue_.store_id());
    order.set_cluster(cluster_);
    order.set_user(job->user);
    order.set_account(job->account);
    order.set_submit_time(job->submit_time);
    order.set_restart_count(job->slurm_restart_count);
    order.set_job_row(job->id);
    order.set_interval_seconds(job->interval_seconds);
    order.set_max_restarts(job->max_restarts);
    return {};
}

Result<rpc::DumpOrder> Controller::dump_order(CheckpointRun& run, const std::vector<std::string>& tasks) const {
    if (!run.order) SCKPT_TRY(prepare_order(run));
    rpc::DumpOrder order = *run.order;
    order.set_script(tasks.size() == 1 && tasks.front() == kBatchTask);
    order.set_urgent(run.urgent);
    for (const std::string& task : tasks) {
        rpc::ImageOrder& image = *order.add_images();
        image.set_task(task);
        if (const auto name = parse_task_name(task)) {
            image.set_step_key(name->step_key);
            image.set_task_id(name->rank);
        }
        const auto base = run.base.find(task);
        if (base == run.base.end()) continue;
        image.mutable_base()->set_path(base->second.manifest);
        image.mutable_base()->set_digest(base->second.digest);
        image.mutable_base()->set_checkpoint_id(wire_id(run.base_row));
        image.set_last_bytes(base->second.bytes);
    }
    return order;
}

// False: the node does not get it.
bool Controller::send_dump(CheckpointRun& run, const std::string& node, const std::vector<std::string>& tasks) {
    auto order = dump_order(run, tasks);
    if (!worked(order)) return false;
    rpc::ControllerMessage message;
    *message.mutable_dump() = std::move(*order);
    return send(node, std::move(message));
}

void Controller::send_script(const std::string& node, RowId checkpoint) {
    rpc::ControllerMessage message;
    message.mutable_script()->set_checkpoint_id(wire_id(checkpoint));
    send(node, std::move(message));
}

void Controller::send_release(const CheckpointRun& run, const std::string& node) {
    rpc::ControllerMessage message;
    rpc::ReleaseOrder& order = *message.mutable_release();
    order.set_checkpoint_id(wire_id(run.id));
    order.set_images(static_cast<std::uint32_t>(run.generation.images().size()));
    order.set_leader(run.generation.leader());
    const auto leader = run.generation.images().find(order.leader());
    if (leader != run.generation.images().end() && leader->second.node == node)
        for (const EndedTask& task : run.generation.ended()) {
            rpc::EndedTask& ended = *order.add_ended();
            ended.set_task(task.task);
            ended.set_wait_status(task.wait_status);
        }
    send(node, std::move(message));
    if (run.urgent) send_urgent(node, run.id);
}

void Controller::send_grants() {
    for (const DrainGrants::Grant& grant : grants_.take()) {
        rpc::ControllerMessage message;
        message.mutable_grant()->set_checkpoint_id(wire_id(grant.checkpoint));
        message.mutable_grant()->set_bytes_per_second(grant.bytes_per_second);
        send(grant.node, std::move(message));
    }
}

void Controller::send_drop(const std::string& node, RowId checkpoint) {
    rpc::ControllerMessage message;
    message.mutable_drop()->set_checkpoint_id(wire_id(checkpoint));
    send(node, std::move(message));
}

void Controller::send_stored(const std::string& node, RowId checkpoint) {
    rpc::ControllerMessage message;
    message.mutable_stored()->set_checkpoint_id(wire_id(checkpoint));
    send(node, std::move(message));
}

void Controller::send_urgent(const std::string& node, RowId checkpoint) {
    rpc::ControllerMessage message;
    message.mutable_urgent()->set_checkpoint_id(wire_id(checkpoint));
    send(node, std::move(message));
}

// A node speaks of a checkpoint that nobody awaits: it is complete, and the word of it was lost, or it was dropped.
void Controller::settle(const std::string& node, RowId checkpoint) {
    const auto row = catalogue_.checkpoint(checkpoint);
    if (!worked(row)) return;  // it asks again when it connects the next time
    if (*row && (*row)->state == CheckpointState::complete) send_stored(node, checkpoint);
    else send_drop(node, checkpoint);
}

}  // namespace sckpt
