// SPDX-License-Identifier: GPL-3.0-or-later
//
// Checkpoints while they are made. What is to be done when is Generation's business (daemon/generation.h); here its orders are carried out,
// and what nodes, the catalogue and the clock say is fed to it.
#include <algorithm>
#include <format>
#include <utility>

#include "daemon/controller.h"
#include "daemon/running_job.h"
#include "image_store/names.h"
#include "rpc/task_name.h"

namespace sckpt {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;
using What = GenerationOrder::What;

// How long a restart waits for a newer image that is being stored.
constexpr seconds kDrainWait{120};

bool is_captured(const CheckpointRun& run) {
    return run.generation.phase() == GenerationPhase::storing || run.generation.phase() == GenerationPhase::completing;
}

std::uint32_t longest_frozen(const CheckpointRun& run) {
    std::uint32_t longest = 0;
    for (const auto& [task, image] : run.generation.images()) longest = std::max(longest, image.frozen_ms);
    for (const auto& [task, image] : run.generation.stored()) longest = std::max(longest, image.frozen_ms);
    return longest;
}

// What a job's drain writes is in its directory, and so is what it refers to.
bool is_in_directory(const StoredImage& image, const std::string& directory) {
    return directory_of(image.manifest) == directory &&
           std::ranges::all_of(image.packs, [&](const PackUse& pack) { return directory_of(pack.path) == directory; });
}

}  // namespace

Controller::Run Controller::run_of_job(std::uint32_t job_id) const {
    for (const auto& [id, run] : runs_)
        if (run->job_id == job_id) return run;
    return nullptr;
}

Result<> Controller::check_not_suspended(std::uint32_t job_id) {
    const auto slurm = slurm_job(job_id);
    if (!slurm || slurm->state != SlurmJobState::suspended) return {};
    return fail(Errc::busy, std::format("job {} is suspended, and its processes cannot get ready for a checkpoint: `scontrol resume {}` first",
                                        job_id, job_id));
}

// As of the last look at Slurm's list; the node looks again.
bool Controller::is_suspended(const JobRow& job) const {
    const auto slurm = slurm_jobs_.find(job.job_id);
    return slurm != slurm_jobs_.end() && slurm->second.uid == job.uid && slurm->second.state == SlurmJobState::suspended;
}

// ---------------------------------------------------------------- the beginning

Result<Controller::Run> Controller::begin_checkpoint(const JobRow& job, LiveJob& live, bool urgent) {
    if (!live.has_script())
        return fail(Errc::unsupported, std::format("job {} has no batch script, so only its steps can be checkpointed: `sckpt create {}.STEP`",
                                                   job.job_id, job.job_id));
    const auto node = nodes_.find(live.node);
    if (node == nodes_.end() || !node->second.outbox)
        return fail(Errc::unavailable, std::format("node {} of job {} has no connection to sckptctld", live.node, job.job_id));
    if (!node->second.info.backend_usable())
        return fail(Errc::unsupported, std::format("node {} cannot make checkpoints: {}", live.node, node->second.info.backend_reason()));
    if (catalogue_.store_id().empty()) return fail(Errc::unavailable, "there is no store yet: `sckpt status` tells an administrator what to do");
    schedule_next(live, job);
    return begin_run(job, Generation::of_job(live.node, seconds(config_.node.dump_timeout_seconds)), "", urgent);
}

Result<Controller::Run> Controller::begin_step_checkpoint(const JobRow& job, const LiveJob& live, std::uint32_t key, bool urgent) {
    const auto step = live.steps.find(key);
    if (step == live.steps.end()) return fail(Errc::not_found, std::format("job {} has no such step now", job.job_id));
    std::vector<StepRank> ranks;
    for (const auto& [number, rank] : step->second.ranks()) ranks.push_back(rank);
    const LiveStep whole{key, step->second.tasks};
    SCKPT_ASSIGN(Generation generation, Generation::of_steps({&whole, 1}, ranks, seconds(config_.node.dump_timeout_seconds)));
    return begin_run(job, std::move(generation), step_name(key), urgent);
}

Result<Controller::Run> Controller::begin_run(const JobRow& job, Generation generation, const std::string& step, bool urgent) {
    settle_nodes();  // what they held when they connected says nothing of a checkpoint that is begun now
    SCKPT_ASSIGN(const CheckpointRow row, catalogue_.begin_checkpoint(job.id, urgent, unix_now(), step));
    auto run = std::make_shared<CheckpointRun>(row.id, job.id, job.job_id, std::move(generation));
    run->step = step;
    run->urgent = urgent;
    run->progress.set_phase(rpc::CreateProgress::ORDERED);
    run->progress.set_checkpoint(row.number);
    run->progress.set_step(step);
    runs_[row.id] = run;
    carry_out(run, run->generation.begin());
    if (run->error) return std::unexpected(*run->error);
    return run;
}

Result<Controller::Watch> Controller::create(std::uint32_t job_id, std::optional<std::uint32_t> step_id, bool urgent,
                                             const rpc::Caller& caller) {
    const std::lock_guard lock(mutex_);
    SCKPT_ASSIGN(const JobRow job, job_for(job_id, caller));
    LiveJob* live = live_.find(job_id);
    if (live == nullptr)
        return fail(Errc::busy, std::format("job {} is not running under sckpt now; squeue -j {} shows its state", job_id, job_id));
    std::optional<std::uint32_t> key;
    if (step_id) {
        key = live_.step_key(job_id, *step_id);
        if (!key) return fail(Errc::not_found, std::format("job {} has no running step {} under sckpt; squeue -s -j {} shows its steps",
                                                           job_id, *step_id, job_id));
    }
    Run run = run_of_job(job_id);
    if (run && urgent) make_urgent(*run);
    const bool same = run && run->step == (key ? step_name(*key) : "");
    if (run && (!same || is_captured(*run))) return fail(Errc::exists, "");  // the service waits for it, and asks again
    if (!run) {
        SCKPT_ASSIGN(run, key ? begin_step_checkpoint(job, *live, *key, urgent) : begin_checkpoint(job, *live, urgent));
        note(job.id, std::format("checkpoint {} {}ordered by uid {}", run->progress.checkpoint(),
                                 step_id ? std::format("of step {} ", *step_id) : "", caller.uid));
    }
    return Watch(this, run);
}

Result<std::optional<rpc::CreateProgress>> Controller::Watch::next() {
    std::unique_lock lock(controller_->mutex_);
    const auto news = [&] { return run_->finished || run_->progress.SerializeAsString() != last_; };
    if (!controller_->changed_.wait_for(lock, seconds(1), news)) return std::optional<rpc::CreateProgress>();
    last_ = run_->progress.SerializeAsString();
    finished_ = run_->finished;
    if (run_->error) return std::unexpected(*run_->error);
    return std::optional(run_->progress);
}

// ---------------------------------------------------------------- orders

// Each order may lead to more, which come after those that are waiting already.
void Controller::carry_out(const Run& run, GenerationOrders orders) {
    for (std::size_t at = 0; at < orders.size(); ++at) {
        GenerationOrders more = carry_out_one(run, GenerationOrder(orders[at]));
        orders.insert(orders.end(), std::make_move_iterator(more.begin()), std::make_move_iterator(more.end()));
    }
    const std::pair now(run->generation.phase(), run->generation.limit());
    if (std::exchange(run->timed, now) != now) run->timed_since = steady_clock::now();
    announce();
}

GenerationOrders Controller::carry_out_one(const Run& run, const GenerationOrder& order) {
    Generation& generation = run->generation;
    switch (order.what) {
        case What::hold_script: return send_dump(*run, order.node, {kBatchTask}) ? GenerationOrders() : generation.detached(order.node);
        case What::dump_tasks: return send_dump(*run, order.node, order.tasks) ? GenerationOrders() : generation.detached(order.node);
        case What::ask_ranks: {
            const LiveJob* live = live_.find(run->job_id);
            return live ? generation.ranks_known(live->ranks()) : GenerationOrders();
        }
        case What::dump_script: send_script(order.node, run->id); return {};
        case What::capture: return capture(run);
        case What::release: send_release(*run, order.node); return {};
        case What::complete: return complete(run);
        case What::stored: send_stored(order.node, run->id); return {};
        case What::fail: dropped(run); return {};
        case What::drop: send_drop(order.node, run->id); return {};
    }
    std::unreachable();
}

GenerationOrders Controller::capture(const Run& run) {
    std::vector<CapturedImage> images;
    std::uint64_t bytes = 0;
    for (const auto& [task, image] : run->generation.images()) {
        images.push_back({task, image.node, image.bytes, image.files});
        bytes += image.bytes;
    }
    if (const auto stored = catalogue_.captured(run->id, images, run->generation.ended()); !stored)
        return run->generation.capture_failed(stored.error().text);
    run->progress.set_phase(rpc::CreateProgress::CAPTURED);
    run->progress.set_bytes(bytes);
    run->progress.set_frozen_ms(longest_frozen(*run));
    *run->progress.mutable_drain() = run->drains.sum(bytes);
    return run->generation.captured();
}

GenerationOrders Controller::complete(const Run& run) {
    std::vector<StoredTask> images;
    std::uint64_t plain = 0, fresh = 0;
    for (const auto& [task, stored] : run->generation.stored()) {
        images.push_back({task, stored.image, stored.frozen_ms});
        plain += stored.image.plain_bytes;
        fresh += stored.image.new_bytes;
    }
    if (const auto done = catalogue_.complete(run->id, images, unix_now()); !done) {
        std::vector<StoredImage> garbage;
        for (const StoredTask& image : images) garbage.push_back(image.image);
        worked(keeper_.discard(garbage));
        if (done.error().code == Errc::corrupt) make_due(run->job_id);
        return run->generation.complete_failed(done.error().text);
    }
    run->progress.set_phase(rpc::CreateProgress::COMPLETE);
    run->progress.set_bytes(plain);
    run->progress.set_frozen_ms(longest_frozen(*run));
    run->progress.clear_drain();
    note(run->job, std::format("checkpoint {} complete: {}{} bytes, {} of them new, frozen {} ms", run->progress.checkpoint(),
                               images.size() > 1 ? std::format("{} images, ", images.size()) : "", plain, fresh, run->progress.frozen_ms()));
    GenerationOrders orders = run->generation.completed();
    finish(run, std::nullopt);
    worked(catalogue_.set_job_error(run->job, ""));
    keeper_.wake();
    return orders;
}

// Parts that were stored already are nobody's.
void Controller::dropped(const Run& run) {
    const std::uint32_t number = run->progress.checkpoint();
    const std::string& why = run->generation.why();
    worked(catalogue_.failed(run->id, why), "dropping a checkpoint");
    worked(catalogue_.set_job_error(run->job, std::format("checkpoint {}: {}", number, why)));
    note(run->job, std::format("checkpoint {} dropped: {}", number, why));
    std::vector<StoredImage> garbage;
    for (const auto& [task, stored] : run->generation.stored()) garbage.push_back(stored.image);
    if (!garbage.empty()) worked(keeper_.discard(garbage));
    finish(run, Error{Errc::io, std::format("checkpoint {} of job {} was dropped: {}. The job runs on, and its earlier complete checkpoints, "
                                            "if any, stay as they are",
                                            number, run->job_id, why)});
}

void Controller::finish(const Run& run, std::optional<Error> error) {
    run->error = std::move(error);
    run->finished = true;
    runs_.erase(run->id);
    waiting_.erase(run->id);
    grants_.end(run->id);
    send_grants();
    announce();
}

// Somebody waits for it: a requeue, or a restart.
void Controller::make_urgent(CheckpointRun& run) {
    if (run.urgent) return;
    run.urgent = true;
    worked(catalogue_.set_urgent(run.id));
    grants_.set_urgent(run.id);
    if (is_captured(run))
        for (const std::string& node : run.generation.nodes()) send_urgent(node, run.id);
    send_grants();
}

// The next checkpoint of the job, if it makes any by itself, does not wait for its interval.
void Controller::make_due(std::uint32_t job_id) {
    LiveJob* live = live_.find(job_id);
    if (live != nullptr && live->due != steady_clock::time_point::max()) live->due = steady_clock::now();
}

void Controller::abandon_unfinished(const JobRow& job, const std::string& reason) {
    while (const Run run = run_of_job(job.job_id)) {
        carry_out(run, run->generation.cancelled(reason));
        if (!run->finished) return;  // it is being made complete in this very moment
    }
}

// ---------------------------------------------------------------- what nodes say

// A task of the job has started or ended.
void Controller::rank_changed(const rpc::Task& task) {
    const Run run = run_of_job(task.job_id());
    if (!run || run->generation.phase() != GenerationPhase::gathering) return;
    const std::optional<StepRank> rank = live_.rank_of(task);  // what counts of the node's word
    if (rank) carry_out(run, run->generation.ranks_known({&*rank, 1}));
}

void Controller::steps_found(const std::string& node, const rpc::StepsFound& found) {
    const auto run = runs_.find(static_cast<RowId>(found.checkpoint_id()));
    if (run == runs_.end()) return settle(node, static_cast<RowId>(found.checkpoint_id()));
    std::vector<LiveStep> steps;
    for (const rpc::StepState& step : found.steps()) steps.push_back({step.key(), step.tasks()});
    const Run kept = run->second;
    carry_out(kept, kept->generation.steps_found(node, steps));
}

// A job that Slurm ends gets signals first, and words in its output, and is then no moment to go on from. Slurm is asked after the dump: if the
// job runs on then, nothing of its end was in the image. Without an answer it counts: a slurmctld that is away ends no job.
void Controller::dump_done(const std::string& node, const rpc::DumpDone& done) {
    std::unique_lock lock(mutex_);
    if (waits_for_rebuild()) return;  // its node is asked again when its stock is taken
    const RowId id = static_cast<RowId>(done.checkpoint_id());
    const auto found = runs_.find(id);
    if (found == runs_.end()) return settle(node, id);
    const Run run = found->second;
    if (!done.ok()) return carry_out(run, run->generation.failed(node, done.error()));
    if (done.script() || !run->step.empty()) {  // what comes last before the capture
        const auto job = catalogue_.job(run->job);
        lock.unlock();
        const Result<SlurmJob> slurm = slurm_job(run->job_id);
        lock.lock();
        if (run->finished) return settle(node, id);
        const bool ends = slurm ? worked(job) && *job && !runs_on(*slurm, (*job)->slurm_restart_count) : slurm.error().code == Errc::not_found;
        if (ends && !is_captured(*run)) return carry_out(run, run->generation.cancelled("Slurm was ending the job when it was dumped"));
    }
    std::vector<GenerationImage> images;
    std::vector<EndedTask> ended;
    for (const rpc::DumpedImage& image : done.images()) {
        if (image.ended()) ended.push_back({image.task(), image.wait_status()});
        else images.push_back({image.task(), node, image.bytes(), image.frozen_ms(), to_files(image.files())});
    }
    if (!done.script()) return carry_out(run, run->generation.tasks_dumped(node, std::move(images), std::move(ended)));
    if (images.size() != 1) return carry_out(run, run->generation.failed(node, "sckptd tells of no image of the batch script"));
    carry_out(run, run->generation.script_dumped(node, images.front()));
}

void Controller::drain_request(const std::string& node, const rpc::DrainRequest& request) {
    const RowId id = static_cast<RowId>(request.checkpoint_id());
    const auto found = runs_.find(id);
    if (found == runs_.end() || !found->second->generation.has_part(node)) return settle(node, id);
    grants_.ask(id, node, request.urgent() || found->second->urgent);
    send_grants();
}

void Controller::drain_progress(const std::string& node, const rpc::DrainProgress& progress) {
    const auto found = runs_.find(static_cast<RowId>(progress.checkpoint_id()));
    if (found == runs_.end() || !found->second->generation.has_part(node)) return;
    CheckpointRun& run = *found->second;
    run.drains.set(node, progress.drain());
    if (is_captured(run)) *run.progress.mutable_drain() = run.drains.sum(run.progress.bytes());
    if (progress.drain().phase() == rpc::Drain::WAITING) {  // others may go on; the node asks again when it tries again
        grants_.end(run.id, node);
        send_grants();
    }
    announce();
}

void Controller::store_done(const std::string& node, const rpc::StoreDone& done) {
    const RowId id = static_cast<RowId>(done.checkpoint_id());
    std::vector<GenerationStored> images;
    std::vector<StoredImage> files;
    std::optional<Error> wrong;
    for (const rpc::StoredTask& task : done.images()) {
        auto image = to_stored(task.image());
        if (!image) {
            wrong = image.error();
            continue;
        }
        files.push_back(*image);
        images.push_back({task.task(), std::move(*image), task.frozen_ms()});
    }
    const auto found = runs_.find(id);
    if (found == runs_.end()) {
        const auto known = catalogue_.images(id);  // nothing counts that a node says of other nodes' images
        const bool its_own = worked(known) && std::ranges::contains(*known, node, &ImageRow::node);
        if (its_own && !files.empty()) worked(keeper_.discard(files));
        return settle(node, id);
    }
    const Run run = found->second;
    grants_.end(id, node);
    send_grants();
    if (!done.ok()) return carry_out(run, run->generation.failed(node, done.error()));
    const std::string directory = job_directory(run->job_id, run->job);
    if (!wrong && !std::ranges::all_of(files, [&](const StoredImage& image) { return is_in_directory(image, directory); }))
        wrong = Error{Errc::invalid, "its files are not in the job's directory"};
    if (wrong) return carry_out(run, run->generation.failed(node, "its node told of an image that cannot be: " + wrong->text));
    run->drains.forget(node);
    carry_out(run, run->generation.part_stored(node, std::move(images)));
}

// True while images of the job, newer than what is complete, are on their way into the store from living nodes: a restart waits for them, for
// kDrainWait at most, and they go before others.
bool Controller::drain_is_near(const JobRow& job) {
    const Run run = run_of_job(job.job_id);
    if (!run || !run->step.empty() || !is_captured(*run)) return false;
    for (const std::string& name : run->generation.nodes()) {
        const auto node = nodes_.find(name);
        if (node == nodes_.end() || !node->second.outbox) return false;
    }
    make_urgent(*run);
    const auto [entry, is_new] = waiting_.try_emplace(run->id, steady_clock::now());
    return steady_clock::now() - entry->second < kDrainWait;
}

}  // namespace sckpt
