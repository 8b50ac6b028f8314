// SPDX-License-Identifier: GPL-3.0-or-later
//
// The streams of all nodes, on the answering side: no thread belongs to a node. What a node says is handled by a few workers, in order and
// one message at a time; a message that may wait for Slurm holds up its own node alone (daemon/workers.h).
//
// A stranger gets as far as his credential: nothing of his is read before it is found good, and one that is good has a time limit for its hello.
#pragma once

#include <chrono>
#include <cstddef>

#include "daemon/node_desk.h"
#include "daemon/server_stream.h"
#include "daemon/workers.h"

namespace sckpt {

class NodeStreams {
   public:
    struct Limits {
        std::size_t quick_workers = 4, slow_workers = 16;
        std::chrono::milliseconds hello{20'000};
        std::size_t queued_bytes = std::size_t{64} << 20;  // of orders that a node does not read: its stream is cut
    };
    using Stream = ServerStream<rpc::NodeMessage, rpc::ControllerMessage>;

    // The desk must outlive this, and this the server.
    explicit NodeStreams(NodeDesk& desk) : NodeStreams(desk, Limits()) {}
    NodeStreams(NodeDesk& desk, const Limits& limits);

    // Answers a call of Node.Attach.
    Stream::Reactor* attach(grpc::CallbackServerContext* context);
    Workers& workers() { return workers_; }

   private:
    NodeDesk& desk_;
    const Limits limits_;
    Workers workers_;
};

}  // namespace sckpt
