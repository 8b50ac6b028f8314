// SPDX-License-Identifier: GPL-3.0-or-later
//
// Whole calls through a gRPC server on 127.0.0.1 with a real munged: who called is known, a changed request is refused.
#include <arpa/inet.h>
#include <grpcpp/grpcpp.h>
#include <unistd.h>
#include <catch2/catch_test_macros.hpp>
#include <memory>
#include <string>

#include "rpc/channel.h"
#include "rpc/purpose.h"
#include "rpc/sckpt.grpc.pb.h"
#include "rpc/server_auth.h"
#include "tests/unit/munged_for_tests.h"

using namespace sckpt;

namespace {

constexpr const char* kList = "/sckpt.rpc.Sckpt/List";
constexpr const char* kAttach = "/sckpt.rpc.Node/Attach";

// Answers List with one job whose uid is the caller's.
class Service final : public rpc::Sckpt::Service {
   public:
    explicit Service(std::string socket) : socket_(std::move(socket)) {}
    grpc::Status List(grpc::ServerContext* context, const rpc::ListRequest* request, rpc::ListReply* reply) override {
        const auto caller = rpc::authenticate(*context, kList, request, socket_.c_str());
        if (!caller) return rpc::status_from_error(caller.error());
        const auto address = rpc::peer_address(context->peer());
        if (!address) return rpc::status_from_error(address.error());
        if (*address != htonl(INADDR_LOOPBACK)) return rpc::status_from_error({Errc::internal, "the peer's address is wrong"});
        if (request->job_id() == 404) return rpc::status_from_error({Errc::not_found, "no job 404"});
        if (request->job_id() == 28) return rpc::status_from_error({Errc::no_space, std::string(100'000, 'x')});
        reply->add_jobs()->set_uid(caller->uid);
        return grpc::Status::OK;
    }

   private:
    std::string socket_;
};

class NodeService final : public rpc::Node::Service {
   public:
    explicit NodeService(std::string socket) : socket_(std::move(socket)) {}
    grpc::Status Attach(grpc::ServerContext* context, grpc::ServerReaderWriter<rpc::ControllerMessage, rpc::NodeMessage>* stream) override {
        const auto caller = rpc::authenticate(*context, kAttach, nullptr, socket_.c_str());
        if (!caller) return rpc::status_from_error(caller.error());
        rpc::NodeMessage hello;
        if (!stream->Read(&hello)) return rpc::status_from_error({Errc::invalid, "no hello"});
        const auto proof = rpc::make_credential(rpc::welcome_purpose(hello.hello().nonce()), socket_.c_str());
        if (!proof) return rpc::status_from_error(proof.error());
        rpc::ControllerMessage welcome;
        welcome.mutable_welcome()->set_credential(*proof);
        stream->Write(welcome);
        return grpc::Status::OK;
    }

   private:
    std::string socket_;
};

struct Bed {
    test::Munged munged;
    std::string socket = munged.socket();
    Service service{socket};
    NodeService node_service{socket};
    int port = 0;
    std::unique_ptr<grpc::Server> server;
    std::shared_ptr<grpc::Channel> channel;

    Bed() {
        grpc::ServerBuilder builder;
        rpc::set_keepalive(builder);
        builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
        builder.RegisterService(&service);
        builder.RegisterService(&node_service);
        server = builder.BuildAndStart();
        REQUIRE(server != nullptr);
        auto made = rpc::make_channel("127.0.0.1", port);
        REQUIRE(made.has_value());
        channel = *made;
    }

    // Sends `sent` with a credential that was made for `method` and `credited`.
    grpc::Status call(const char* method, const rpc::ListRequest& credited, const rpc::ListRequest& sent, rpc::ListReply& reply) {
        grpc::ClientContext context;
        context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
        REQUIRE(rpc::add_credential(context, method, &credited, socket.c_str()).has_value());
        return rpc::Sckpt::NewStub(channel)->List(&context, sent, &reply);
    }
};

rpc::ListRequest request_for(std::uint32_t job_id) {
    rpc::ListRequest request;
    request.set_job_id(job_id);
    return request;
}

}  // namespace

TEST_CASE("a call tells the server who made it") {
    SCKPT_REQUIRE_MUNGED();
    Bed bed;
    rpc::ListReply reply;
    const grpc::Status status = bed.call(kList, request_for(12), request_for(12), reply);
    INFO(status.error_message());
    REQUIRE(status.ok());
    REQUIRE(reply.jobs_size() == 1);
    CHECK(reply.jobs(0).uid() == getuid());
}

TEST_CASE("a request that was changed on the way is refused, and so is another method's credential") {
    SCKPT_REQUIRE_MUNGED();
    Bed bed;
    rpc::ListReply reply;
    const auto changed = bed.call(kList, request_for(12), request_for(13), reply);
    CHECK(rpc::error_from_status(changed).code == Errc::denied);
    CHECK(rpc::answered_by_peer(changed));
    const auto other_method = bed.call("/sckpt.rpc.Sckpt/Show", request_for(12), request_for(12), reply);
    CHECK(rpc::error_from_status(other_method).code == Errc::denied);
    CHECK(reply.jobs_size() == 0);
}

TEST_CASE("a call without a credential, or with two, is refused") {
    SCKPT_REQUIRE_MUNGED();
    Bed bed;
    const rpc::ListRequest request = request_for(12);
    for (int credentials : {0, 2}) {
        grpc::ClientContext context;
        for (int i = 0; i < credentials; ++i) REQUIRE(rpc::add_credential(context, kList, &request, bed.socket.c_str()).has_value());
        rpc::ListReply reply;
        const auto status = rpc::Sckpt::NewStub(bed.channel)->List(&context, request, &reply);
        CHECK(rpc::error_from_status(status).code == Errc::denied);
    }
}

TEST_CASE("a credential that was seen on the network is worth nothing a second time") {
    SCKPT_REQUIRE_MUNGED();
    Bed bed;
    const rpc::ListRequest request = request_for(12);
    const auto credential = rpc::make_credential(rpc::call_purpose(kList, &request), bed.socket.c_str());
    REQUIRE(credential.has_value());
    for (const bool first : {true, false}) {
        grpc::ClientContext context;
        context.AddMetadata(rpc::kCredentialKey, *credential);
        rpc::ListReply reply;
        const auto status = rpc::Sckpt::NewStub(bed.channel)->List(&context, request, &reply);
        CHECK(status.ok() == first);
    }
}

TEST_CASE("the kind of an error and its text arrive, a long text shortened") {
    SCKPT_REQUIRE_MUNGED();
    Bed bed;
    rpc::ListReply reply;
    const Error not_found = rpc::error_from_status(bed.call(kList, request_for(404), request_for(404), reply));
    CHECK(not_found.code == Errc::not_found);
    CHECK(not_found.text == "no job 404");
    const Error no_space = rpc::error_from_status(bed.call(kList, request_for(28), request_for(28), reply));
    CHECK(no_space.code == Errc::no_space);
    CHECK(no_space.text.size() < 4096);
}

TEST_CASE("the controller proves itself over the node's nonce") {
    SCKPT_REQUIRE_MUNGED();
    Bed bed;
    grpc::ClientContext context;
    REQUIRE(rpc::add_credential(context, kAttach, nullptr, bed.socket.c_str()).has_value());
    auto stream = rpc::Node::NewStub(bed.channel)->Attach(&context);
    rpc::NodeMessage hello;
    hello.mutable_hello()->set_nonce(std::string("\xff\x00nonce", 7));
    REQUIRE(stream->Write(hello));
    rpc::ControllerMessage welcome;
    REQUIRE(stream->Read(&welcome));
    const auto proof =
        rpc::check_credential(welcome.welcome().credential(), rpc::welcome_purpose(hello.hello().nonce()), bed.socket.c_str());
    REQUIRE(proof.has_value());
    CHECK(proof->uid == getuid());
    CHECK(stream->Finish().ok());
}

TEST_CASE("nobody listening is told apart from an answer") {
    auto channel = rpc::make_channel("127.0.0.1", 1);  // tcpmux: nothing listens there
    REQUIRE(channel.has_value());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
    rpc::ListReply reply;
    const auto status = rpc::Sckpt::NewStub(*channel)->List(&context, request_for(1), &reply);
    CHECK(rpc::error_from_status(status).code == Errc::unavailable);
    CHECK_FALSE(rpc::answered_by_peer(status));
}

TEST_CASE("a status keeps every kind of error") {
    for (const Errc code : {Errc::not_found, Errc::exists, Errc::invalid, Errc::denied, Errc::busy, Errc::no_space, Errc::corrupt,
                            Errc::unsupported, Errc::timeout, Errc::io, Errc::unavailable, Errc::internal}) {
        const Error back = rpc::error_from_status(rpc::status_from_error({code, "text"}));
        CHECK(back.code == code);
        CHECK(back.text == "text");
    }
    CHECK(rpc::error_from_status({grpc::StatusCode::UNIMPLEMENTED, ""}).code == Errc::unsupported);
    CHECK(rpc::error_from_status({grpc::StatusCode::DEADLINE_EXCEEDED, "Deadline Exceeded"}).code == Errc::timeout);
}

TEST_CASE("channels are made for sensible places only") {
    CHECK(rpc::make_channel("", 6830).error().code == Errc::invalid);
    CHECK(rpc::make_channel("host", 0).error().code == Errc::invalid);
    CHECK(rpc::make_channel("host", 65536).error().code == Errc::invalid);
}

TEST_CASE("the peer's IPv4 address") {
    CHECK(rpc::peer_address("ipv4:10.77.0.1:43210").value() == inet_addr("10.77.0.1"));
    for (const char* bad : {"ipv6:[::1]:43210", "ipv4:", "ipv4:10.77.0.1", "ipv4:10.77.0:1", "unix:/tmp/x", ""})
        CHECK_FALSE(rpc::peer_address(bad).has_value());
}
