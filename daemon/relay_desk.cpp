// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/relay_desk.h"

#include <utility>

#include "common/log.h"
#include "rpc/server_auth.h"
#include "rpc/status.h"

namespace sckpt {
namespace {

// Wrapped into a message of the relay's it must still be one that the next one accepts (64 MiB).
constexpr std::size_t kLargest = std::size_t{63} << 20;

}  // namespace

Result<> RelayDesk::verify(const std::string& node, const std::string& peer) {
    SCKPT_TRY(addresses_.verify(node, peer));
    SCKPT_ASSIGN(const std::uint32_t address, rpc::peer_address(peer));
    const std::lock_guard lock(mutex_);
    nodes_[address] = node;
    return {};
}

std::string RelayDesk::node_at(const std::string& peer) {
    const auto address = rpc::peer_address(peer);
    const std::lock_guard lock(mutex_);
    const auto found = address ? nodes_.find(*address) : nodes_.end();
    return found == nodes_.end() ? "" : found->second;
}

Result<> RelayDesk::attach(const rpc::NodeHello& hello, const std::shared_ptr<NodeOutbox>& outbox) {
    rpc::RelayedMessage message;
    *message.mutable_said()->mutable_hello() = hello;
    const std::lock_guard lock(mutex_);  // held until it is sent: else lost() could come in between, and nobody would end this stream
    if (!uplink_->connected()) return fail(Errc::unavailable, "this relay has no connection to sckptctld: dial another one, or wait");
    message.set_link(next_link_++);
    outboxes_.emplace(message.link(), outbox);
    links_.emplace(outbox.get(), message.link());
    uplink_->send(std::move(message));
    return {};
}

void RelayDesk::handle(const std::string& node, const std::shared_ptr<NodeOutbox>& outbox, const rpc::NodeMessage& message) {
    if (message.ByteSizeLong() > kLargest) {
        log_error("a message of {} is larger than {} MiB: its stream is ended", node, kLargest >> 20);
        return outbox->refuse({Errc::no_space, "the message is too large for a relay"});
    }
    rpc::RelayedMessage relayed;
    relayed.set_link(link_of(outbox));
    *relayed.mutable_said() = message;
    if (relayed.link() != 0) uplink_->send(std::move(relayed));
}

void RelayDesk::detach(const std::string&, const std::shared_ptr<NodeOutbox>& outbox) {
    rpc::RelayedMessage message;
    message.set_gone(true);
    {
        const std::lock_guard lock(mutex_);
        const auto found = links_.find(outbox.get());
        if (found == links_.end()) return;
        message.set_link(found->second);
        outboxes_.erase(found->second);
        links_.erase(found);
    }
    uplink_->send(std::move(message));
}

void RelayDesk::order(rpc::RelayedOrder order) {
    for (const std::uint64_t link : order.links()) {
        const auto outbox = outbox_of(link);
        if (!outbox) continue;  // it has gone, and above this is not known yet
        if (order.has_order()) outbox->push(order.order());
        else outbox->refuse(rpc::error_from_status({static_cast<grpc::StatusCode>(order.refused().code()), order.refused().text(),
                                                    order.refused().kind()}));
    }
}

void RelayDesk::lost() {
    decltype(outboxes_) ended;
    {
        const std::lock_guard lock(mutex_);
        ended = std::exchange(outboxes_, {});
        links_.clear();
    }
    for (const auto& [link, outbox] : ended) outbox->refuse({Errc::unavailable, "the relay has lost its connection to sckptctld"});
}

std::shared_ptr<NodeOutbox> RelayDesk::outbox_of(std::uint64_t link) {
    const std::lock_guard lock(mutex_);
    const auto found = outboxes_.find(link);
    return found == outboxes_.end() ? nullptr : found->second;
}

std::uint64_t RelayDesk::link_of(const std::shared_ptr<NodeOutbox>& outbox) {
    const std::lock_guard lock(mutex_);
    const auto found = links_.find(outbox.get());
    return found == links_.end() ? 0 : found->second;
}

}  // namespace sckpt
