// SPDX-License-Identifier: GPL-3.0-or-later
//
// The gRPC face of sckptctld: authenticates every call and hands it to the Controller or to the keeper of the store. Nothing is
// decided here.
//   controller_service.cpp  users' commands, nodes      controller_admin.cpp  administrators' commands
#pragma once

#include <atomic>

#include "daemon/controller.h"
#include "rpc/sckpt.grpc.pb.h"
#include "rpc/status.h"
#include "rpc/text.h"

namespace sckpt {

class CommandService final : public rpc::Sckpt::Service {
   public:
    CommandService(Controller& controller, StoreKeeper& keeper, const std::atomic<bool>& stopping)
        : controller_(controller), keeper_(keeper), stopping_(stopping) {}
    template <class Message>
    using Writer = grpc::ServerWriter<Message>;
    grpc::Status Create(grpc::ServerContext*, const rpc::CreateRequest*, Writer<rpc::CreateProgress>*) override;
    grpc::Status List(grpc::ServerContext*, const rpc::ListRequest*, rpc::ListReply*) override;
    grpc::Status Show(grpc::ServerContext*, const rpc::ShowRequest*, rpc::ShowReply*) override;
    grpc::Status Status(grpc::ServerContext*, const rpc::StatusRequest*, rpc::StatusReply*) override;
    grpc::Status Pin(grpc::ServerContext*, const rpc::PinRequest*, rpc::PinReply*) override;
    grpc::Status Watch(grpc::ServerContext*, const rpc::WatchRequest*, Writer<rpc::WatchReply>*) override;

    grpc::Status Report(grpc::ServerContext*, const rpc::ReportRequest*, rpc::ReportReply*) override;
    grpc::Status Clean(grpc::ServerContext*, const rpc::CleanRequest*, Writer<rpc::CleanProgress>*) override;
    grpc::Status Orphans(grpc::ServerContext*, const rpc::OrphansRequest*, rpc::OrphansReply*) override;
    grpc::Status Check(grpc::ServerContext*, const rpc::CheckRequest*, Writer<rpc::CheckProgress>*) override;
    grpc::Status RebuildCatalogue(grpc::ServerContext*, const rpc::RebuildRequest*, Writer<rpc::RebuildProgress>*) override;

   private:
    Result<> administrator(const grpc::ServerContext& context, const char* method, const google::protobuf::Message* request) const;

    Controller& controller_;
    StoreKeeper& keeper_;
    const std::atomic<bool>& stopping_;  // a call that streams or waits ends when this is set
};

class NodeService final : public rpc::Node::Service {
   public:
    NodeService(Controller& controller, StoreOrders& orders, StoreKeeper& keeper)
        : controller_(controller), orders_(orders), keeper_(keeper) {}
    grpc::Status Attach(grpc::ServerContext*, grpc::ServerReaderWriter<rpc::ControllerMessage, rpc::NodeMessage>*) override;
    grpc::Status FetchBackup(grpc::ServerContext*, const rpc::BackupRequest*, grpc::ServerWriter<rpc::BackupPiece>*) override;

   private:
    Controller& controller_;
    StoreOrders& orders_;
    StoreKeeper& keeper_;
};

// Exceptions (out of memory, for one) end the call that met them, not the daemon.
template <class Body>
grpc::Status guarded(const Body& body) noexcept {
    try {
        return body();
    } catch (const std::exception& e) {
        log_error("a call failed: {}", e.what());
        return {grpc::StatusCode::INTERNAL, "sckptctld ran out of a resource; its log tells more"};
    }
}

template <class Reply>
grpc::Status answer(Result<Reply> result, Reply* reply) {
    if (!result) return rpc::status_from_error(result.error());
    *reply = std::move(*result);
    rpc::make_utf8(*reply);
    return grpc::Status::OK;
}

}  // namespace sckpt
