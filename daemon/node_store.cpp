// SPDX-License-Identifier: GPL-3.0-or-later
//
// Work on the store that sckptctld orders (daemon/store_work.h): it has no access to the store itself. Each order is carried out in a thread of
// its own; long answers go in several messages, and while there is nothing to tell, an empty one says that the work goes on. It ends
// when sckptctld has given up waiting for the answer, or is gone.
#include <atomic>
#include <chrono>
#include <format>

#include "common/log.h"
#include "daemon/background.h"
#include "daemon/deadline.h"
#include "daemon/node_agent.h"
#include "rpc/channel.h"
#include "rpc/sckpt.grpc.pb.h"

namespace sckpt {
namespace {

constexpr std::chrono::seconds kPiecePatience{120};  // for the next piece of a backup

}  // namespace

StoreAnswer NodeAgent::answer_to(std::uint64_t order) {
    return {order, [this](rpc::StoreReply&& part) {
                rpc::NodeMessage message;
                *message.mutable_store_reply() = std::move(part);
                link_.send(std::move(message));
            }};
}

void NodeAgent::begin_store_order(const rpc::StoreOrder& order) {
    const auto stop = std::make_shared<std::atomic<bool>>(false);
    {
        const std::lock_guard lock(mutex_);
        store_orders_[order.order()] = stop;
    }
    const bool begun = in_background([this, order, stop] {
        store_order(order, *stop);
        const std::lock_guard lock(mutex_);
        store_orders_.erase(order.order());
    });
    if (begun) return;
    answer_to(order.order()).end(fail(Errc::unavailable, "this node has no thread for it"));
    const std::lock_guard lock(mutex_);
    store_orders_.erase(order.order());
}

void NodeAgent::stop_store_orders(std::optional<std::uint64_t> order) {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, stop] : store_orders_)
        if (!order || id == *order) *stop = true;
}

void NodeAgent::store_order(const rpc::StoreOrder& order, const std::atomic<bool>& stop) {
    StoreAnswer answer = answer_to(order.order());
    StoreCall call;
    call.stop = &stop;
    call.idle = true;
    const StoreWork work(store_, static_cast<int>(config_.drain.threads),
                         [this](const rpc::StoreOrder& backup, const StoreCall& there) { return backup_catalogue(backup, there); });
    const Result<> outcome = work.carry_out(order, answer, std::move(call));
    if (!outcome) log_warning("an order about the store: {}", outcome.error().text);
    answer.end(outcome);
}

// The database comes over the connection that sckptctld has proved itself on. It may be large and the store slow, so there is no deadline for
// the whole: each piece has one.
Result<> NodeAgent::backup_catalogue(const rpc::StoreOrder& order, const StoreCall& call) {
    const std::shared_ptr<grpc::Channel> channel = link_.channel();
    if (!channel) return fail(Errc::unavailable, "there is no connection to sckptctld");
    const auto stub = rpc::Node::NewStub(channel);
    rpc::BackupRequest request;
    request.set_order(order.order());
    grpc::ClientContext context;
    SCKPT_TRY(rpc::add_credential(context, "/sckpt.rpc.Node/FetchBackup", &request));
    const auto stream = stub->FetchBackup(&context, request);
    bool ended = false;
    std::atomic<bool> late = false;
    const auto next = [&]() -> Result<std::string> {
        const Deadline deadline(kPiecePatience, [&] {
            late = true;
            context.TryCancel();
        });
        rpc::BackupPiece piece;
        while (stream->Read(&piece))
            if (!piece.data().empty()) return std::move(*piece.mutable_data());
        ended = true;
        const grpc::Status status = stream->Finish();
        if (late) return fail(Errc::timeout, std::format("sckptctld has sent no further piece of the catalogue for {} s", kPiecePatience.count()));
        if (!status.ok()) return std::unexpected(rpc::error_from_status(status));
        return std::string();
    };
    const Result<> kept = store_.backup(order.backup().name(), next, call);
    if (!ended) {
        context.TryCancel();
        (void)stream->Finish();
    }
    return kept;
}

}  // namespace sckpt
