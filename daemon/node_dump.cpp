// SPDX-License-Identifier: GPL-3.0-or-later
//
// A checkpoint on its node: room is made in the fast tier, the backend dumps the tree into it, the job goes on, the image is drained into
// the store, and stays as a cache until its room is needed or its checkpoint is removed.
#include <algorithm>
#include <ctime>
#include <filesystem>
#include <format>

#include "common/log.h"
#include "daemon/background.h"
#include "daemon/dump_size.h"
#include "daemon/image_needs.h"
#include "daemon/messages.h"
#include "daemon/node_agent.h"
#include "daemon/slurm_api.h"

namespace sckpt {
namespace {

using std::chrono::steady_clock;

std::string task_name(const rpc::DumpOrder& order) {
    return order.step_id() == local::kBatchStep ? "batch" : std::format("{}.{}", order.step_id(), order.task_id());
}

ImageIdentity identity_of(const rpc::DumpOrder& order) {
    ImageIdentity identity;
    identity.cluster = order.cluster();
    identity.user = order.user();
    identity.account = order.account();
    identity.task = task_name(order);
    identity.job_id = order.job_id();
    identity.uid = order.uid();
    identity.submit_time = order.submit_time();
    identity.restart_count = order.restart_count();
    identity.job_row = order.job_row();
    identity.checkpoint_row = static_cast<std::int64_t>(order.checkpoint_id());
    identity.checkpoint = order.number();
    identity.created = std::time(nullptr);
    identity.interval_seconds = order.interval_seconds();
    identity.max_restarts = order.max_restarts();
    return identity;
}

rpc::NodeMessage dump_failed(const rpc::DumpOrder& order, const std::string& why) {
    log_warning("dump of job {}: {}", order.job_id(), why);
    rpc::NodeMessage message;
    message.mutable_dump_done()->set_checkpoint_id(order.checkpoint_id());
    message.mutable_dump_done()->set_error(why);
    return message;
}

rpc::NodeMessage dump_done(const HeldImage& image) {
    rpc::NodeMessage message;
    rpc::DumpDone& done = *message.mutable_dump_done();
    done.set_checkpoint_id(image.id());
    done.set_ok(true);
    done.set_bytes(image.bytes);
    done.set_frozen_ms(image.identity.frozen_ms);
    *done.mutable_files() = to_message(image.user_files);
    return message;
}

}  // namespace

// ---------------------------------------------------------------- dumps

void NodeAgent::begin_dump(const rpc::DumpOrder& order) {
    const std::uint64_t id = order.checkpoint_id();
    {
        const std::lock_guard lock(mutex_);
        if (held_.contains(id) || !dumps_.insert(id).second) return;  // ordered twice
    }
    if (in_background([this, order] { dump(order); })) return;
    link_.send(dump_failed(order, "this node has no thread for it"));
    const std::lock_guard lock(mutex_);
    dumps_.erase(id);
}

void NodeAgent::dump(const rpc::DumpOrder& order) {
    const std::uint64_t id = order.checkpoint_id();
    const Result<HeldImage> image = capture(order);
    if (image) hold(*image);
    else link_.send(dump_failed(order, image.error().text));
    const std::lock_guard lock(mutex_);
    dumps_.erase(id);
    unwanted_.erase(id);
    dump_ended_.notify_all();  // a drop may have been waiting
}

Result<std::shared_ptr<SupervisedTask>> NodeAgent::task_to_dump(const rpc::DumpOrder& order) const {
    const std::lock_guard lock(mutex_);
    const auto found = tasks_.find({order.uid(), order.job_id(), order.step_id(), order.task_id()});
    if (found == tasks_.end() || found->second->root == 0)
        return fail(Errc::not_found, "its batch script does not run under sckpt on this node (any more)");
    return found->second;
}

Result<HeldImage> NodeAgent::capture(const rpc::DumpOrder& order) {
    SCKPT_ASSIGN(const std::shared_ptr<SupervisedTask> task, task_to_dump(order));
    if (!probe_.usable) return fail(Errc::unsupported, probe_.reason);
    const auto deadline = steady_clock::now() + std::chrono::seconds(config_.node.dump_timeout_seconds);  // to begin with it
    SCKPT_TRY(wait_for_leftovers(deadline));
    const std::lock_guard one_at_a_time(task->dumping);
    SCKPT_ASSIGN(const std::uint64_t expected, expected_dump_bytes(task->root, order.last_bytes()));
    SCKPT_ASSIGN(FastTier::Reservation room, tier_->reserve(HeldImage::fast_name_of(order.checkpoint_id()), expected, deadline));
    {
        const std::lock_guard lock(mutex_);
        if (unwanted_.contains(order.checkpoint_id())) return fail(Errc::busy, "the checkpoint was dropped before its dump began");
    }
    SCKPT_ASSIGN(const DumpReport report, dump_task(order, *task, room.directory()));
    SCKPT_ASSIGN(const HeldImage image, describe(order, report));
    SCKPT_TRY(save(image));  // from here on it is an image, also after a restart of sckptd
    room.keep();
    return image;
}

Result<DumpReport> NodeAgent::dump_task(const rpc::DumpOrder& order, const SupervisedTask& task, const std::string& directory) {
    SCKPT_TRY(make_directories(directory, 0700));
    DumpRequest request;
    request.root = task.root;
    request.supervisor = task.supervisor;
    request.uid = task.uid;
    request.directory = directory;
    request.deadline = std::chrono::seconds(config_.node.dump_timeout_seconds);
    Result<DumpReport> report = backend_->dump(request);
    if (!report)
        report.error().text += keep_log(directory, "dump.log", std::format("job-{}-ckpt-{}.dump.log", order.job_id(), order.number()));
    return report;
}

Result<HeldImage> NodeAgent::describe(const rpc::DumpOrder& order, const DumpReport& report) const {
    HeldImage image;
    image.identity = identity_of(order);
    SCKPT_ASSIGN(image.identity.node, slurm_local_node_name());
    image.identity.frozen_ms = static_cast<std::uint32_t>(report.frozen.count());
    image.needs = image_needs(probe_);
    image.user_files = report.files;
    image.directory = order.directory();
    image.name = std::format("ckpt-{}-{}", order.number(), image.identity.task);
    image.base = {order.base().path(), order.base().digest()};
    image.bytes = report.bytes;
    image.urgent = order.urgent();
    return image;
}

// Copies a log of CRIU to where it stays after the image is gone (the fast tier is a file system of its own); answers where, for the user's
// message.
std::string NodeAgent::keep_log(const std::string& directory, const char* name, const std::string& as) const {
    const std::string logs = std::filesystem::path(config_.node.fast_tier).parent_path().string() + "/logs";
    const std::string target = logs + "/" + as;
    std::error_code error;
    if (!make_directories(logs, 0700)) return "";
    std::filesystem::copy_file(directory + "/" + name, target, std::filesystem::copy_options::overwrite_existing, error);
    if (error) return "";
    return std::format(" (log: {})", target);
}

// ---------------------------------------------------------------- held images

Result<> NodeAgent::save(const HeldImage& image) const {
    return write_file_durable(tier_->state_file(image.fast_name()), to_text(image), 0600);
}

std::optional<HeldImage> NodeAgent::held(std::uint64_t checkpoint_id) const {
    const std::lock_guard lock(mutex_);
    const auto found = held_.find(checkpoint_id);
    return found == held_.end() ? std::nullopt : std::optional(found->second);
}

void NodeAgent::hold(const HeldImage& image) {
    {
        const std::lock_guard lock(mutex_);
        held_[image.id()] = image;
    }
    link_.send(dump_done(image));
    drains_->add(image.id(), image.bytes, image.urgent);
}

// In a thread of the drain queue's.
Result<StoredImage> NodeAgent::drain(std::uint64_t checkpoint_id, const StoreCall& call) {
    const std::optional<HeldImage> image = held(checkpoint_id);
    if (!image) return fail(Errc::busy, "it was dropped");
    StoreClient::Drain request;
    request.image = tier_->directory(image->fast_name());
    request.backend = image->needs.backend;
    request.identity = image->identity;
    request.needs = image->needs;
    request.user_files = image->user_files;
    request.directory = image->directory;
    request.name = image->name;
    request.base = image->base;
    request.leave_out.assign(kNotOfTheImage.begin(), kNotOfTheImage.end());
    request.threads = static_cast<int>(config_.drain.threads);
    return store_.drain(request, call);
}

void NodeAgent::drained(std::uint64_t checkpoint_id, const Result<StoredImage>& outcome) {
    std::optional<HeldImage> image;
    {
        const std::lock_guard lock(mutex_);
        const auto found = held_.find(checkpoint_id);
        if (found == held_.end()) return;  // dropped meanwhile
        if (outcome) found->second.stored = *outcome;
        else found->second.given_up = outcome.error().text;
        image = found->second;
    }
    if (outcome) log_info("checkpoint row {} is stored: {} of {} bytes were new", checkpoint_id, outcome->new_bytes, outcome->plain_bytes);
    else log_error("checkpoint row {} cannot be stored: {}", checkpoint_id, outcome.error().text);
    // Not kept, it would be drained a second time after a restart of sckptd: what is stored then is garbage, and no harm.
    if (auto saved = save(*image); !saved) log_warning("{}", saved.error().text);
    send_store_done(*image);
}

// Said again at each connection, until sckptctld answers that the catalogue has it or that it is to be dropped.
void NodeAgent::send_store_done(const HeldImage& image) {
    rpc::NodeMessage message;
    rpc::StoreDone& done = *message.mutable_store_done();
    done.set_checkpoint_id(image.id());
    done.set_ok(image.stored.has_value());
    done.set_error(image.given_up);
    if (image.stored) *done.mutable_image() = to_message(*image.stored);
    link_.send(std::move(message));
}

void NodeAgent::acknowledged(std::uint64_t checkpoint_id) {
    std::optional<HeldImage> image;
    {
        const std::lock_guard lock(mutex_);
        const auto found = held_.find(checkpoint_id);
        if (found == held_.end()) return;
        found->second.acknowledged = true;
        image = found->second;
    }
    drains_->remove(checkpoint_id);  // it was stored before a restart of sckptd, which did not know it
    if (const auto here = tier_->read(image->fast_name()))
        if (auto saved = save(*image); !saved) log_warning("{}", saved.error().text);
    tier_->may_evict(image->fast_name(), image->identity.created);
}

void NodeAgent::make_urgent(std::uint64_t checkpoint_id) {
    drains_->make_urgent(checkpoint_id);
    std::optional<HeldImage> image;
    {
        const std::lock_guard lock(mutex_);
        const auto found = held_.find(checkpoint_id);
        if (found == held_.end()) return;
        found->second.urgent = true;
        image = found->second;
    }
    if (const auto here = tier_->read(image->fast_name()))
        if (auto saved = save(*image); !saved) log_warning("{}", saved.error().text);
}

// A drop that comes while the dump is at work is carried out after it: criu must not lose its directory.
void NodeAgent::drop(std::uint64_t checkpoint_id) {
    const std::string name = HeldImage::fast_name_of(checkpoint_id);
    {
        std::unique_lock lock(mutex_);
        if (dumps_.contains(checkpoint_id)) unwanted_.insert(checkpoint_id);
        while (dumps_.contains(checkpoint_id)) {
            lock.unlock();
            tier_->cancel(name);  // if it waits for room
            lock.lock();
            dump_ended_.wait_for(lock, std::chrono::seconds(1), [&] { return !dumps_.contains(checkpoint_id); });
        }
        if (held_.erase(checkpoint_id) == 0) return;
    }
    drains_->remove(checkpoint_id);
    (void)tier_->remove(name);  // logs what stays
}

// A stored image that is of no use here any more.
void NodeAgent::discard(std::uint64_t checkpoint_id) {
    const std::string name = HeldImage::fast_name_of(checkpoint_id);
    if (tier_->remove(name)) evicted(name);
}

void NodeAgent::evicted(const std::string& name) {
    rpc::NodeMessage message;
    {
        const std::lock_guard lock(mutex_);
        const auto found = std::ranges::find_if(held_, [&](const auto& item) { return item.second.fast_name() == name; });
        if (found == held_.end()) return;
        message.mutable_evicted()->set_checkpoint_id(found->first);
        held_.erase(found);
    }
    link_.send(std::move(message));
}

}  // namespace sckpt
