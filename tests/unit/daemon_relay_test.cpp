// SPDX-License-Identifier: GPL-3.0-or-later
//
// Relays through real servers on 127.0.0.1: nodes behind them are nodes like others, in every way of ending.
#include <algorithm>
#include <catch2/generators/catch_generators.hpp>
#include <latch>
#include <numeric>
#include <optional>
#include <set>

#include "daemon/relay_desk.h"
#include "daemon/stream_service.h"
#include "rpc/server_auth.h"
#include "tests/unit/node_streams_for_tests.h"

using namespace sckpt;
using namespace sckpt::test;

namespace {

class Server {
   public:
    explicit Server(NodeDesk& desk, int wanted_port = 0, const RelayStreams::Limits& limits = {})
        : node_streams_(desk), relay_streams_(desk, node_streams_.workers(), limits) {
        grpc::ServerBuilder builder;
        rpc::set_keepalive(builder);
        builder.AddListeningPort("127.0.0.1:" + std::to_string(wanted_port), grpc::InsecureServerCredentials(), &port);
        builder.RegisterService(&nodes_);
        builder.RegisterService(&relays_);
        server_ = builder.BuildAndStart();
        REQUIRE(server_ != nullptr);
    }
    ~Server() { server_->Shutdown(std::chrono::system_clock::now()); }
    int port = 0;

   private:
    NodeStreams node_streams_;
    RelayStreams relay_streams_;
    NodeStreamService nodes_{node_streams_};
    RelayStreamService relays_{relay_streams_};
    std::unique_ptr<grpc::Server> server_;
};

// With words for credentials, as NotingDesk.
class WordsRelayDesk final : public RelayDesk {
   public:
    WordsRelayDesk(const PeerTrust& trust, NodeAddresses& addresses) : RelayDesk(trust, addresses) {}
    Result<> admit(const std::string& credential) override {
        if (credential == "good") return {};
        return fail(Errc::denied, "the credential is " + credential);
    }
    Result<> admit_relay(const std::string& credential, const std::string&) override { return admit(credential); }
    Result<std::string> prove(const std::string& nonce) override { return "proof of " + nonce; }
};

class Relay {
   public:
    explicit Relay(int upstream_port)
        : uplink_("127.0.0.1", upstream_port,
                  {[this](rpc::RelayedOrder order) { desk_.order(std::move(order)); }, [this] { desk_.lost(); },
                   [](const rpc::Welcome& welcome, const std::string& nonce) -> Result<> {
                       if (welcome.credential() == "proof of " + nonce) return {};
                       return fail(Errc::denied, "no proof");
                   },
                   [](grpc::ClientContext& context, std::string_view) -> Result<> {
                       context.AddMetadata(rpc::kCredentialKey, "good");
                       return {};
                   }}) {
        desk_.use(uplink_);
        server_.emplace(desk_);
        uplink_.start();
    }
    int port() const { return server_->port; }
    bool connected() const { return uplink_.connected(); }
    void wait_connected(bool wanted = true) const {
        const auto deadline = std::chrono::steady_clock::now() + kPatience;
        while (connected() != wanted) {
            REQUIRE(std::chrono::steady_clock::now() < deadline);
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    }

   private:
    PeerTrust trust_{{}};
    NodeAddresses addresses_{[]() -> Result<NodeAddresses::Table> {
        NodeAddresses::Table table;
        for (int i = 0; i < 1000; ++i) table.emplace("n" + std::to_string(i), "127.0.0.1");
        table.emplace("elsewhere", "127.0.0.2");
        return table;
    }};
    WordsRelayDesk desk_{trust_, addresses_};
    RelayUplink uplink_;
    std::optional<Server> server_;  // goes first: its nodes speak to the uplink
};

std::vector<std::uint64_t> numbers(std::size_t count) {
    std::vector<std::uint64_t> all(count);
    std::iota(all.begin(), all.end(), 0);
    return all;
}

std::vector<std::unique_ptr<StreamClient>> attach_many(NotingDesk& desk, int port, int first, int count) {
    std::vector<std::unique_ptr<StreamClient>> nodes;
    for (int i = first; i < first + count; ++i) {
        nodes.push_back(std::make_unique<StreamClient>(port));
        REQUIRE(nodes.back()->welcomed("n" + std::to_string(i)));
        desk.wait_attached("n" + std::to_string(i));
    }
    return nodes;
}

}  // namespace

TEST_CASE("nodes behind a relay, and behind two, say and are told all in order", "[relay]") {
    constexpr std::size_t kMessages = 300;
    NotingDesk desk;
    const Server top(desk, 0, {.hello = kPatience, .queued_bytes = 1 << 30, .pending = GENERATE(std::size_t{1}, std::size_t{20'000})});
    const Relay upper(top.port);
    upper.wait_connected();
    const Relay lower(upper.port());
    lower.wait_connected();
    auto nodes = attach_many(desk, upper.port(), 0, 10);
    for (auto& node : attach_many(desk, lower.port(), 10, 10)) nodes.push_back(std::move(node));
    for (std::size_t i = 0; i < kMessages; ++i)
        for (const auto& node : nodes) REQUIRE(node->say(i));
    for (std::size_t i = 0; i < kMessages; ++i)
        for (int n = 0; n < 20; ++n) desk.outbox("n" + std::to_string(n))->push(drop_order(i));
    for (int n = 0; n < 20; ++n) {
        const std::string name = "n" + std::to_string(n);
        desk.wait_heard(name, kMessages);
        CHECK(desk.heard(name) == numbers(kMessages));
        rpc::ControllerMessage message;
        for (std::size_t i = 0; i < kMessages; ++i) {
            REQUIRE(nodes[static_cast<std::size_t>(n)]->read(message));
            REQUIRE(message.drop().checkpoint_id() == i);
        }
    }
}

TEST_CASE("a node that waits for Slurm holds up no other node of its relay", "[relay]") {
    NotingDesk desk;
    std::latch let_go(1);
    desk.on_message = [&](const std::string&, const rpc::NodeMessage& message) {
        if (message.has_task_started()) let_go.wait();
    };
    const Server top(desk);
    const Relay relay(top.port);
    relay.wait_connected();
    const auto nodes = attach_many(desk, relay.port(), 0, 40);
    for (int i = 0; i < 20; ++i) REQUIRE(nodes[static_cast<std::size_t>(i)]->say_slow());  // more than there are slow workers
    for (int i = 20; i < 40; ++i) REQUIRE(nodes[static_cast<std::size_t>(i)]->say(1));
    for (int i = 20; i < 40; ++i) desk.wait_heard("n" + std::to_string(i), 1);
    let_go.count_down();
    for (int i = 0; i < 20; ++i) desk.wait_heard("n" + std::to_string(i), 1);
}

TEST_CASE("the end of a node's stream is told once; the end of a relay is the end of all its nodes' streams", "[relay]") {
    NotingDesk desk;
    const Server top(desk);
    std::optional<Relay> relay(std::in_place, top.port);
    relay->wait_connected();
    auto nodes = attach_many(desk, relay->port(), 0, 10);
    for (std::uint64_t i = 0; i < 20; ++i) REQUIRE(nodes[0]->say(i));
    nodes[0]->half_close();
    CHECK(nodes[0]->finish().ok());
    desk.wait_detached("n0");
    CHECK(desk.heard_at_end("n0") == 20);
    relay.reset();
    rpc::ControllerMessage message;
    for (int i = 1; i < 10; ++i) {
        CHECK_FALSE(nodes[static_cast<std::size_t>(i)]->read(message));
        desk.wait_detached("n" + std::to_string(i));
    }
    // what they dial next is another relay, or the same one when it is back: nothing of the old one is in the way
    const Relay other(top.port);
    other.wait_connected();
    const auto again = attach_many(desk, other.port(), 0, 10);
    REQUIRE(again[3]->say(7));
    desk.wait_heard("n3", 1);
    for (int i = 0; i < 10; ++i) CHECK(desk.detached("n" + std::to_string(i)) == 1);
}

TEST_CASE("without a way up a relay has no nodes, and takes them when it is back", "[relay]") {
    NotingDesk desk;
    std::optional<Server> top(std::in_place, desk);
    const int port = top->port;
    const Relay relay(port);
    relay.wait_connected();
    const auto nodes = attach_many(desk, relay.port(), 0, 3);
    top.reset();
    rpc::ControllerMessage message;
    for (const auto& node : nodes) {
        CHECK_FALSE(node->read(message));
        CHECK(node->finish().error_code() == grpc::StatusCode::UNAVAILABLE);
    }
    relay.wait_connected(false);
    {
        StreamClient early(relay.port());
        REQUIRE(early.hello("n5"));
        CHECK_FALSE(early.read(message));
        CHECK(early.finish().error_code() == grpc::StatusCode::UNAVAILABLE);
    }
    top.emplace(desk, port);
    relay.wait_connected();
    const auto back = attach_many(desk, relay.port(), 5, 3);
    REQUIRE(back[0]->say(1));
    desk.wait_heard("n5", 1);
}

TEST_CASE("a refusal from above reaches the node, and a relay refuses strangers itself", "[relay]") {
    NotingDesk desk;
    desk.refused = "n13";
    const Server top(desk);
    const Relay relay(top.port);
    relay.wait_connected();
    rpc::ControllerMessage message;
    const auto status_of = [&](const std::string& credential, const std::string& name) {
        StreamClient client(relay.port(), credential);
        client.hello(name);
        CHECK_FALSE(client.read(message));
        return client.finish();
    };
    const grpc::Status refused = status_of("good", "n13");
    CHECK(refused.error_code() == grpc::StatusCode::PERMISSION_DENIED);
    CHECK(refused.error_message() == "n13 is not wanted");
    CHECK(status_of("forged", "n1").error_code() == grpc::StatusCode::PERMISSION_DENIED);
    CHECK(status_of("good", "elsewhere").error_code() == grpc::StatusCode::PERMISSION_DENIED);
    CHECK(status_of("good", "nobody").error_code() == grpc::StatusCode::NOT_FOUND);
    CHECK(desk.attached("elsewhere") == 0);
    StreamClient fine(relay.port());
    CHECK(fine.welcomed("n1"));
}

namespace {

// A relay's end of a stream, spoken by hand.
class RawRelay {
   public:
    explicit RawRelay(int port, const std::string& credential = "good") {
        auto channel = rpc::make_channel("127.0.0.1", port);
        REQUIRE(channel.has_value());
        context_.AddMetadata(rpc::kCredentialKey, credential);
        context_.set_deadline(std::chrono::system_clock::now() + kPatience);
        stream_ = rpc::Relay::NewStub(*channel)->Attach(&context_);
    }
    ~RawRelay() { context_.TryCancel(); }
    bool hello() {
        rpc::RelayUp up;
        up.mutable_hello()->set_nonce("nonce");
        rpc::RelayDown down;
        return stream_->Write(up) && stream_->Read(&down) && down.welcome().credential() == "proof of nonce";
    }
    bool say(const rpc::RelayUp& up) { return stream_->Write(up); }
    bool read(rpc::RelayDown& down) { return stream_->Read(&down); }
    grpc::Status finish() { return stream_->Finish(); }

   private:
    grpc::ClientContext context_;
    std::unique_ptr<grpc::ClientReaderWriter<rpc::RelayUp, rpc::RelayDown>> stream_;
};

}  // namespace

TEST_CASE("who is no relay is sent away, and what a relay makes up hurts nobody", "[relay]") {
    NotingDesk desk;
    const Server top(desk, 0, {.hello = std::chrono::seconds(3)});
    rpc::RelayDown down;
    {
        RawRelay forged(top.port, "forged"), silent(top.port), rude(top.port);
        rude.say(rpc::RelayUp());
        CHECK_FALSE(forged.read(down));
        CHECK(forged.finish().error_code() == grpc::StatusCode::PERMISSION_DENIED);
        CHECK_FALSE(rude.read(down));
        CHECK(rude.finish().error_code() == grpc::StatusCode::INVALID_ARGUMENT);
        CHECK_FALSE(silent.read(down));
        CHECK(silent.finish().error_code() == grpc::StatusCode::DEADLINE_EXCEEDED);
    }
    RawRelay relay(top.port);
    REQUIRE(relay.hello());
    rpc::RelayUp up;
    up.add_messages()->set_link(1);
    up.mutable_messages(0)->mutable_said()->mutable_evicted()->set_checkpoint_id(1);  // of no node
    up.add_messages()->set_link(2);
    up.mutable_messages(1)->set_gone(true);
    up.add_messages()->set_link(3);
    up.mutable_messages(2)->mutable_said()->mutable_hello();  // without a name
    for (int i = 0; i < 2; ++i) {  // said twice, the second is none
        up.add_messages()->set_link(4);
        up.mutable_messages(3 + i)->mutable_said()->mutable_hello()->set_name(i == 0 ? "n4" : "other");
    }
    up.add_messages()->set_link(4);
    up.mutable_messages(5)->mutable_said()->mutable_evicted()->set_checkpoint_id(9);
    REQUIRE(relay.say(up));
    desk.wait_heard("n4", 1);
    CHECK(desk.heard("n4") == std::vector<std::uint64_t>{9});
    CHECK(desk.attached("other") == 0);
    bool refused = false;
    while (!refused && relay.read(down))
        for (const auto& order : down.orders()) refused = refused || (order.has_refused() && order.links(0) == 3);
    CHECK(refused);
}

TEST_CASE("the same order for many nodes is sent once, and many orders in one message", "[relay]") {
    constexpr std::uint64_t kNodes = 1000;
    NotingDesk desk;
    const Server top(desk);
    RawRelay relay(top.port);
    REQUIRE(relay.hello());
    rpc::RelayUp up;
    for (std::uint64_t link = 1; link <= kNodes; ++link) {
        rpc::RelayedMessage& message = *up.add_messages();
        message.set_link(link);
        message.mutable_said()->mutable_hello()->set_name("n" + std::to_string(link));
    }
    REQUIRE(relay.say(up));
    rpc::RelayDown down;
    for (std::uint64_t welcomed = 0; welcomed < kNodes;) {
        REQUIRE(relay.read(down));
        for (const auto& order : down.orders()) welcomed += static_cast<std::uint64_t>(order.links_size());
    }
    for (std::uint64_t link = 1; link <= kNodes; ++link) desk.wait_attached("n" + std::to_string(link));
    std::vector<std::shared_ptr<NodeOutbox>> outboxes;
    for (std::uint64_t link = 1; link <= kNodes; ++link) outboxes.push_back(desk.outbox("n" + std::to_string(link)));
    for (const auto& outbox : outboxes) outbox->push(drop_order(1));
    for (const auto& outbox : outboxes) outbox->push(drop_order(2));
    std::multiset<std::uint64_t> told[3];
    std::size_t messages = 0, orders = 0;
    while (told[2].size() < kNodes) {
        REQUIRE(relay.read(down));
        ++messages;
        for (const auto& order : down.orders()) {
            ++orders;
            for (const std::uint64_t link : order.links()) {
                const std::uint64_t number = order.order().drop().checkpoint_id();
                REQUIRE((number == 1 || told[1].contains(link)));  // the first comes first
                told[number].insert(link);
            }
        }
    }
    CHECK(told[1].size() == kNodes);
    CHECK(std::set(told[2].begin(), told[2].end()).size() == kNodes);
    CHECK(messages < kNodes);
    CHECK(orders < kNodes);
}
