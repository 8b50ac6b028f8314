// SPDX-License-Identifier: GPL-3.0-or-later
#include "rpc/server_auth.h"

#include <arpa/inet.h>
#include <format>

#include "rpc/purpose.h"

namespace sckpt::rpc {

void set_keepalive(grpc::ServerBuilder& builder) {
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, 300'000);  // of one that nobody calls on
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 64);       // calls of one connection; our clients make one or two
}

Result<std::string> credential_of(const grpc::ServerContextBase& context) {
    const auto& metadata = context.client_metadata();
    const auto [first, last] = metadata.equal_range(kCredentialKey);
    if (first == last || std::next(first) != last) return fail(Errc::denied, "the call carries no munge credential, or more than one");
    return std::string(first->second.data(), first->second.size());
}

Result<Caller> authenticate(const std::string& credential, std::string_view method, const google::protobuf::Message* request,
                            const char* munge_socket) {
    return check_credential(credential, call_purpose(method, request), munge_socket);
}

Result<Caller> authenticate(const grpc::ServerContextBase& context, std::string_view method, const google::protobuf::Message* request,
                            const char* munge_socket) {
    SCKPT_ASSIGN(const std::string credential, credential_of(context));
    return authenticate(credential, method, request, munge_socket);
}

Result<std::uint32_t> peer_address(const std::string& peer) {
    constexpr std::string_view kPrefix = "ipv4:";
    const std::size_t end = peer.rfind(':');
    in_addr address{};
    if (!peer.starts_with(kPrefix) || end < kPrefix.size() ||
        inet_pton(AF_INET, peer.substr(kPrefix.size(), end - kPrefix.size()).c_str(), &address) != 1)
        return fail(Errc::unsupported, std::format("the peer {} has no IPv4 address", peer));
    return address.s_addr;
}

}  // namespace sckpt::rpc
