// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckptd's one connection to sckptctld, straight or through a relay: dialled from here, kept up for ever, with mutual proof by munge. While it is down
// messages wait in the outbox; what must not be lost is said again in the hello (tasks, images) by whoever owns it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

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
    // Relays are dialled in turn, each node beginning at another one; without any, sckptctld.
    ControllerLink(const Config& config, Handlers handlers);
    void start();
    void send(rpc::NodeMessage message) { outbox_.push(std::move(message)); }
    bool connected() const { return connected_; }
    // Of the connection on which sckptctld has proved itself, for other calls; none without one.
    std::shared_ptr<grpc::Channel> channel() const;

   private:
    struct Place {
        std::string host;
        int port = 0;
    };
    void run(const std::stop_token& stop);
    void proven(std::shared_ptr<grpc::Channel> channel);
    Result<std::string> own_name();
    Result<> attach(const std::stop_token& stop, const Place& place);

    std::vector<Place> places_;
    const Handlers handlers_;
    Outbox<rpc::NodeMessage> outbox_;
    std::atomic<bool> connected_ = false;
    mutable std::mutex mutex_;
    std::shared_ptr<grpc::Channel> channel_;
    std::string name_;  // our NodeName; of the link's thread
    std::jthread thread_;
};

}  // namespace sckpt
