// SPDX-License-Identifier: GPL-3.0-or-later
#include "cli/session.h"

#include <format>

namespace sckpt::cli {
namespace {

// gRPC tells the story of all its attempts; the cause is the end of it.
std::string cause(const std::string& message) {
    constexpr std::string_view kLast = "last error: ";
    const std::size_t last = message.rfind(kLast);
    return last == std::string::npos ? message : message.substr(last + kLast.size());
}

}  // namespace

ExitCode exit_code(Errc code) {
    switch (code) {
        case Errc::not_found: return ExitCode::not_found;
        case Errc::denied: return ExitCode::denied;
        case Errc::unavailable: return ExitCode::unreachable;
        case Errc::timeout: return ExitCode::timeout;
        case Errc::exists:
        case Errc::invalid:
        case Errc::busy:
        case Errc::no_space:
        case Errc::corrupt:
        case Errc::unsupported:
        case Errc::io:
        case Errc::internal: return ExitCode::failed;
    }
    return ExitCode::failed;
}

Result<Session> Session::open(const Options& options) {
    auto config = load_config(options.config_path);
    // Its kind is not passed on: "not found" is for jobs and checkpoints.
    if (!config) return fail(Errc::invalid, config.error().text);
    Session session;
    session.controller_ = std::move(config->controller);
    session.config_path_ = options.config_path;
    session.json_ = options.json;
    session.view_ = make_view();
    SCKPT_ASSIGN(const auto channel, rpc::make_channel(session.controller_.host, session.controller_.port));
    session.stub_ = rpc::Sckpt::NewStub(channel);
    return session;
}

Result<> Session::add_credential(grpc::ClientContext& context, std::string_view name, const google::protobuf::Message& request) const {
    return rpc::add_credential(context, std::format("/{}/{}", rpc::Sckpt::service_full_name(), name), &request);
}

std::string Session::address() const { return rpc::host_port(controller_.host, controller_.port); }

Error Session::error(const grpc::Status& status) const {
    Error error = rpc::error_from_status(status);
    if (rpc::answered_by_peer(status)) return error;
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE)
        error.text = std::format(
            "sckptctld cannot be reached at {}: {}: check that sckptctld runs there, that the port is open, "
            "and controller.host and controller.port in {}",
            address(), cause(error.text), config_path_);
    if (error.code == Errc::timeout)
        error.text = std::format("sckptctld at {} gave no answer in time: try again, or read its log", address());
    return error;
}

}  // namespace sckpt::cli
