// SPDX-License-Identifier: GPL-3.0-or-later
//
// A client that lies to sckptctld, for the system tests: rogue_rpc HOST PORT attach NODE | create JOB none|garbage|other|replay
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
    return std::string(argv[3]) == "attach" ? attach(*channel, argv[4]) : create(*channel, argv[4], argc > 5 ? argv[5] : "replay");
}
