// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/node_part.h"

#include <utility>

#include "common/fd.h"
#include "rpc/task_name.h"

namespace sckpt {
namespace {

// What only the whole checkpoint knows.
void fill_in(ImageIdentity& identity, const rpc::ReleaseOrder& order) {
    identity.images = order.images();
    identity.leader = order.leader();
    if (identity.task != identity.leader) return;
    for (const rpc::EndedTask& ended : order.ended()) identity.ended.push_back({ended.task(), ended.wait_status()});
}

}  // namespace

bool NodePart::begin(const rpc::DumpOrder& order) {
    const std::lock_guard lock(mutex_);
    if (std::exchange(order.script() ? script_begun_ : tasks_begun_, true)) return false;
    store_ = order.store_id();
    store_directory_ = order.directory();
    urgent_ = urgent_ || order.urgent();
    ++at_work_;
    ++unreported_;
    return true;
}

void NodePart::reported() {
    const std::lock_guard lock(mutex_);
    --unreported_;
}

bool NodePart::leave() {
    const std::lock_guard lock(mutex_);
    return --at_work_ == 0;
}

void NodePart::script_may_go() {
    const std::lock_guard lock(mutex_);
    script_may_go_ = true;
    changed_.notify_all();
}

void NodePart::release(const rpc::ReleaseOrder& order) {
    const std::lock_guard lock(mutex_);
    if (state_ != State::making) return;
    state_ = State::released;
    order_ = order;
    changed_.notify_all();
}

void NodePart::release_alone() {
    rpc::ReleaseOrder order;
    order.set_images(1);
    order.set_leader(kBatchTask);
    release(order);
}

bool NodePart::fail(Error why) {
    const std::lock_guard lock(mutex_);
    return fail_locked(std::move(why));
}

void NodePart::connection_lost() {
    const std::lock_guard lock(mutex_);
    if (unreported_ > 0 && state_ == State::making)
        fail_locked({Errc::unavailable, "the connection to sckptctld was lost while the checkpoint was made; the job runs on"});
}

bool NodePart::fail_locked(Error why) {
    if (!failure_) failure_ = std::move(why);
    if (state_ != State::making) return false;
    state_ = State::dropped;
    changed_.notify_all();
    return true;
}

void NodePart::make_urgent() {
    const std::lock_guard lock(mutex_);
    urgent_ = true;
}

bool NodePart::wait(Until until, std::chrono::milliseconds limit) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, limit, [&] { return state_ != State::making || (until == Until::script_may_go && script_may_go_); });
}

Result<> NodePart::wanted() const {
    const std::lock_guard lock(mutex_);
    if (state_ == State::dropped) return std::unexpected(*failure_);
    return {};
}

bool NodePart::released() const {
    const std::lock_guard lock(mutex_);
    return state_ == State::released;
}

Result<> NodePart::make_room(std::uint64_t bytes, FastTier::Clock::time_point deadline) {
    const std::lock_guard lock(room_mutex_);
    if (room_) return room_->grow(bytes, deadline);
    SCKPT_ASSIGN(FastTier::Reservation room, tier_.reserve(HeldPart::fast_name_of(id_), bytes, deadline));
    room_.emplace(std::move(room));
    return make_directories(room_->directory(), 0700);
}

std::string NodePart::directory(const std::string& task) const { return tier_.directory(HeldPart::fast_name_of(id_)) + "/" + task; }

void NodePart::add(HeldImage image) {
    const std::lock_guard lock(mutex_);
    images_.push_back(std::move(image));
}

Result<std::optional<HeldPart>> NodePart::outcome() {
    const std::lock_guard lock(mutex_);
    if (failure_) return std::unexpected(*failure_);
    if (images_.empty()) return std::nullopt;
    HeldPart part;
    part.images = std::move(images_);
    part.store = store_;
    part.directory = store_directory_;
    part.urgent = urgent_;
    for (HeldImage& image : part.images) fill_in(image.identity, order_);
    return part;
}

void NodePart::keep() {
    room_->keep();
    room_.reset();
}

void NodePart::discard() { room_.reset(); }

}  // namespace sckpt
