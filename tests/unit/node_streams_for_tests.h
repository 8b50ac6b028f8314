// SPDX-License-Identifier: GPL-3.0-or-later
//
// What tests of streams share: a desk that notes what it is told, and clients in the place of nodes. The credential is a word: the tests of
// real ones are in rpc_call_test.cpp.
#pragma once

#include <grpcpp/grpcpp.h>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "daemon/node_desk.h"
#include "rpc/channel.h"
#include "rpc/purpose.h"
#include "rpc/sckpt.grpc.pb.h"

namespace sckpt::test {

inline constexpr std::chrono::seconds kPatience{120};

class NotingDesk final : public NodeDesk {
   public:
    Result<> admit(const std::string& credential) override {
        if (credential == "good") return {};
        return fail(Errc::denied, "the credential is " + credential);
    }
    Result<> admit_relay(const std::string& credential, const std::string&) override { return admit(credential); }
    Result<std::string> prove(const std::string& nonce) override { return "proof of " + nonce; }
    Result<> verify(const std::string& node, const std::string& peer) override {
        if (node != "unknown" && peer.starts_with("ipv4:127.0.0.1:")) return {};
        return fail(Errc::denied, "no such node");
    }
    Result<> attach(const rpc::NodeHello& hello, const std::shared_ptr<NodeOutbox>& outbox) override {
        if (hello.name() == refused) return fail(Errc::denied, hello.name() + " is not wanted");
        rpc::ControllerMessage welcome;
        welcome.mutable_welcome()->set_credential("of " + hello.nonce());
        outbox->push(std::move(welcome));
        const std::lock_guard lock(mutex_);
        outboxes_[hello.name()] = outbox;
        ++attached_[hello.name()];
        changed_.notify_all();
        return {};
    }
    bool may_wait(const rpc::NodeMessage& message) const override { return message.has_task_started(); }
    void handle(const std::string& node, const std::shared_ptr<NodeOutbox>&, const rpc::NodeMessage& message) override {
        if (on_message) on_message(node, message);
        const std::lock_guard lock(mutex_);
        heard_[node].push_back(message.evicted().checkpoint_id());
        changed_.notify_all();
    }
    void detach(const std::string& node, const std::shared_ptr<NodeOutbox>& outbox) override {
        const std::lock_guard lock(mutex_);
        ++detached_[node];
        heard_at_end_[node] = heard_[node].size();
        if (outboxes_[node] == outbox) outboxes_.erase(node);
        changed_.notify_all();
    }

    void wait(const std::function<bool()>& condition) {
        std::unique_lock lock(mutex_);
        REQUIRE(changed_.wait_for(lock, kPatience, condition));
    }
    void wait_attached(const std::string& node, int times = 1) {
        wait([&] { return attached_[node] >= times; });
    }
    void wait_detached(const std::string& node, int times = 1) {
        wait([&] { return detached_[node] >= times; });
    }
    void wait_heard(const std::string& node, std::size_t messages) {
        wait([&] { return heard_[node].size() >= messages; });
    }
    std::shared_ptr<NodeOutbox> outbox(const std::string& node) {
        const std::lock_guard lock(mutex_);
        return outboxes_[node];
    }
    std::vector<std::uint64_t> heard(const std::string& node) {
        const std::lock_guard lock(mutex_);
        return heard_[node];
    }
    int attached(const std::string& node) {
        const std::lock_guard lock(mutex_);
        return attached_[node];
    }
    int detached(const std::string& node) {
        const std::lock_guard lock(mutex_);
        return detached_[node];
    }
    std::size_t heard_at_end(const std::string& node) {
        const std::lock_guard lock(mutex_);
        return heard_at_end_[node];
    }

    std::string refused;  // a name
    std::function<void(const std::string& node, const rpc::NodeMessage& message)> on_message;  // before it is noted

   private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::string, std::shared_ptr<NodeOutbox>> outboxes_;
    std::map<std::string, std::vector<std::uint64_t>> heard_;
    std::map<std::string, std::size_t> heard_at_end_;
    std::map<std::string, int> attached_, detached_;
};

// A node's end of a stream, with a connection of its own.
class StreamClient {
   public:
    explicit StreamClient(int port, const std::string& credential = "good") {
        auto channel = rpc::make_channel("127.0.0.1", port);
        REQUIRE(channel.has_value());
        context_.AddMetadata(rpc::kCredentialKey, credential);
        context_.set_deadline(std::chrono::system_clock::now() + kPatience);
        stream_ = rpc::Node::NewStub(*channel)->Attach(&context_);
    }
    ~StreamClient() { context_.TryCancel(); }
    bool hello(const std::string& name) {
        rpc::NodeMessage message;
        message.mutable_hello()->set_name(name);
        message.mutable_hello()->set_nonce("nonce");
        return stream_->Write(message);
    }
    bool say(std::uint64_t number) {
        rpc::NodeMessage message;
        message.mutable_evicted()->set_checkpoint_id(number);
        return stream_->Write(message);
    }
    bool say_slow() {
        rpc::NodeMessage message;
        message.mutable_task_started();
        return stream_->Write(message);
    }
    bool read(rpc::ControllerMessage& message) { return stream_->Read(&message); }
    bool welcomed(const std::string& name) {
        rpc::ControllerMessage message;
        return hello(name) && read(message) && message.welcome().credential() == "of nonce";
    }
    void half_close() { stream_->WritesDone(); }
    void cancel() { context_.TryCancel(); }
    grpc::Status finish() { return stream_->Finish(); }

   private:
    grpc::ClientContext context_;
    std::unique_ptr<grpc::ClientReaderWriter<rpc::NodeMessage, rpc::ControllerMessage>> stream_;
};

inline rpc::ControllerMessage drop_order(std::uint64_t number) {
    rpc::ControllerMessage message;
    message.mutable_drop()->set_checkpoint_id(number);
    return message;
}

}  // namespace sckpt::test
