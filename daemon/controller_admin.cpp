// SPDX-License-Identifier: GPL-3.0-or-later
//
// The administrator's calls: for operators only; each ends with the client that asked for it.
#include "daemon/controller_service.h"
#include "rpc/server_auth.h"

namespace sckpt {
namespace {

template <class Message>
auto writes(grpc::ServerWriter<Message>* writer) {
    return [writer](const Message& message) {
        Message copy = message;
        rpc::make_utf8(copy);
        writer->Write(copy);
    };
}

grpc::Status end(const Result<>& done) { return done ? grpc::Status::OK : rpc::status_from_error(done.error()); }

}  // namespace

Result<> CommandService::administrator(const grpc::ServerContext& context, const char* method,
                                       const google::protobuf::Message* request) const {
    SCKPT_ASSIGN(const rpc::Caller caller, rpc::authenticate(context, method, request));
    return controller_.may_administer(caller);
}

grpc::Status CommandService::Report(grpc::ServerContext* context, const rpc::ReportRequest* request, rpc::ReportReply* reply) {
    return guarded([&]() -> grpc::Status {
        if (const auto may = administrator(*context, "/sckpt.rpc.Sckpt/Report", request); !may) return end(may);
        const auto gone = [&] { return context->IsCancelled() || stopping_; };
        return answer(keeper_.report(request->rules(), unix_now(), gone), reply);
    });
}

grpc::Status CommandService::Clean(grpc::ServerContext* context, const rpc::CleanRequest* request, Writer<rpc::CleanProgress>* writer) {
    return guarded([&]() -> grpc::Status {
        if (const auto may = administrator(*context, "/sckpt.rpc.Sckpt/Clean", request); !may) return end(may);
        const auto gone = [&] { return context->IsCancelled() || stopping_; };
        return end(keeper_.clean(request->rules(), unix_now(), writes(writer), gone));
    });
}

grpc::Status CommandService::Orphans(grpc::ServerContext* context, const rpc::OrphansRequest* request, rpc::OrphansReply* reply) {
    return guarded([&]() -> grpc::Status {
        if (const auto may = administrator(*context, "/sckpt.rpc.Sckpt/Orphans", request); !may) return end(may);
        const auto gone = [&] { return context->IsCancelled() || stopping_; };
        const auto mode = request->remove() ? StoreKeeper::Orphans::remove : StoreKeeper::Orphans::report;
        auto found = keeper_.orphans(mode, unix_now(), gone);
        if (found)
            for (rpc::Orphan& leftover : controller_.fast_tier_leftovers()) *found->add_orphans() = std::move(leftover);
        return answer(std::move(found), reply);
    });
}

grpc::Status CommandService::Check(grpc::ServerContext* context, const rpc::CheckRequest* request, Writer<rpc::CheckProgress>* writer) {
    return guarded([&]() -> grpc::Status {
        if (const auto may = administrator(*context, "/sckpt.rpc.Sckpt/Check", request); !may) return end(may);
        const auto gone = [&] { return context->IsCancelled() || stopping_; };
        return end(keeper_.check(*request, unix_now(), writes(writer), gone));
    });
}

grpc::Status CommandService::RebuildCatalogue(grpc::ServerContext* context, const rpc::RebuildRequest* request,
                                              Writer<rpc::RebuildProgress>* writer) {
    return guarded([&]() -> grpc::Status {
        if (const auto may = administrator(*context, "/sckpt.rpc.Sckpt/RebuildCatalogue", request); !may) return end(may);
        const auto gone = [&] { return context->IsCancelled() || stopping_; };
        return end(keeper_.rebuild(writes(writer), gone));
    });
}

}  // namespace sckpt
