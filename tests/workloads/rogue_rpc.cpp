// SPDX-License-Identifier: GPL-3.0-or-later
//
// A client that lies to sckptctld, for the system tests: rogue_rpc HOST PORT attach NODE | create JOB none|garbage|other|replay
//   | foreign NODE CHECKPOINT-ROW COMPLETE-ROW RESTART-COUNT
// Prints the gRPC status of the last call and its message.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "rpc/auth_munge.h"
#include "rpc/channel.h"
#include "rpc/purpose.h"
#include "rpc/sckpt.grpc.pb.h"

namespace {

using namespace sckpt;

constexpr const char* kCreate = "/sckpt.rpc.Sckpt/Create";

int report(const grpc::Status& status) {
    std::printf("%d %s\n", static_cast<int>(status.error_code()), status.error_message().c_str());
    return 0;
}

int attach(const std::shared_ptr<grpc::Channel>& channel, const std::string& node) {
    grpc::ClientContext context;
    if (!rpc::add_credential(context, "/sckpt.rpc.Node/Attach", nullptr)) return 1;
    const auto stream = rpc::Node::NewStub(channel)->Attach(&context);
    rpc::NodeMessage hello;
    hello.mutable_hello()->set_name(node);
    hello.mutable_hello()->set_nonce("nonce");
    rpc::ControllerMessage welcome;
    if (stream->Write(hello) && stream->Read(&welcome)) {
        std::printf("WELCOME\n");
        context.TryCancel();
    }
    return report(stream->Finish());
}

// A real node that tells of checkpoints of another one: all that it could say of them.
int foreign(const std::shared_ptr<grpc::Channel>& channel, const std::string& node, std::uint64_t made, std::uint64_t complete,
            std::uint32_t restart_count) {
    grpc::ClientContext context;
    if (!rpc::add_credential(context, "/sckpt.rpc.Node/Attach", nullptr)) return 1;
    const auto stream = rpc::Node::NewStub(channel)->Attach(&context);
    rpc::NodeMessage hello;
    hello.mutable_hello()->set_name(node);
    hello.mutable_hello()->set_nonce("nonce");
    rpc::ControllerMessage welcome;
    if (!stream->Write(hello) || !stream->Read(&welcome)) return report(stream->Finish());
    rpc::NodeMessage dump, progress, store, restore;
    dump.mutable_dump_done()->set_checkpoint_id(made);
    dump.mutable_dump_done()->set_error("a lie");
    progress.mutable_drain_progress()->set_checkpoint_id(made);
    progress.mutable_drain_progress()->mutable_drain()->set_phase(rpc::Drain::WAITING);
    progress.mutable_drain_progress()->mutable_drain()->set_text("a lie");
    store.mutable_store_done()->set_checkpoint_id(made);
    store.mutable_store_done()->set_error("a lie");
    restore.mutable_restore_done()->set_checkpoint_id(complete);
    restore.mutable_restore_done()->set_restart_count(restart_count);
    restore.mutable_restore_done()->set_error("a lie");
    restore.mutable_restore_done()->set_image_bad(true);
    for (const rpc::NodeMessage& message : {dump, progress, store, restore})
        if (!stream->Write(message)) return 1;
    stream->WritesDone();
    std::printf("said\n");
    while (stream->Read(&welcome)) {
    }
    return report(stream->Finish());
}

grpc::Status call_create(const std::shared_ptr<grpc::Channel>& channel, const rpc::CreateRequest& request, const std::string& credential) {
    grpc::ClientContext context;
    if (!credential.empty()) context.AddMetadata(rpc::kCredentialKey, credential);
    const auto stream = rpc::Sckpt::NewStub(channel)->Create(&context, request);
    rpc::CreateProgress progress;
    while (stream->Read(&progress)) {
    }
    return stream->Finish();
}

int create(const std::shared_ptr<grpc::Channel>& channel, const std::string& job, const std::string& how) {
    rpc::CreateRequest request, other;
    request.set_job_id(static_cast<std::uint32_t>(std::strtoul(job.c_str(), nullptr, 10)));
    other.set_job_id(request.job_id() + 1);
    const auto good = rpc::make_credential(rpc::call_purpose(kCreate, &request)), wrong = rpc::make_credential(rpc::call_purpose(kCreate, &other));
    if (!good || !wrong) return 1;
    if (how == "none") return report(call_create(channel, request, ""));
    if (how == "garbage") return report(call_create(channel, request, "MUNGE:AwQFAAD:"));
    if (how == "other") return report(call_create(channel, request, *wrong));
    std::printf("first %d\n", static_cast<int>(call_create(channel, request, *good).error_code()));
    return report(call_create(channel, request, *good));
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 5) return 2;
    const auto channel = rpc::make_channel(argv[1], std::atoi(argv[2]));
    if (!channel) return 1;
    if (std::string(argv[3]) == "foreign" && argc == 8)
        return foreign(*channel, argv[4], std::strtoull(argv[5], nullptr, 10), std::strtoull(argv[6], nullptr, 10),
                       static_cast<std::uint32_t>(std::strtoul(argv[7], nullptr, 10)));
    return std::string(argv[3]) == "attach" ? attach(*channel, argv[4]) : create(*channel, argv[4], argc > 5 ? argv[5] : "replay");
}
