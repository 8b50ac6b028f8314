// SPDX-License-Identifier: GPL-3.0-or-later
//
// Checkpoints while they are made: ordered, dumped, drained, complete or dropped.
#include <algorithm>
#include <format>

#include "daemon/controller.h"

namespace sckpt {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

// Past the node's own deadlines for a dump (to have room for it, and to make it), the node is not heard of any more.
constexpr seconds kDumpGrace{60};

// How long a restart waits for a newer image that is being stored.
constexpr seconds kDrainWait{120};

std::uint64_t wire_id(RowId id) { return static_cast<std::uint64_t>(id); }

}  // namespace

std::shared_ptr<Generation> Controller::generation_of_job(std::uint32_t job_id) const {
    for (const auto& [id, generation] : generations_)
        if (generation->job_id == job_id) return generation;
    return nullptr;
}

Result<std::shared_ptr<Generation>> Controller::begin_generation(const JobRow& job, LiveTask& live, bool urgent) {
    const auto node = nodes_.find(live.node);
    if (node == nodes_.end() || !node->second.outbox)
        return fail(Errc::unavailable, std::format("node {} of job {} has no connection to sckptctld", live.node, job.job_id));
    if (!node->second.info.backend_usable())
        return fail(Errc::unsupported, std::format("node {} cannot make checkpoints: {}", live.node, node->second.info.backend_reason()));
    ImageRow image;
    image.task = "batch";
    image.node = live.node;
    SCKPT_ASSIGN(const CheckpointRow row, catalogue_.begin_checkpoint(job.id, image, urgent, unix_now()));
    rpc::ControllerMessage message;
    auto order = dump_order(job, live, row);
    if (!order) {
        worked(catalogue_.failed(row.id, order.error().text));
        return std::unexpected(order.error());
    }
    *message.mutable_dump() = std::move(*order);

    auto generation = std::make_shared<Generation>();
    generation->id = row.id;
    generation->job = job.id;
    generation->job_id = job.job_id;
    generation->node = live.node;
    generation->urgent = urgent;
    generation->progress.set_phase(rpc::CreateProgress::ORDERED);
    generation->progress.set_checkpoint(row.number);
    generation->dump_deadline = steady_clock::now() + seconds(2 * config_.node.dump_timeout_seconds) + kDumpGrace;
    generations_[row.id] = generation;
    send(live.node, std::move(message));
    schedule_next(live, job);
    announce();
    return generation;
}

Result<rpc::DumpOrder> Controller::dump_order(const JobRow& job, const LiveTask& live, const CheckpointRow& row) const {
    rpc::DumpOrder order;
    order.set_checkpoint_id(wire_id(row.id));
    order.set_job_id(job.job_id);
    order.set_step_id(live.task.step_id());
    order.set_task_id(live.task.task_id());
    order.set_uid(job.uid);
    order.set_directory(job_directory(job));
    order.set_number(row.number);
    order.set_urgent(row.urgent);
    if (row.base != 0) {
        SCKPT_ASSIGN(const std::optional<ImageRow> base, catalogue_.image(row.base));
        if (!base) return fail(Errc::internal, std::format("checkpoint row {} has no image", row.base));
        order.mutable_base()->set_path(base->manifest);
        order.mutable_base()->set_digest(base->digest);
        order.mutable_base()->set_checkpoint_id(wire_id(row.base));
    }
    SCKPT_ASSIGN(const std::vector<CheckpointRow> earlier, catalogue_.checkpoints(job.id));
    for (const CheckpointRow& checkpoint : earlier)
        if (checkpoint.bytes != 0) order.set_last_bytes(checkpoint.bytes);
    order.set_cluster(cluster_);
    order.set_user(job.user);
    order.set_account(job.account);
    order.set_submit_time(job.submit_time);
    order.set_restart_count(live.task.restart_count());
    order.set_job_row(job.id);
    order.set_interval_seconds(job.interval_seconds);
    order.set_max_restarts(job.max_restarts);
    return order;
}

Result<Controller::Watch> Controller::create(std::uint32_t job_id, bool urgent, const rpc::Caller& caller) {
    const std::lock_guard lock(mutex_);
    SCKPT_ASSIGN(const JobRow job, job_for(job_id, caller));
    const auto live = live_.find(job_id);
    if (live == live_.end())
        return fail(Errc::busy, std::format("job {} is not running under sckpt now; squeue -j {} shows its state", job_id, job_id));
    auto generation = generation_of_job(job_id);
    if (generation && urgent) make_urgent(*generation);
    if (generation && generation->progress.phase() == rpc::CreateProgress::CAPTURED)
        return fail(Errc::exists, "");  // the service waits for it, and asks again
    if (!generation) {
        SCKPT_ASSIGN(generation, begin_generation(job, live->second, urgent));
        note(job.id, std::format("checkpoint {} ordered by uid {}", generation->progress.checkpoint(), caller.uid));
    }
    return Watch(this, generation);
}

Result<std::optional<rpc::CreateProgress>> Controller::Watch::next() {
    std::unique_lock lock(controller_->mutex_);
    const auto news = [&] { return generation_->finished || generation_->progress.SerializeAsString() != last_; };
    if (!controller_->changed_.wait_for(lock, seconds(1), news)) return std::optional<rpc::CreateProgress>();
    last_ = generation_->progress.SerializeAsString();
    finished_ = generation_->finished;
    if (generation_->error) return std::unexpected(*generation_->error);
    return std::optional(generation_->progress);
}

// Somebody waits for it: a requeue, or a restart.
void Controller::make_urgent(Generation& generation) {
    if (generation.urgent) return;
    generation.urgent = true;
    worked(catalogue_.set_urgent(generation.id));
    grants_.set_urgent(generation.id);
    if (generation.progress.phase() == rpc::CreateProgress::CAPTURED) send_urgent(generation.node, generation.id);
    send_grants();
}

void Controller::finish_generation(const std::shared_ptr<Generation>& generation, std::optional<Error> error) {
    generation->error = std::move(error);
    generation->finished = true;
    generations_.erase(generation->id);
    waiting_.erase(generation->id);
    grants_.end(generation->id);
    send_grants();
    announce();
}

void Controller::drop_generation(RowId checkpoint, const std::string& reason) {
    const auto found = generations_.find(checkpoint);
    if (found == generations_.end()) return;
    const std::shared_ptr<Generation> generation = found->second;
    const std::uint32_t number = generation->progress.checkpoint();
    worked(catalogue_.failed(checkpoint, reason), "dropping a checkpoint");
    worked(catalogue_.set_job_error(generation->job, std::format("checkpoint {}: {}", number, reason)));
    note(generation->job, std::format("checkpoint {} dropped: {}", number, reason));
    send_drop(generation->node, checkpoint);
    finish_generation(generation, Error{Errc::io, std::format("checkpoint {} of job {} was dropped: {}. The job runs on, and its earlier "
                                                              "complete checkpoints, if any, stay as they are",
                                                              number, generation->job_id, reason)});
}

void Controller::abandon_unfinished(const JobRow& job, const std::string& reason) {
    while (const auto generation = generation_of_job(job.job_id)) drop_generation(generation->id, reason);
}

void Controller::dump_done(const std::string& node, const rpc::DumpDone& done) {
    const RowId id = static_cast<RowId>(done.checkpoint_id());
    const auto found = generations_.find(id);
    if (found == generations_.end()) return settle(node, id);
    if (!done.ok()) return drop_generation(id, done.error());
    const std::shared_ptr<Generation> generation = found->second;
    if (generation->progress.phase() == rpc::CreateProgress::CAPTURED) return;  // told twice
    if (auto stored = catalogue_.captured(id, done.bytes(), done.frozen_ms(), to_files(done.files())); !stored)
        return drop_generation(id, "the catalogue fails: " + stored.error().text);
    worked(catalogue_.set_fast_node(id, node));
    generation->progress.set_phase(rpc::CreateProgress::CAPTURED);
    generation->progress.set_bytes(done.bytes());
    generation->progress.set_frozen_ms(done.frozen_ms());
    generation->progress.mutable_drain()->set_phase(rpc::Drain::QUEUED);
    generation->progress.mutable_drain()->set_bytes_total(done.bytes());
    if (generation->urgent) send_urgent(node, id);
    announce();
}

void Controller::drain_request(const std::string& node, const rpc::DrainRequest& request) {
    const RowId id = static_cast<RowId>(request.checkpoint_id());
    const auto found = generations_.find(id);
    if (found == generations_.end()) return settle(node, id);
    grants_.ask(id, node, request.urgent() || found->second->urgent);
    send_grants();
}

void Controller::drain_progress(const rpc::DrainProgress& progress) {
    const auto found = generations_.find(static_cast<RowId>(progress.checkpoint_id()));
    if (found == generations_.end()) return;
    *found->second->progress.mutable_drain() = progress.drain();
    if (progress.drain().phase() == rpc::Drain::WAITING) {  // others may go on; the node asks again when it tries again
        grants_.end(found->first);
        send_grants();
    }
    announce();
}

void Controller::store_done(const std::string& node, const rpc::StoreDone& done) {
    const RowId id = static_cast<RowId>(done.checkpoint_id());
    const Result<StoredImage> image = to_stored(done.image());
    const auto found = generations_.find(id);
    if (found == generations_.end()) {
        if (done.ok() && worked(image)) worked(keeper_.discard({*image}));
        return settle(node, id);
    }
    if (!done.ok()) return drop_generation(id, done.error());
    if (!image) return drop_generation(id, "its node told of an image that cannot be: " + image.error().text);
    const std::shared_ptr<Generation> generation = found->second;
    if (auto stored = catalogue_.complete(id, *image, unix_now()); !stored) {
        drop_generation(id, "the catalogue fails: " + stored.error().text);
        worked(keeper_.discard({*image}));
        return;
    }
    send_stored(node, id);
    generation->progress.set_phase(rpc::CreateProgress::COMPLETE);
    generation->progress.set_bytes(image->plain_bytes);
    generation->progress.clear_drain();
    note(generation->job, std::format("checkpoint {} complete: {} bytes, {} of them new, frozen {} ms", generation->progress.checkpoint(),
                                      image->plain_bytes, image->new_bytes, generation->progress.frozen_ms()));
    finish_generation(generation, std::nullopt);
    worked(catalogue_.set_job_error(generation->job, ""));
    keeper_.wake();
}

void Controller::evicted(const std::string& node, RowId checkpoint) {
    const auto image = catalogue_.image(checkpoint);
    if (worked(image) && *image && (*image)->fast_node == node) worked(catalogue_.set_fast_node(checkpoint, ""));
}

// True while an image of the job, newer than what is complete, is on its way into the store from a living node: a restart waits for it, for
// kDrainWait at most, and it goes before others.
bool Controller::drain_is_near(const JobRow& job) {
    const auto generation = generation_of_job(job.job_id);
    if (!generation || generation->progress.phase() != rpc::CreateProgress::CAPTURED) return false;
    const auto node = nodes_.find(generation->node);
    if (node == nodes_.end() || !node->second.outbox) return false;
    make_urgent(*generation);
    const auto [entry, is_new] = waiting_.try_emplace(generation->id, steady_clock::now());
    return steady_clock::now() - entry->second < kDrainWait;
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
