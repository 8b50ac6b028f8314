// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/relay_uplink.h"

#include <chrono>
#include <format>

#include "common/log.h"
#include "daemon/deadline.h"
#include "daemon/relay_streams.h"
#include "rpc/channel.h"
#include "rpc/purpose.h"
#include "rpc/relay.grpc.pb.h"

namespace sckpt {
namespace {

constexpr std::chrono::seconds kRetry{1}, kLastWord{5};

}  // namespace

RelayUplink::~RelayUplink() {
    thread_.request_stop();
    if (thread_.joinable()) thread_.join();
}

void RelayUplink::start() {
    thread_ = std::jthread([this](const std::stop_token& stop) { run(stop); });
}

bool RelayUplink::connected() const { return channel() != nullptr; }

std::shared_ptr<grpc::Channel> RelayUplink::channel() const {
    const std::lock_guard lock(mutex_);
    return channel_;
}

void RelayUplink::proven(std::shared_ptr<grpc::Channel> channel) {
    const std::lock_guard lock(mutex_);
    channel_ = std::move(channel);
    queue_.clear();
}

void RelayUplink::send(rpc::RelayedMessage message) {
    const std::lock_guard lock(mutex_);
    if (channel_ == nullptr) return;
    queue_.push_back(std::move(message));
    changed_.notify_one();
}

// Waits for something to say, and packs all that is there by then.
bool RelayUplink::take(const std::stop_token& stop, rpc::RelayUp& batch) {
    batch.Clear();
    std::unique_lock lock(mutex_);
    if (!changed_.wait(lock, stop, [this] { return !queue_.empty(); })) return false;
    for (std::size_t bytes = 0; !queue_.empty() && bytes < kRelayPack; queue_.pop_front()) {
        bytes += queue_.front().ByteSizeLong();
        *batch.add_messages() = std::move(queue_.front());
    }
    return !stop.stop_requested();
}

void RelayUplink::run(const std::stop_token& stop) {
    std::string last_error;
    while (!stop.stop_requested()) {
        const auto result = attach(stop);
        proven(nullptr);
        handlers_.lost();
        const std::string error = result ? "the connection was closed" : result.error().text;
        if (error != last_error) log_warning("no way up to {}:{}: {}; trying again until it answers", host_, port_, error);
        last_error = error;
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, stop, kRetry, [] { return false; });
    }
}

Result<> RelayUplink::attach(const std::stop_token& stop) {
    SCKPT_ASSIGN(const std::string nonce, rpc::make_nonce());
    SCKPT_ASSIGN(const std::shared_ptr<grpc::Channel> channel, rpc::make_channel(host_, port_));
    const auto stub = rpc::Relay::NewStub(channel);
    grpc::ClientContext context;
    SCKPT_TRY(handlers_.credential(context, "/sckpt.rpc.Relay/Attach"));
    const std::stop_callback stopped(stop, [&] { context.TryCancel(); });
    const auto stream = stub->Attach(&context);
    const auto ended = [&]() -> Result<> {
        // A call that is cancelled does not tell any more why the other side has ended it: that comes only after a while.
        const Deadline deadline(kLastWord, [&] { context.TryCancel(); });
        const grpc::Status status = stream->Finish();
        if (status.ok() || status.error_code() == grpc::StatusCode::CANCELLED) return {};
        return std::unexpected(rpc::error_from_status(status));
    };
    rpc::RelayUp hello;
    hello.mutable_hello()->set_version(SCKPT_VERSION);
    hello.mutable_hello()->set_nonce(nonce);
    rpc::RelayDown received;
    if (!stream->Write(hello) || !stream->Read(&received)) return ended();
    if (auto proof = handlers_.check(received.welcome(), nonce); !proof) {
        context.TryCancel();
        (void)ended();
        return proof;
    }
    log_info("connected upwards to {}:{}", host_, port_);
    proven(channel);
    std::jthread writer([&](const std::stop_token& writer_stop) {
        rpc::RelayUp batch;
        while (take(writer_stop, batch))
            if (!stream->Write(batch)) return;
    });
    while (stream->Read(&received))
        for (rpc::RelayedOrder& order : *received.mutable_orders()) handlers_.order(std::move(order));
    proven(nullptr);
    writer.request_stop();
    writer.join();
    return ended();
}

}  // namespace sckpt
