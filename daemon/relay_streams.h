// SPDX-License-Identifier: GPL-3.0-or-later
//
// The streams of relays, on the answering side: each carries many nodes, and to the desk behind they are nodes like others. What relays say of
// their nodes is believed, so who may be one is asked first: NodeDesk::admit_relay().
#pragma once

#include <chrono>
#include <cstddef>

#include "daemon/node_desk.h"
#include "daemon/server_stream.h"
#include "daemon/workers.h"
#include "rpc/relay.pb.h"

namespace sckpt {

class RelayStreams {
   public:
    struct Limits {
        std::chrono::milliseconds hello{20'000};
        std::size_t queued_bytes = std::size_t{512} << 20;  // of orders that a relay does not read: its stream is cut
        std::size_t pending = 20'000;                       // messages that are not handled yet: until there are fewer, no more are read
    };
    using Stream = ServerStream<rpc::RelayUp, rpc::RelayDown>;

    // Desk and workers must outlive this, and this the server.
    RelayStreams(NodeDesk& desk, Workers& workers) : RelayStreams(desk, workers, Limits()) {}
    RelayStreams(NodeDesk& desk, Workers& workers, const Limits& limits) : desk_(desk), workers_(workers), limits_(limits) {}

    // Answers a call of Relay.Attach.
    Stream::Reactor* attach(grpc::CallbackServerContext* context);

   private:
    NodeDesk& desk_;
    Workers& workers_;
    const Limits limits_;
};

// What goes into one message of a relay's stream, in either direction; a single order may be larger.
inline constexpr std::size_t kRelayPack = std::size_t{1} << 20;

}  // namespace sckpt
