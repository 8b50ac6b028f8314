// SPDX-License-Identifier: GPL-3.0-or-later
//
// The answering side: who is calling, from which address, and how a server has to be set up for our clients.
#pragma once

#include <google/protobuf/message.h>
#include <grpcpp/grpcpp.h>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/result.h"
#include "rpc/auth_munge.h"
#include "rpc/status.h"

namespace sckpt::rpc {

// Allows the clients' keepalive (a server's default is to cut who pings more than once in 5 min), and notices dead clients the same way.
void set_keepalive(grpc::ServerBuilder& builder);

// Who makes this call, by its credential, which is used up by this: once per call. `method` and `request` as for add_credential().
// Errc::denied when there is no credential or it is not good for exactly this request.
Result<Caller> authenticate(const grpc::ServerContextBase& context, std::string_view method, const google::protobuf::Message* request,
                            const char* munge_socket = nullptr);
// The same in two steps: the credential is taken from the call at once, and checked when and where munged may be waited for.
Result<std::string> credential_of(const grpc::ServerContextBase& context);
Result<Caller> authenticate(const std::string& credential, std::string_view method, const google::protobuf::Message* request,
                            const char* munge_socket = nullptr);

// The IPv4 address in what ServerContext::peer() gives ("ipv4:10.0.0.1:43210"), network byte order as in Caller::address.
Result<std::uint32_t> peer_address(const std::string& peer);

}  // namespace sckpt::rpc
