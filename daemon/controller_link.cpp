// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/controller_link.h"

#include <chrono>
#include <cstdint>

#include "common/log.h"
#include "daemon/deadline.h"
#include "daemon/slurm_api.h"
#include "daemon/welcome.h"
#include "rpc/channel.h"
#include "rpc/purpose.h"
#include "rpc/sckpt.grpc.pb.h"
#include "rpc/text.h"

namespace sckpt {
namespace {

constexpr std::chrono::seconds kRetry{1}, kLastWord{5};

// Spreads nodes over the relays, the same at each start.
std::size_t place_of(const std::string& node, std::size_t places) {
    std::uint32_t hash = 2166136261;  // FNV-1a
    for (const unsigned char byte : node) hash = (hash ^ byte) * 16777619;
    return hash % places;
}

}  // namespace

ControllerLink::ControllerLink(const Config& config, Handlers handlers) : handlers_(std::move(handlers)) {
    for (const std::string& host : config.relay.hosts) places_.push_back({host, config.relay.port});
    if (places_.empty()) places_.push_back({config.controller.host, config.controller.port});
}

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

// Slurm is asked until it has answered once: a name lasts as long as sckptd.
Result<std::string> ControllerLink::own_name() {
    if (name_.empty()) {
        SCKPT_ASSIGN(name_, slurm_local_node_name());
    }
    return name_;
}

void ControllerLink::run(const std::stop_token& stop) {
    std::string last_error;
    std::size_t attempt = 0;
    while (!stop.stop_requested()) {
        const auto name = own_name();
        const Place& place = places_[(place_of(name.value_or(""), places_.size()) + attempt) % places_.size()];
        const auto result = name ? attach(stop, place) : std::unexpected(name.error());
        attempt = connected_ ? 0 : attempt + 1;  // a relay that comes back gets its nodes back
        proven(nullptr);
        const std::string error = result ? "the connection was closed" : result.error().text;
        if (error != last_error) log_warning("no sckptctld at {}:{}: {}; trying again until it answers", place.host, place.port, error);
        last_error = error;
        std::this_thread::sleep_for(kRetry);
    }
}

Result<> ControllerLink::attach(const std::stop_token& stop, const Place& place) {
    rpc::NodeMessage message;
    rpc::NodeHello& hello = *message.mutable_hello();
    SCKPT_ASSIGN(hello, handlers_.hello());
    SCKPT_ASSIGN(const std::string name, own_name());
    SCKPT_ASSIGN(const std::string nonce, rpc::make_nonce());
    hello.set_name(name);
    hello.set_nonce(nonce);
    SCKPT_ASSIGN(const std::shared_ptr<grpc::Channel> channel, rpc::make_channel(place.host, place.port));
    const auto stub = rpc::Node::NewStub(channel);
    grpc::ClientContext context;
    SCKPT_TRY(rpc::add_credential(context, "/sckpt.rpc.Node/Attach", nullptr));
    const auto stream = stub->Attach(&context);
    rpc::ControllerMessage received;
    const auto ended = [&]() -> Result<> {
        // A call that is cancelled does not tell any more why the other side has ended it: that comes only after a while.
        const Deadline deadline(kLastWord, [&] { context.TryCancel(); });
        const grpc::Status status = stream->Finish();
        if (status.ok() || status.error_code() == grpc::StatusCode::CANCELLED) return {};
        return std::unexpected(rpc::error_from_status(status));
    };
    rpc::make_utf8(message);
    if (!stream->Write(message) || !stream->Read(&received)) return ended();
    if (auto proven = check_welcome(received.welcome(), nonce); !proven) {
        context.TryCancel();
        (void)ended();
        return proven;
    }
    log_info("connected to sckptctld at {}:{} as node {}", place.host, place.port, name);
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
    if (stop.stop_requested()) context.TryCancel();
    writer.join();
    return ended();
}

}  // namespace sckpt
