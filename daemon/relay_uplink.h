// SPDX-License-Identifier: GPL-3.0-or-later
//
// A relay's one connection towards sckptctld: dialled from here, kept up for ever, with mutual proof by munge, as a node's
// (daemon/controller_link.h). Nothing is kept for the next connection: with a lost one all of its links are lost.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include <grpcpp/grpcpp.h>

#include "common/result.h"
#include "rpc/relay.pb.h"

namespace sckpt {

class RelayUplink {
   public:
    struct Handlers {  // from the uplink's thread: they must not block
        std::function<void(rpc::RelayedOrder)> order;
        std::function<void()> lost;
        std::function<Result<>(const rpc::Welcome&, const std::string& nonce)> check;          // is it sckptctld who answers?
        std::function<Result<>(grpc::ClientContext&, std::string_view method)> credential;  // ours, for a call of this method
    };
    RelayUplink(std::string host, int port, Handlers handlers) : host_(std::move(host)), port_(port), handlers_(std::move(handlers)) {}
    ~RelayUplink();
    void start();
    bool connected() const;
    void send(rpc::RelayedMessage message);           // without a connection it is lost
    std::shared_ptr<grpc::Channel> channel() const;  // of the connection that has proved itself; none without one

   private:
    void run(const std::stop_token& stop);
    Result<> attach(const std::stop_token& stop);
    bool take(const std::stop_token& stop, rpc::RelayUp& batch);
    void proven(std::shared_ptr<grpc::Channel> channel);

    const std::string host_;
    const int port_;
    const Handlers handlers_;
    mutable std::mutex mutex_;
    std::condition_variable_any changed_;
    std::shared_ptr<grpc::Channel> channel_;  // null: not connected
    std::deque<rpc::RelayedMessage> queue_;
    std::jthread thread_;
};

}  // namespace sckpt
