// SPDX-License-Identifier: GPL-3.0-or-later
//
// The gRPC face of sckptctld: authenticates every call and hands it to the Controller. Nothing is decided here.
#pragma once

#include <atomic>

#include "daemon/controller.h"
#include "rpc/sckpt.grpc.pb.h"

namespace sckpt {

class CommandService final : public rpc::Sckpt::Service {
   public:
    CommandService(Controller& controller, const std::atomic<bool>& stopping) : controller_(controller), stopping_(stopping) {}
    grpc::Status Create(grpc::ServerContext*, const rpc::CreateRequest*, grpc::ServerWriter<rpc::CreateProgress>*) override;
    grpc::Status List(grpc::ServerContext*, const rpc::ListRequest*, rpc::ListReply*) override;
    grpc::Status Show(grpc::ServerContext*, const rpc::ShowRequest*, rpc::ShowReply*) override;
    grpc::Status Status(grpc::ServerContext*, const rpc::StatusRequest*, rpc::StatusReply*) override;

   private:
    Controller& controller_;
    const std::atomic<bool>& stopping_;  // a call that streams ends when this is set
};

class NodeService final : public rpc::Node::Service {
   public:
    explicit NodeService(Controller& controller) : controller_(controller) {}
    grpc::Status Attach(grpc::ServerContext*, grpc::ServerReaderWriter<rpc::ControllerMessage, rpc::NodeMessage>*) override;

   private:
    Controller& controller_;
};

}  // namespace sckpt
