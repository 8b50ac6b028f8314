// SPDX-License-Identifier: GPL-3.0-or-later
//
// The calling side: a connection to sckptctld, and the credential that goes with each call.
// The connection itself is plain TCP: munge proves who asks, and the digest in the credential proves what was asked.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/grpcpp.h>
#include <memory>
#include <string>
#include <string_view>

#include "common/result.h"
#include "rpc/status.h"

namespace sckpt::rpc {

// "host:port", or "[address]:port" of an IPv6 address.
std::string host_port(const std::string& host, int port);

// Connects when it is first used, and again by itself after a loss (0.5 to 5 s between attempts). Keepalive ends the calls of a
// connection whose peer is silent for 15 s, with UNAVAILABLE.
Result<std::shared_ptr<grpc::Channel>> make_channel(const std::string& host, int port);

// Puts a fresh credential into the call's metadata; one per call, as a credential is good once.
// `method` is the full name ("/sckpt.rpc.Sckpt/List"); `request` is null for a bidirectional stream.
Result<> add_credential(grpc::ClientContext& context, std::string_view method, const google::protobuf::Message* request,
                        const char* munge_socket = nullptr);

}  // namespace sckpt::rpc
