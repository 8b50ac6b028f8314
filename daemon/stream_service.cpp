// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/stream_service.h"

#include <sys/resource.h>
#include <format>

#include "rpc/server_auth.h"

namespace sckpt {
namespace {

constexpr int kLargestMessage = 64 << 20;  // a node that tells of a job with very many open files

// Each node is a descriptor.
void allow_many_descriptors() {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) log_warning("the limit of open files stays below {}", limit.rlim_max);
}

}  // namespace

Result<std::unique_ptr<grpc::Server>> listen_on(int port, const std::vector<grpc::Service*>& services) {
    allow_many_descriptors();
    grpc::ServerBuilder builder;
    int bound = 0;
    builder.AddListeningPort(std::format("0.0.0.0:{}", port), grpc::InsecureServerCredentials(), &bound);
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a second one must fail, not share the port
    for (grpc::Service* const service : services) builder.RegisterService(service);
    builder.SetMaxReceiveMessageSize(kLargestMessage);
    rpc::set_keepalive(builder);
    std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    if (!server || bound == 0) return fail(Errc::io, std::format("cannot listen on port {}: is another sckptctld running?", port));
    return server;
}

}  // namespace sckpt
