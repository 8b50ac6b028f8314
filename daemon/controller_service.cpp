// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/controller_service.h"

#include <unistd.h>
#include <format>
#include <thread>

#include "common/log.h"
#include "rpc/purpose.h"
#include "rpc/server_auth.h"

namespace sckpt {
namespace {

constexpr std::chrono::milliseconds kWatchPause{200};
constexpr std::size_t kPiece = 1u << 20;

}  // namespace

grpc::Status CommandService::Create(grpc::ServerContext* context, const rpc::CreateRequest* request,
                                    grpc::ServerWriter<rpc::CreateProgress>* writer) {
    return guarded([&]() -> grpc::Status {
        const auto caller = rpc::authenticate(*context, "/sckpt.rpc.Sckpt/Create", request);
        if (!caller) return rpc::status_from_error(caller.error());
        const auto gone = [&] { return context->IsCancelled() || stopping_; };
        const grpc::Status cancelled(grpc::StatusCode::CANCELLED, "sckptctld is stopping; the checkpoint goes on without you");
        const auto step = request->has_step_id() ? std::optional(request->step_id()) : std::nullopt;
        if (const auto runs = Controller::check_not_suspended(request->job_id()); !runs) return rpc::status_from_error(runs.error());
        Result<Controller::Watch> watch = controller_.create(request->job_id(), step, request->requeue(), *caller);
        while (!watch && watch.error().code == Errc::exists) {  // the one before is on its way into the store
            if (gone()) return cancelled;
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
            watch = controller_.create(request->job_id(), step, request->requeue(), *caller);
        }
        if (!watch) return rpc::status_from_error(watch.error());
        rpc::CreateProgress last;
        while (!watch->finished()) {
            if (gone()) return cancelled;
            const auto progress = watch->next();
            if (!progress) return rpc::status_from_error(progress.error());
            if (!*progress) continue;
            last = **progress;
            writer->Write(last);
        }
        if (!request->requeue()) return grpc::Status::OK;
        if (const auto done = controller_.requeue(request->job_id(), *caller); !done) return rpc::status_from_error(done.error());
        last.set_phase(rpc::CreateProgress::REQUEUED);
        writer->Write(last);
        return grpc::Status::OK;
    });
}

grpc::Status CommandService::List(grpc::ServerContext* context, const rpc::ListRequest* request, rpc::ListReply* reply) {
    return guarded([&]() -> grpc::Status {
        const auto caller = rpc::authenticate(*context, "/sckpt.rpc.Sckpt/List", request);
        if (!caller) return rpc::status_from_error(caller.error());
        return answer(controller_.list(request->job_id(), *caller), reply);
    });
}

grpc::Status CommandService::Show(grpc::ServerContext* context, const rpc::ShowRequest* request, rpc::ShowReply* reply) {
    return guarded([&]() -> grpc::Status {
        const auto caller = rpc::authenticate(*context, "/sckpt.rpc.Sckpt/Show", request);
        if (!caller) return rpc::status_from_error(caller.error());
        return answer(controller_.show(request->job_id(), request->checkpoint(), *caller), reply);
    });
}

grpc::Status CommandService::Status(grpc::ServerContext* context, const rpc::StatusRequest* request, rpc::StatusReply* reply) {
    return guarded([&]() -> grpc::Status {
        const auto caller = rpc::authenticate(*context, "/sckpt.rpc.Sckpt/Status", request);
        if (!caller) return rpc::status_from_error(caller.error());
        *reply = controller_.status();
        rpc::make_utf8(*reply);
        return grpc::Status::OK;
    });
}

grpc::Status CommandService::Pin(grpc::ServerContext* context, const rpc::PinRequest* request, rpc::PinReply* reply) {
    return guarded([&]() -> grpc::Status {
        const auto caller = rpc::authenticate(*context, "/sckpt.rpc.Sckpt/Pin", request);
        if (!caller) return rpc::status_from_error(caller.error());
        return answer(controller_.pin(*request, *caller), reply);
    });
}

grpc::Status CommandService::FindJobs(grpc::ServerContext* context, const rpc::FindJobsRequest* request, rpc::FindJobsReply* reply) {
    return guarded([&]() -> grpc::Status {
        const auto caller = rpc::authenticate(*context, "/sckpt.rpc.Sckpt/FindJobs", request);
        if (!caller) return rpc::status_from_error(caller.error());
        return answer(controller_.find_jobs(*request, *caller), reply);
    });
}

grpc::Status CommandService::FindStep(grpc::ServerContext* context, const rpc::FindStepRequest* request, rpc::FindStepReply* reply) {
    return guarded([&]() -> grpc::Status {
        const auto caller = rpc::authenticate(*context, "/sckpt.rpc.Sckpt/FindStep", request);
        if (!caller) return rpc::status_from_error(caller.error());
        return answer(controller_.find_step(*request, *caller), reply);
    });
}

grpc::Status CommandService::Watch(grpc::ServerContext* context, const rpc::WatchRequest* request,
                                   grpc::ServerWriter<rpc::WatchReply>* writer) {
    return guarded([&]() -> grpc::Status {
        const auto caller = rpc::authenticate(*context, "/sckpt.rpc.Sckpt/Watch", request);
        if (!caller) return rpc::status_from_error(caller.error());
        std::uint64_t seen = 0;
        while (!context->IsCancelled() && !stopping_) {
            auto reply = controller_.under_way({request->job_ids().begin(), request->job_ids().end()}, *caller);
            if (!reply) return rpc::status_from_error(reply.error());
            rpc::make_utf8(*reply);
            if (!writer->Write(*reply)) break;
            std::this_thread::sleep_for(kWatchPause);  // in a busy cluster something changes all the time
            seen = controller_.wait_for_change(seen);
        }
        return {grpc::StatusCode::CANCELLED, "sckptctld is stopping"};
    });
}

Result<> ControllerDesk::attach(const rpc::NodeHello& hello, const std::shared_ptr<NodeOutbox>& outbox) {
    rpc::ControllerMessage welcome;
    SCKPT_ASSIGN(*welcome.mutable_welcome()->mutable_credential(), trust_.prove(hello.nonce()));
    outbox->push(std::move(welcome));
    controller_.attach(hello, outbox);
    return {};
}

namespace {

// The whole database.
grpc::Status send_backup(StoreKeeper& keeper, grpc::ServerWriter<rpc::BackupPiece>& writer) {
    const auto file = keeper.open_backup();
    if (!file) return rpc::status_from_error(file.error());
    rpc::BackupPiece piece;
    for (;;) {
        piece.mutable_data()->resize(kPiece);
        const ssize_t got = read(file->get(), piece.mutable_data()->data(), kPiece);
        if (got < 0) return rpc::status_from_error(fail_errno("reading the copy of the catalogue").error());
        if (got == 0) return grpc::Status::OK;
        piece.mutable_data()->resize(static_cast<std::size_t>(got));
        if (!writer.Write(piece)) return {grpc::StatusCode::CANCELLED, "the node went away"};
    }
}

}  // namespace

// For the very node that a Backup order was given to, while it works on it.
grpc::Status NodeService::FetchBackup(grpc::ServerContext* context, const rpc::BackupRequest* request,
                                      grpc::ServerWriter<rpc::BackupPiece>* writer) {
    return guarded([&]() -> grpc::Status {
        const auto caller = rpc::authenticate(*context, "/sckpt.rpc.Node/FetchBackup", request);
        if (!caller) return rpc::status_from_error(caller.error());
        const auto node = orders_.node_of(request->order());
        if (caller->uid != 0 || !node)
            return {grpc::StatusCode::PERMISSION_DENIED, "only the node that was asked for it may keep a backup"};
        if (const auto known = addresses_.verify(*node, context->peer()); !known) return rpc::status_from_error(known.error());
        return send_backup(keeper_, *writer);
    });
}

// The same for its relay, which has made sure that it is this node who asks.
grpc::Status RelayService::FetchBackup(grpc::ServerContext* context, const rpc::RelayedBackupRequest* request,
                                       grpc::ServerWriter<rpc::BackupPiece>* writer) {
    return guarded([&]() -> grpc::Status {
        const auto caller = rpc::authenticate(*context, "/sckpt.rpc.Relay/FetchBackup", request);
        if (!caller) return rpc::status_from_error(caller.error());
        if (const auto may = trust_.may_relay(*caller, context->peer()); !may) return rpc::status_from_error(may.error());
        if (orders_.node_of(request->order()) != request->node())
            return {grpc::StatusCode::PERMISSION_DENIED, "only the node that was asked for it may keep a backup"};
        return send_backup(keeper_, *writer);
    });
}

}  // namespace sckpt
