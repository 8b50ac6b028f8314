// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/controller_link.h"

#include <sys/random.h>
#include <chrono>
#include <format>

#include "common/log.h"
#include "daemon/slurm_api.h"
#include "rpc/auth_munge.h"
#include "rpc/channel.h"
#include "rpc/purpose.h"
#include "rpc/sckpt.grpc.pb.h"
#include "rpc/text.h"

namespace sckpt {
namespace {

constexpr std::chrono::seconds kRetry{1};

Result<std::string> make_nonce() {
    unsigned char bytes[16];
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) return fail_errno("getrandom");
    std::string text;
    for (const unsigned char byte : bytes) text += std::format("{:02x}", byte);
    return text;
}

// The other end is the cluster's sckptctld: SlurmUser or root made the credential over our nonce, just now.
Result<> check_welcome(const rpc::ControllerMessage& message, const std::string& nonce) {
    if (!message.has_welcome()) return fail(Errc::denied, "sckptctld did not prove itself");
    SCKPT_ASSIGN(const rpc::Caller caller, rpc::check_credential(message.welcome().credential(), rpc::welcome_purpose(nonce)));
    if (caller.uid == 0) return {};
    SCKPT_ASSIGN(const uid_t slurm_user, slurm_user_id());
    if (caller.uid == slurm_user) return {};
    return fail(Errc::denied, std::format("what answers as sckptctld runs as uid {}, not as SlurmUser or root", caller.uid));
}

}  // namespace

void ControllerLink::start() {
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

std::shared_ptr<grpc::Channel> ControllerLink::channel() const {
    const std::lock_guard lock(mutex_);
    return channel_;
}

void ControllerLink::proven(std::shared_ptr<grpc::Channel> channel) {
    const std::lock_guard lock(mutex_);
    connected_ = channel != nullptr;
    channel_ = std::move(channel);
}

void ControllerLink::run(const std::stop_token& stop) {
    std::string last_error;
    while (!stop.stop_requested()) {
        const auto result = attach(stop);
        proven(nullptr);
        const std::string error = result ? "the connection was closed" : result.error().text;
        if (error != last_error) log_warning("no sckptctld at {}:{}: {}; trying again until it answers", config_.host, config_.port, error);
        last_error = error;
        std::this_thread::sleep_for(kRetry);
    }
}

Result<> ControllerLink::attach(const std::stop_token& stop) {
    rpc::NodeMessage message;
    rpc::NodeHello& hello = *message.mutable_hello();
    SCKPT_ASSIGN(hello, handlers_.hello());
    SCKPT_ASSIGN(const std::string name, slurm_local_node_name());
    SCKPT_ASSIGN(const std::string nonce, make_nonce());
    hello.set_name(name);
    hello.set_nonce(nonce);
    SCKPT_ASSIGN(const std::shared_ptr<grpc::Channel> channel, rpc::make_channel(config_.host, config_.port));
    const auto stub = rpc::Node::NewStub(channel);
    grpc::ClientContext context;
    SCKPT_TRY(rpc::add_credential(context, "/sckpt.rpc.Node/Attach", nullptr));
    const auto stream = stub->Attach(&context);
    rpc::ControllerMessage received;
    const auto ended = [&]() -> Result<> {
        context.TryCancel();
        const grpc::Status status = stream->Finish();
        if (status.ok() || status.error_code() == grpc::StatusCode::CANCELLED) return {};
        return std::unexpected(rpc::error_from_status(status));
    };
    rpc::make_utf8(message);
    if (!stream->Write(message) || !stream->Read(&received)) return ended();
    if (auto proven = check_welcome(received, nonce); !proven) {
        (void)ended();
        return proven;
    }
    log_info("connected to sckptctld at {}:{} as node {}", config_.host, config_.port, name);
    proven(channel);
    handlers_.connected();
    std::jthread writer([&](const std::stop_token& writer_stop) {
        while (auto next = outbox_.pop(writer_stop)) {
            rpc::make_utf8(*next);
            if (stream->Write(*next)) continue;
            outbox_.put_back(std::move(*next));
            return;
        }
    });
    while (!stop.stop_requested() && stream->Read(&received)) handlers_.received(received);
    handlers_.lost();
    writer.request_stop();
    writer.join();
    return ended();
}

}  // namespace sckpt
