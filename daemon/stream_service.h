// SPDX-License-Identifier: GPL-3.0-or-later
//
// The face that sckptctld and relays share: streams of nodes and of relays, served by callbacks; and the port that they are on.
#pragma once

#include <grpcpp/grpcpp.h>
#include <exception>
#include <memory>
#include <vector>

#include "common/log.h"
#include "common/result.h"
#include "daemon/node_streams.h"
#include "daemon/relay_streams.h"
#include "rpc/relay.grpc.pb.h"
#include "rpc/sckpt.grpc.pb.h"

namespace sckpt {

using CallbackNodeService = rpc::Node::WithCallbackMethod_Attach<rpc::Node::Service>;
using CallbackRelayService = rpc::Relay::WithCallbackMethod_Attach<rpc::Relay::Service>;

class NodeStreamService : public CallbackNodeService {
   public:
    explicit NodeStreamService(NodeStreams& streams) : streams_(streams) {}
    using CallbackNodeService::Attach;
    NodeStreams::Stream::Reactor* Attach(grpc::CallbackServerContext* context) override { return streams_.attach(context); }

   private:
    NodeStreams& streams_;
};

class RelayStreamService : public CallbackRelayService {
   public:
    explicit RelayStreamService(RelayStreams& streams) : streams_(streams) {}
    using CallbackRelayService::Attach;
    RelayStreams::Stream::Reactor* Attach(grpc::CallbackServerContext* context) override { return streams_.attach(context); }

   private:
    RelayStreams& streams_;
};

// A server for these services, which outlive it, on all addresses of this host. Errc::io: the port is taken.
Result<std::unique_ptr<grpc::Server>> listen_on(int port, const std::vector<grpc::Service*>& services);

// Exceptions (out of memory, for one) end the call that met them, not the daemon.
template <class Body>
grpc::Status guarded(const Body& body) noexcept {
    try {
        return body();
    } catch (const std::exception& e) {
        log_error("a call failed: {}", e.what());
        return {grpc::StatusCode::INTERNAL, "sckptctld ran out of a resource; its log tells more"};
    }
}

}  // namespace sckpt
