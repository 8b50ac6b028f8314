// SPDX-License-Identifier: GPL-3.0-or-later
//
// Who is behind the streams of nodes: in sckptctld the controller, in a relay the next one upstream. The streams (daemon/node_streams.h)
// call this from their workers; of one connection one call at a time, in order.
#pragma once

#include <memory>
#include <string>

#include "common/result.h"
#include "daemon/node_outbox.h"

namespace sckpt {

class NodeDesk {
   public:
    virtual ~NodeDesk() = default;
    // May the maker of this credential speak for a node at all? Asked before anything of the stream is read.
    virtual Result<> admit(const std::string& credential) = 0;
    // May the maker of this credential, who calls from `peer`, speak for the nodes that it names? May block, as all that follow here.
    virtual Result<> admit_relay(const std::string& credential, const std::string& peer) = 0;
    // What proves us to a relay, over its nonce.
    virtual Result<std::string> prove(const std::string& nonce) = 0;
    // Is the other end of the connection, as gRPC names it, the host of this node? 
    virtual Result<> verify(const std::string& node, const std::string& peer) = 0;
    // The node says hello. It is refused by an error; else its outbox gets the Welcome, and all that it says from now on is handled.
    virtual Result<> attach(const rpc::NodeHello& hello, const std::shared_ptr<NodeOutbox>& outbox) = 0;
    virtual bool may_wait(const rpc::NodeMessage& message) const = 0;  // handle() may ask others (slurmctld) about it
    virtual void handle(const std::string& node, const std::shared_ptr<NodeOutbox>& outbox, const rpc::NodeMessage& message) = 0;
    // Exactly once for each that was attached, after all that it said. It may have attached anew meanwhile, with another outbox.
    virtual void detach(const std::string& node, const std::shared_ptr<NodeOutbox>& outbox) = 0;
};

}  // namespace sckpt
