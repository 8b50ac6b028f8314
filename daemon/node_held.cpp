// SPDX-License-Identifier: GPL-3.0-or-later
//
// What this node has dumped: its images are drained into the store one after another, and stay as a cache until their room is needed or their
// checkpoint is removed.
#include <algorithm>
#include <format>

#include "common/log.h"
#include "daemon/messages.h"
#include "daemon/node_agent.h"

namespace sckpt {

Result<> NodeAgent::save(const HeldPart& part) const {
    return write_file_durable(tier_->state_file(part.fast_name()), to_text(part), 0600);
}

std::optional<HeldPart> NodeAgent::held(std::uint64_t checkpoint_id) const {
    const std::lock_guard lock(mutex_);
    const auto found = held_.find(checkpoint_id);
    return found == held_.end() ? std::nullopt : std::optional(found->second);
}

// ---------------------------------------------------------------- drains

// In a thread of the drain queue's. An image that is stored stays so, also when the next one has to be tried again.
Result<> NodeAgent::drain(std::uint64_t checkpoint_id, const StoreCall& call) {
    const std::optional<HeldPart> part = held(checkpoint_id);
    if (!part) return fail(Errc::busy, "it was dropped");
    std::uint64_t done = 0, written = 0;
    for (std::size_t i = 0; i < part->images.size(); ++i) {
        std::optional<StoredImage> stored = part->images[i].stored;
        if (!stored) {
            StoreCall one = call;
            one.progress = [&](std::uint64_t plain, std::uint64_t fresh) { call.progress(done + plain, written + fresh); };
            SCKPT_ASSIGN(stored, drain_image(*part, part->images[i], one));
            SCKPT_TRY(keep_stored(checkpoint_id, i, *stored));
        }
        done += stored->plain_bytes;
        written += stored->new_bytes;
    }
    return {};
}

// Not kept, it would be drained a second time after a restart of sckptd: what is stored then is garbage, and no harm.
Result<> NodeAgent::keep_stored(std::uint64_t checkpoint_id, std::size_t image, const StoredImage& stored) {
    std::optional<HeldPart> part;
    {
        const std::lock_guard lock(mutex_);
        const auto found = held_.find(checkpoint_id);
        if (found == held_.end()) return fail(Errc::busy, "it was dropped");
        found->second.images[image].stored = stored;
        part = found->second;
    }
    if (auto saved = save(*part); !saved) log_warning("{}", saved.error().text);
    return {};
}

Result<StoredImage> NodeAgent::drain_image(const HeldPart& part, const HeldImage& image, const StoreCall& call) {
    StoreClient::Drain request;
    request.image = tier_->directory(part.fast_name()) + "/" + image.identity.task;
    request.backend = part.needs.backend;
    request.identity = image.identity;
    request.needs = part.needs;
    request.user_files = image.user_files;
    request.directory = part.directory;
    request.name = image.name;
    request.base = image.base;
    request.leave_out.assign(kNotOfTheImage.begin(), kNotOfTheImage.end());
    request.threads = static_cast<int>(config_.drain.threads);
    StoreCall there = call;
    there.store = part.store;
    return store_.drain(request, there);
}

void NodeAgent::drained(std::uint64_t checkpoint_id, const Result<>& outcome) {
    std::optional<HeldPart> part;
    {
        const std::lock_guard lock(mutex_);
        const auto found = held_.find(checkpoint_id);
        if (found == held_.end()) return;  // dropped meanwhile
        if (!outcome) found->second.given_up = outcome.error().text;
        part = found->second;
    }
    std::uint64_t plain = 0, fresh = 0;
    for (const HeldImage& image : part->images) {
        plain += image.stored ? image.stored->plain_bytes : 0;
        fresh += image.stored ? image.stored->new_bytes : 0;
    }
    if (outcome) log_info("checkpoint row {} is stored: {} of {} bytes were new", checkpoint_id, fresh, plain);
    else log_error("checkpoint row {} cannot be stored: {}", checkpoint_id, outcome.error().text);
    send_store_done(*part);
}

// Said again at each connection, until sckptctld answers that the catalogue has it or that it is to be dropped. What is stored of a part that
// cannot be stored as a whole is named, so that it can be removed.
void NodeAgent::send_store_done(const HeldPart& part) {
    rpc::NodeMessage message;
    rpc::StoreDone& done = *message.mutable_store_done();
    done.set_checkpoint_id(part.id());
    done.set_ok(part.stored());
    done.set_error(part.given_up);
    for (const HeldImage& image : part.images) {
        if (!image.stored) continue;
        rpc::StoredTask& task = *done.add_images();
        task.set_task(image.identity.task);
        task.set_frozen_ms(image.identity.frozen_ms);
        *task.mutable_image() = to_message(*image.stored);
    }
    link_.send(std::move(message));
}

// Of what was captured, and is not held.
void NodeAgent::send_lost(std::uint64_t checkpoint_id, const std::string& why) {
    rpc::NodeMessage message;
    message.mutable_store_done()->set_checkpoint_id(checkpoint_id);
    message.mutable_store_done()->set_error(why);
    link_.send(std::move(message));
}

void NodeAgent::acknowledged(std::uint64_t checkpoint_id) {
    std::optional<HeldPart> part;
    {
        const std::lock_guard lock(mutex_);
        const auto found = held_.find(checkpoint_id);
        if (found == held_.end()) return;
        found->second.acknowledged = true;
        part = found->second;
    }
    drains_->remove(checkpoint_id);  // it was stored before a restart of sckptd, which did not know it
    if (const auto here = tier_->read(part->fast_name()))
        if (auto saved = save(*part); !saved) log_warning("{}", saved.error().text);
    tier_->may_evict(part->fast_name(), part->identity().created);
}

void NodeAgent::make_urgent(std::uint64_t checkpoint_id) {
    if (const PartPtr making = part(checkpoint_id)) making->make_urgent();
    drains_->make_urgent(checkpoint_id);
    std::optional<HeldPart> part;
    {
        const std::lock_guard lock(mutex_);
        const auto found = held_.find(checkpoint_id);
        if (found == held_.end()) return;
        found->second.urgent = true;
        part = found->second;
    }
    if (const auto here = tier_->read(part->fast_name()))
        if (auto saved = save(*part); !saved) log_warning("{}", saved.error().text);
}

// ---------------------------------------------------------------- removal

// A drop that comes while a dump is at work is carried out after it: criu must not lose its directory.
void NodeAgent::drop(std::uint64_t checkpoint_id) {
    const std::string name = HeldPart::fast_name_of(checkpoint_id);
    {
        std::unique_lock lock(mutex_);
        if (const auto making = parts_.find(checkpoint_id); making != parts_.end())
            (void)making->second->fail({Errc::busy, "the checkpoint was dropped"});
        while (parts_.contains(checkpoint_id)) {
            lock.unlock();
            tier_->cancel(name);  // if it waits for room
            lock.lock();
            part_ended_.wait_for(lock, std::chrono::seconds(1), [&] { return !parts_.contains(checkpoint_id); });
        }
        if (held_.erase(checkpoint_id) == 0) return;
    }
    drains_->remove(checkpoint_id);
    (void)tier_->remove(name);  // logs what stays
}

// Stored images that are of no use here any more.
void NodeAgent::discard(std::uint64_t checkpoint_id) {
    const std::string name = HeldPart::fast_name_of(checkpoint_id);
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
