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
}

Result<Caller> authenticate(const grpc::ServerContext& context, std::string_view method, const google::protobuf::Message* request,
                            const char* munge_socket) {
    const auto& metadata = context.client_metadata();
    const auto [first, last] = metadata.equal_range(kCredentialKey);
    if (first == last || std::next(first) != last) return fail(Errc::denied, "the call carries no munge credential, or more than one");
    const std::string credential(first->second.data(), first->second.size());
    return check_credential(credential, call_purpose(method, request), munge_socket);
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
