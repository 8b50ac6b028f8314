// SPDX-License-Identifier: GPL-3.0-or-later
//
// The gRPC face of sckptctld: authenticates every call and hands it to the Controller or to the keeper of the store. Nothing is
// decided here.
//   controller_service.cpp  users' commands, nodes      controller_admin.cpp  administrators' commands
#pragma once

#include <atomic>

#include "daemon/controller.h"
#include "daemon/node_addresses.h"
#include "daemon/peer_trust.h"
#include "daemon/stream_service.h"
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
    grpc::Status FindJobs(grpc::ServerContext*, const rpc::FindJobsRequest*, rpc::FindJobsReply*) override;
    grpc::Status FindStep(grpc::ServerContext*, const rpc::FindStepRequest*, rpc::FindStepReply*) override;
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

// What nodes say goes to the controller, after it is known that they are who they say.
class ControllerDesk final : public NodeDesk {
   public:
    ControllerDesk(Controller& controller, const PeerTrust& trust, NodeAddresses& addresses)
        : controller_(controller), trust_(trust), addresses_(addresses) {}
    Result<> admit(const std::string& credential) override { return trust_.is_node(credential); }
    Result<> admit_relay(const std::string& credential, const std::string& peer) override { return trust_.is_relay(credential, peer); }
    Result<std::string> prove(const std::string& nonce) override { return trust_.prove(nonce); }
    Result<> verify(const std::string& node, const std::string& peer) override { return addresses_.verify(node, peer); }
    Result<> attach(const rpc::NodeHello& hello, const std::shared_ptr<NodeOutbox>& outbox) override;
    bool may_wait(const rpc::NodeMessage& message) const override { return Controller::asks_slurm(message); }
    void handle(const std::string& node, const std::shared_ptr<NodeOutbox>&, const rpc::NodeMessage& message) override {
        controller_.handle(node, message);
    }
    void detach(const std::string& node, const std::shared_ptr<NodeOutbox>& outbox) override { controller_.detach(node, outbox); }

   private:
    Controller& controller_;
    const PeerTrust& trust_;
    NodeAddresses& addresses_;
};

class NodeService final : public NodeStreamService {
   public:
    NodeService(NodeStreams& streams, NodeAddresses& addresses, StoreOrders& orders, StoreKeeper& keeper)
        : NodeStreamService(streams), addresses_(addresses), orders_(orders), keeper_(keeper) {}
    grpc::Status FetchBackup(grpc::ServerContext*, const rpc::BackupRequest*, grpc::ServerWriter<rpc::BackupPiece>*) override;

   private:
    NodeAddresses& addresses_;
    StoreOrders& orders_;
    StoreKeeper& keeper_;
};

class RelayService final : public RelayStreamService {
   public:
    RelayService(RelayStreams& streams, const PeerTrust& trust, StoreOrders& orders, StoreKeeper& keeper)
        : RelayStreamService(streams), trust_(trust), orders_(orders), keeper_(keeper) {}
    grpc::Status FetchBackup(grpc::ServerContext*, const rpc::RelayedBackupRequest*, grpc::ServerWriter<rpc::BackupPiece>*) override;

   private:
    const PeerTrust& trust_;
    StoreOrders& orders_;
    StoreKeeper& keeper_;
};

template <class Reply>
grpc::Status answer(Result<Reply> result, Reply* reply) {
    if (!result) return rpc::status_from_error(result.error());
    *reply = std::move(*result);
    rpc::make_utf8(*reply);
    return grpc::Status::OK;
}

}  // namespace sckpt
