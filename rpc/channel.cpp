// SPDX-License-Identifier: GPL-3.0-or-later
#include "rpc/channel.h"

#include <format>

#include "rpc/auth_munge.h"
#include "rpc/purpose.h"

namespace sckpt::rpc {

std::string host_port(const std::string& host, int port) {
    return host.contains(':') ? std::format("[{}]:{}", host, port) : std::format("{}:{}", host, port);
}

Result<std::shared_ptr<grpc::Channel>> make_channel(const std::string& host, int port) {
    if (host.empty()) return fail(Errc::invalid, "no host to connect to: set controller.host in sckpt.yaml");
    if (port < 1 || port > 65535) return fail(Errc::invalid, std::format("{} is no TCP port", port));
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
    arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
    arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // a quiet stream is pinged for ever, not twice
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 500);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5'000);  // also the time that one attempt has
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 5'000);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own: a server bounds the calls of one (server_auth.cpp)
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);     // a call sent twice is a replayed credential
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);  // http_proxy of the user's environment is for the web
    arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
    arguments.SetMaxReceiveMessageSize(64 << 20);  // `show` of a job with very many files
    auto channel = grpc::CreateCustomChannel(host_port(host, port), grpc::InsecureChannelCredentials(), arguments);
    if (!channel) return fail(Errc::internal, "no channel can be made to " + host_port(host, port));
    return channel;
}

Result<> add_credential(grpc::ClientContext& context, std::string_view method, const google::protobuf::Message* request,
                        const char* munge_socket) {
    SCKPT_ASSIGN(const std::string credential, make_credential(call_purpose(method, request), munge_socket));
    context.AddMetadata(kCredentialKey, credential);
    return {};
}

}  // namespace sckpt::rpc
