// SPDX-License-Identifier: GPL-3.0-or-later
//
// Streams of nodes through a real server on 127.0.0.1: order, nodes that wait for nobody, ends of every kind, strangers.
#include <atomic>
#include <latch>
#include <numeric>
#include <optional>
#include <thread>

#include "daemon/node_streams.h"
#include "rpc/server_auth.h"
#include "tests/unit/node_streams_for_tests.h"

using namespace sckpt;
using namespace sckpt::test;

namespace {

class Service final : public rpc::Node::WithCallbackMethod_Attach<rpc::Node::Service> {
   public:
    explicit Service(NodeStreams& streams) : streams_(streams) {}
    using rpc::Node::WithCallbackMethod_Attach<rpc::Node::Service>::Attach;
    NodeStreams::Stream::Reactor* Attach(grpc::CallbackServerContext* context) override { return streams_.attach(context); }

   private:
    NodeStreams& streams_;
};

struct Bed {
    explicit Bed(const NodeStreams::Limits& limits = {}) : streams(desk, limits) {
        grpc::ServerBuilder builder;
        rpc::set_keepalive(builder);
        builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
        builder.RegisterService(&service);
        server = builder.BuildAndStart();
        REQUIRE(server != nullptr);
    }
    ~Bed() { stop(); }
    void stop() {
        if (server) server->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
        server.reset();
    }

    NotingDesk desk;
    NodeStreams streams;
    Service service{streams};
    int port = 0;
    std::unique_ptr<grpc::Server> server;
};

std::vector<std::uint64_t> numbers(std::size_t count) {
    std::vector<std::uint64_t> all(count);
    std::iota(all.begin(), all.end(), 0);
    return all;
}

}  // namespace

TEST_CASE("what a node says and is told keeps its order", "[node_streams]") {
    constexpr std::size_t kMessages = 500;
    Bed bed;
    StreamClient first(bed.port), second(bed.port);
    REQUIRE(first.welcomed("n1"));
    REQUIRE(second.welcomed("n2"));
    bed.desk.wait_attached("n1");
    bed.desk.wait_attached("n2");
    for (std::size_t i = 0; i < kMessages; ++i) {
        REQUIRE(first.say(i));
        REQUIRE(second.say(i));
        bed.desk.outbox("n1")->push(drop_order(i));
    }
    bed.desk.wait_heard("n1", kMessages);
    bed.desk.wait_heard("n2", kMessages);
    CHECK(bed.desk.heard("n1") == numbers(kMessages));
    CHECK(bed.desk.heard("n2") == numbers(kMessages));
    rpc::ControllerMessage message;
    for (std::size_t i = 0; i < kMessages; ++i) {
        REQUIRE(first.read(message));
        REQUIRE(message.drop().checkpoint_id() == i);
    }
}

TEST_CASE("a hundred nodes cost no threads, and one whose message waits for Slurm holds up no other", "[node_streams]") {
    Bed bed({.quick_workers = 2, .slow_workers = 2, .hello = kPatience});
    std::latch let_go(1);
    bed.desk.on_message = [&](const std::string&, const rpc::NodeMessage& message) {
        if (message.has_task_started()) let_go.wait();
    };
    std::vector<std::unique_ptr<StreamClient>> nodes;
    for (int i = 0; i < 100; ++i) {
        nodes.push_back(std::make_unique<StreamClient>(bed.port));
        REQUIRE(nodes.back()->welcomed("n" + std::to_string(i)));
    }
    for (int i = 0; i < 10; ++i) REQUIRE(nodes[static_cast<std::size_t>(i)]->say_slow());  // more than there are slow workers
    for (int i = 10; i < 100; ++i) REQUIRE(nodes[static_cast<std::size_t>(i)]->say(7));
    for (int i = 10; i < 100; ++i) bed.desk.wait_heard("n" + std::to_string(i), 1);
    REQUIRE(nodes[0]->say(8));
    CHECK(bed.desk.heard("n0").empty());
    let_go.count_down();
    bed.desk.wait_heard("n0", 2);
    bed.desk.wait_heard("n9", 1);
}

TEST_CASE("however a stream ends, its node is detached once, after all that it said", "[node_streams]") {
    Bed bed;
    std::optional<StreamClient> client(std::in_place, bed.port);
    REQUIRE(client->welcomed("n1"));
    for (std::uint64_t i = 0; i < 50; ++i) REQUIRE(client->say(i));
    SECTION("it has said all") {
        client->half_close();
        CHECK(client->finish().ok());
        bed.desk.wait_detached("n1");
        CHECK(bed.desk.heard_at_end("n1") == 50);
    }
    SECTION("it breaks off") {
        client->cancel();
        CHECK(client->finish().error_code() == grpc::StatusCode::CANCELLED);
        bed.desk.wait_detached("n1");
    }
    SECTION("the server stops") {
        bed.desk.wait_heard("n1", 50);
        bed.stop();
        CHECK_FALSE(client->finish().ok());
        bed.desk.wait_detached("n1");
    }
    client.reset();
    bed.stop();
    CHECK(bed.desk.detached("n1") == 1);
}

TEST_CASE("a server with open streams stops, also while a message is handled", "[node_streams]") {
    Bed bed;
    std::latch at_work(1), let_go(1);
    bed.desk.on_message = [&](const std::string& node, const rpc::NodeMessage&) {
        if (node != "busy") return;
        at_work.count_down();
        let_go.wait();
    };
    StreamClient idle(bed.port), busy(bed.port), silent(bed.port);
    REQUIRE(idle.welcomed("idle"));
    REQUIRE(busy.welcomed("busy"));
    REQUIRE(busy.say(1));
    at_work.wait();
    bed.stop();
    bed.desk.wait_detached("idle");
    CHECK(bed.desk.detached("busy") == 0);
    let_go.count_down();
    bed.desk.wait_detached("busy");
    CHECK(bed.desk.heard_at_end("busy") == 1);
}

TEST_CASE("a node that attaches anew has a new outbox; the end of the old stream comes for itself", "[node_streams]") {
    Bed bed;
    std::optional<StreamClient> old(std::in_place, bed.port);
    REQUIRE(old->welcomed("n1"));
    bed.desk.wait_attached("n1");
    const auto old_outbox = bed.desk.outbox("n1");
    StreamClient fresh(bed.port);
    REQUIRE(fresh.welcomed("n1"));
    bed.desk.wait_attached("n1", 2);
    CHECK(bed.desk.outbox("n1") != old_outbox);
    old.reset();
    bed.desk.wait_detached("n1");
    old_outbox->push(drop_order(1));  // is lost
    bed.desk.outbox("n1")->push(drop_order(2));
    rpc::ControllerMessage message;
    REQUIRE(fresh.read(message));
    CHECK(message.drop().checkpoint_id() == 2);
}

TEST_CASE("strangers get no further than their credential, and who says no hello is sent away", "[node_streams]") {
    Bed bed({.quick_workers = 1, .slow_workers = 1, .hello = std::chrono::seconds(3)});
    const auto status_of = [&](const std::string& credential, const auto& act) {
        StreamClient client(bed.port, credential);
        act(client);
        rpc::ControllerMessage message;
        CHECK_FALSE(client.read(message));
        return client.finish().error_code();
    };
    CHECK(status_of("forged", [](StreamClient&) {}) == grpc::StatusCode::PERMISSION_DENIED);
    CHECK(status_of("good", [](StreamClient& client) { client.say(1); }) == grpc::StatusCode::INVALID_ARGUMENT);
    CHECK(status_of("good", [](StreamClient& client) { client.hello("unknown"); }) == grpc::StatusCode::PERMISSION_DENIED);
    CHECK(status_of("good", [](StreamClient& client) { client.hello(""); }) == grpc::StatusCode::INVALID_ARGUMENT);
    CHECK(bed.desk.detached("unknown") == 0);
    StreamClient known(bed.port);  // the limit is the hello's alone: it outlives one that comes later and says none
    REQUIRE(known.welcomed("n1"));
    CHECK(status_of("good", [](StreamClient&) {}) == grpc::StatusCode::DEADLINE_EXCEEDED);
    REQUIRE(known.say(1));
    bed.desk.wait_heard("n1", 1);
}

TEST_CASE("a node that does not read is cut off before its orders fill the memory", "[node_streams]") {
    Bed bed({.queued_bytes = 1 << 20});
    StreamClient client(bed.port);
    REQUIRE(client.welcomed("n1"));
    bed.desk.wait_attached("n1");
    rpc::ControllerMessage large;
    large.mutable_resume()->set_text(std::string(64 << 10, 'x'));
    const auto outbox = bed.desk.outbox("n1");
    for (int i = 0; i < 1000 && bed.desk.detached("n1") == 0; ++i) outbox->push(large);
    bed.desk.wait_detached("n1");
}

TEST_CASE("an exception in the handling of a message ends that stream alone", "[node_streams]") {
    Bed bed;
    bed.desk.on_message = [](const std::string& node, const rpc::NodeMessage&) {
        if (node == "n1") throw std::bad_alloc();
    };
    StreamClient first(bed.port), second(bed.port);
    REQUIRE(first.welcomed("n1"));
    REQUIRE(second.welcomed("n2"));
    REQUIRE(first.say(1));
    rpc::ControllerMessage message;
    CHECK_FALSE(first.read(message));
    CHECK(first.finish().error_code() == grpc::StatusCode::INTERNAL);
    bed.desk.wait_detached("n1");
    REQUIRE(second.say(1));
    bed.desk.wait_heard("n2", 1);
}
