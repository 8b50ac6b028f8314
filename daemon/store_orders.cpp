// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/store_orders.h"

#include <format>

namespace sckpt {
namespace {

// How often a caller that may go away is asked whether it has.
constexpr std::chrono::milliseconds kLook{200};

}  // namespace

StoreOrders::StoreOrders() : next_(static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count())) {}

bool StoreOrders::any_node() const {
    const std::lock_guard lock(mutex_);
    return !nodes_.empty();
}

void StoreOrders::attached(const std::string& node, std::shared_ptr<NodeOutbox> outbox) {
    const std::lock_guard lock(mutex_);
    lose(node);
    nodes_[node] = std::move(outbox);
}

void StoreOrders::detached(const std::string& node) {
    const std::lock_guard lock(mutex_);
    nodes_.erase(node);
    lose(node);
}

void StoreOrders::lose(const std::string& node) {
    for (auto& [order, pending] : pending_)
        if (pending.node == node) pending.lost = true;
    changed_.notify_all();
}

void StoreOrders::reply(const std::string& node, const rpc::StoreReply& part) {
    const std::lock_guard lock(mutex_);
    const auto found = pending_.find(part.order());
    if (found == pending_.end() || found->second.node != node || found->second.reply.done()) return;
    found->second.reply.MergeFrom(part);
    ++found->second.parts;
    changed_.notify_all();
}

std::optional<std::string> StoreOrders::node_of(std::uint64_t order) const {
    const std::lock_guard lock(mutex_);
    const auto found = pending_.find(order);
    if (found == pending_.end() || found->second.lost) return std::nullopt;
    return found->second.node;
}

// With the mutex held.
Result<std::uint64_t> StoreOrders::send(rpc::StoreOrder& order) {
    if (nodes_.empty()) return fail(Errc::unavailable, "no node is connected to sckptctld, and only nodes reach the store");
    auto node = nodes_.upper_bound(last_);
    if (node == nodes_.end()) node = nodes_.begin();
    if (node->first == order.avoid() && std::next(node) != nodes_.end()) ++node;
    else if (node->first == order.avoid()) node = nodes_.begin();
    last_ = node->first;
    const std::uint64_t id = next_++;
    order.set_order(id);
    pending_[id].node = node->first;
    rpc::ControllerMessage message;
    *message.mutable_store() = std::move(order);
    node->second->push(std::move(message));
    return id;
}

// With the mutex held.
void StoreOrders::stop(const std::string& node, std::uint64_t order) {
    const auto found = nodes_.find(node);
    if (found == nodes_.end()) return;
    rpc::ControllerMessage message;
    message.mutable_stop_store()->set_order(order);
    found->second->push(std::move(message));
}

Result<rpc::StoreReply> StoreOrders::run(rpc::StoreOrder order, std::chrono::seconds silence, const Cancelled& cancelled) {
    std::unique_lock lock(mutex_);
    SCKPT_ASSIGN(const std::uint64_t id, send(order));
    Pending& pending = pending_[id];
    const std::string node = pending.node;
    auto heard = std::chrono::steady_clock::now();
    std::uint64_t parts = 0;
    std::optional<Error> error;
    while (!error && !pending.reply.done()) {
        changed_.wait_for(lock, kLook, [&] { return pending.lost || pending.reply.done(); });
        if (pending.parts != parts) heard = std::chrono::steady_clock::now();
        parts = pending.parts;
        if (pending.reply.done()) break;
        if (pending.lost) error = Error{Errc::unavailable, std::format("node {} was lost during work on the store", node)};
        else if (std::chrono::steady_clock::now() - heard >= silence)
            error = Error{Errc::timeout, std::format("node {} works on the store and has said nothing for {} s", node, silence.count())};
        else if (cancelled) {
            lock.unlock();  // it may ask others, who may ask here
            const bool stop = cancelled();
            lock.lock();
            if (stop) error = Error{Errc::busy, "the work was ended before it was done"};
        }
    }
    rpc::StoreReply reply = std::move(pending.reply);
    reply.set_node(node);
    if (error && !pending.lost) stop(node, id);
    pending_.erase(id);
    if (error) return std::unexpected(*error);
    if (!reply.ok()) return fail(reply.away() ? Errc::unavailable : Errc::io, std::format("the store, on node {}: {}", node, reply.error()));
    return reply;
}

}  // namespace sckpt
