// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a relay does with its nodes: it makes sure that they are who they say, and passes on what they and sckptctld say to each other, as it
// is. It keeps nothing: without a way up no node is attached, and when the way up is lost all streams of nodes end, and nodes dial anew.
#pragma once

#include <atomic>
#include <map>
#include <mutex>

#include "daemon/node_addresses.h"
#include "daemon/node_desk.h"
#include "daemon/peer_trust.h"
#include "daemon/relay_uplink.h"

namespace sckpt {

class RelayDesk : public NodeDesk {
   public:
    // The uplink must have order() and lost() as its handlers, and outlive this one's use.
    RelayDesk(const PeerTrust& trust, NodeAddresses& addresses) : trust_(trust), addresses_(addresses) {}
    void use(RelayUplink& uplink) { uplink_ = &uplink; }  // once, before the rest

    Result<> admit(const std::string& credential) override { return trust_.is_node(credential); }
    Result<> verify(const std::string& node, const std::string& peer) override;
    Result<> admit_relay(const std::string& credential, const std::string& peer) override { return trust_.is_relay(credential, peer); }
    Result<std::string> prove(const std::string& nonce) override { return trust_.prove(nonce); }
    Result<> attach(const rpc::NodeHello& hello, const std::shared_ptr<NodeOutbox>& outbox) override;
    bool may_wait(const rpc::NodeMessage&) const override { return false; }
    void handle(const std::string& node, const std::shared_ptr<NodeOutbox>& outbox, const rpc::NodeMessage& message) override;
    void detach(const std::string& node, const std::shared_ptr<NodeOutbox>& outbox) override;

    std::string node_at(const std::string& peer);  // which node this is the host of; "": none that has ever been here

    // From above.
    void order(rpc::RelayedOrder order);
    void lost();

   private:
    std::shared_ptr<NodeOutbox> outbox_of(std::uint64_t link);
    std::uint64_t link_of(const std::shared_ptr<NodeOutbox>& outbox);

    const PeerTrust& trust_;
    NodeAddresses& addresses_;
    RelayUplink* uplink_ = nullptr;
    std::mutex mutex_;
    std::map<std::uint64_t, std::shared_ptr<NodeOutbox>> outboxes_;  // by link
    std::map<const NodeOutbox*, std::uint64_t> links_;
    std::map<std::uint32_t, std::string> nodes_;  // by address, as verified
    std::uint64_t next_link_ = 1;
};

}  // namespace sckpt
