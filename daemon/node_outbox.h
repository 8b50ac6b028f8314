// SPDX-License-Identifier: GPL-3.0-or-later
//
// Where orders to one node go, on whatever way the node is connected: a stream of its own, or that of a relay.
#pragma once

#include "common/result.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

// One connection of a node: another one is another object, and what is pushed to one that has ended is lost. push() never blocks, may be
// called from any thread, and keeps the order of one thread's messages.
class NodeOutbox {
   public:
    virtual ~NodeOutbox() = default;
    virtual void push(rpc::ControllerMessage message) = 0;
    // Ends the connection; the node is told why. It is detached as after any other end.
    virtual void refuse(const Error& error) = 0;
};

}  // namespace sckpt
