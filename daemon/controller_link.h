// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckptd's one connection to sckptctld: dialled from here, kept up for ever, with mutual proof by munge. While it is down
// messages wait in the outbox; what must not be lost is said again in the hello (tasks, images) by whoever owns it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include <grpcpp/channel.h>

#include "common/config.h"
#include "daemon/outbox.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

class ControllerLink {
   public:
    struct Handlers {
        std::function<Result<rpc::NodeHello>()> hello;  // asked at each connection; name and nonce are filled in here
        std::function<void()> connected;
        std::function<void(const rpc::ControllerMessage&)> received;  // from the link's thread: must not block
        std::function<void()> lost;                                   // so is this; what was ordered is not waited for any more
    };
    ControllerLink(Config::Controller config, Handlers handlers) : config_(std::move(config)), handlers_(std::move(handlers)) {}
    void start();
    void send(rpc::NodeMessage message) { outbox_.push(std::move(message)); }
    bool connected() const { return connected_; }
    // Of the connection on which sckptctld has proved itself, for other calls; none without one.
    std::shared_ptr<grpc::Channel> channel() const;

   private:
    void run(const std::stop_token& stop);
    void proven(std::shared_ptr<grpc::Channel> channel);
    Result<> attach(const std::stop_token& stop);

    const Config::Controller config_;
    const Handlers handlers_;
    Outbox<rpc::NodeMessage> outbox_;
    std::atomic<bool> connected_ = false;
    mutable std::mutex mutex_;
    std::shared_ptr<grpc::Channel> channel_;
    std::jthread thread_;
};

}  // namespace sckpt
