// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/relay.h"

#include <csignal>

#include "daemon/daemon_main.h"
#include "daemon/relay_desk.h"
#include "daemon/slurm_api.h"
#include "daemon/stream_service.h"
#include "daemon/welcome.h"
#include "rpc/channel.h"
#include "rpc/server_auth.h"

namespace sckpt {
namespace {

constexpr const char* kFetchOfNode = "/sckpt.rpc.Node/FetchBackup";
constexpr const char* kFetchOfRelay = "/sckpt.rpc.Relay/FetchBackup";

// A node's call of FetchBackup, made upwards in our own name.
grpc::Status fetch_upwards(const RelayUplink& uplink, const rpc::RelayedBackupRequest& request, grpc::ServerWriter<rpc::BackupPiece>& writer) {
    const auto channel = uplink.channel();
    if (!channel) return {grpc::StatusCode::UNAVAILABLE, "this relay has no connection to sckptctld"};
    grpc::ClientContext context;
    if (const auto added = rpc::add_credential(context, kFetchOfRelay, &request); !added) return rpc::status_from_error(added.error());
    const auto stream = rpc::Relay::NewStub(channel)->FetchBackup(&context, request);
    rpc::BackupPiece piece;
    while (stream->Read(&piece))
        if (!writer.Write(piece)) {
            context.TryCancel();
            break;
        }
    return stream->Finish();
}

class NodesOfRelay final : public NodeStreamService {
   public:
    NodesOfRelay(NodeStreams& streams, RelayDesk& desk, const RelayUplink& uplink)
        : NodeStreamService(streams), desk_(desk), uplink_(uplink) {}
    grpc::Status FetchBackup(grpc::ServerContext* context, const rpc::BackupRequest* request,
                             grpc::ServerWriter<rpc::BackupPiece>* writer) override {
        return guarded([&]() -> grpc::Status {
            const auto caller = rpc::authenticate(*context, kFetchOfNode, request);
            if (!caller) return rpc::status_from_error(caller.error());
            rpc::RelayedBackupRequest relayed;
            relayed.set_order(request->order());
            relayed.set_node(desk_.node_at(context->peer()));
            if (caller->uid != 0 || relayed.node().empty())
                return {grpc::StatusCode::PERMISSION_DENIED, "only root of a node that is connected here may ask for a backup"};
            return fetch_upwards(uplink_, relayed, *writer);
        });
    }

   private:
    RelayDesk& desk_;
    const RelayUplink& uplink_;
};

class RelaysOfRelay final : public RelayStreamService {
   public:
    RelaysOfRelay(RelayStreams& streams, const PeerTrust& trust, const RelayUplink& uplink)
        : RelayStreamService(streams), trust_(trust), uplink_(uplink) {}
    grpc::Status FetchBackup(grpc::ServerContext* context, const rpc::RelayedBackupRequest* request,
                             grpc::ServerWriter<rpc::BackupPiece>* writer) override {
        return guarded([&]() -> grpc::Status {
            const auto caller = rpc::authenticate(*context, kFetchOfRelay, request);
            if (!caller) return rpc::status_from_error(caller.error());
            if (const auto may = trust_.may_relay(*caller, context->peer()); !may) return rpc::status_from_error(may.error());
            return fetch_upwards(uplink_, *request, *writer);
        });
    }

   private:
    const PeerTrust& trust_;
    const RelayUplink& uplink_;
};

}  // namespace

Result<> serve_relay(const Config& config) {
    sigset_t set;
    block_end_signals(set);
    slurm_start();
    const PeerTrust trust(config.relay.hosts);
    NodeAddresses addresses(slurm_node_addresses);
    RelayDesk desk(trust, addresses);
    const bool to_relay = !config.relay.upstream.empty();
    RelayUplink uplink(to_relay ? config.relay.upstream : config.controller.host, to_relay ? config.relay.port : config.controller.port,
                       {[&desk](rpc::RelayedOrder order) { desk.order(std::move(order)); }, [&desk] { desk.lost(); }, check_welcome,
                        [](grpc::ClientContext& context, std::string_view method) { return rpc::add_credential(context, method, nullptr); }});
    desk.use(uplink);
    NodeStreams node_streams(desk);
    RelayStreams relay_streams(desk, node_streams.workers());
    NodesOfRelay nodes(node_streams, desk, uplink);
    RelaysOfRelay relays(relay_streams, trust, uplink);
    uplink.start();
    SCKPT_ASSIGN(const std::unique_ptr<grpc::Server> server, listen_on(config.relay.port, {&nodes, &relays}));
    log_info("sckptctld {} listens on port {} as a relay", SCKPT_VERSION, config.relay.port);
    int received = 0;
    while (sigwait(&set, &received) != 0) {
    }
    log_info("the relay stops");
    server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
    return {};
}

}  // namespace sckpt
