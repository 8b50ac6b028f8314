// SPDX-License-Identifier: GPL-3.0-or-later
//
// Orders to nodes: parts come together, orders go round, and a node that is lost or silent holds nobody up.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <thread>

#include "daemon/store_orders.h"
#include "tests/unit/node_outbox_for_tests.h"

using namespace sckpt;
using Catch::Matchers::ContainsSubstring;
using std::chrono::seconds;

namespace {

// A node that answers each order by `answer`, in a thread of its own as its connection would.
class Node {
   public:
    using Answer = std::function<void(StoreOrders&, const std::string& name, const rpc::StoreOrder&)>;
    Node(StoreOrders& orders, std::string name, Answer answer) : orders_(orders), name_(std::move(name)) {
        orders_.attached(name_, outbox_);
        thread_ = std::jthread([this, answer = std::move(answer)](const std::stop_token& stop) {
            while (const auto message = outbox_->pop(stop)) answer(orders_, name_, message->store());
        });
    }

   private:
    StoreOrders& orders_;
    const std::string name_;
    std::shared_ptr<test::ReadableOutbox> outbox_ = std::make_shared<test::ReadableOutbox>();
    std::jthread thread_;
};

rpc::StoreReply part(std::uint64_t order, const std::string& file, bool done) {
    rpc::StoreReply reply;
    reply.set_order(order);
    reply.add_files()->set_path(file);
    reply.set_done(done);
    reply.set_ok(done);
    return reply;
}

rpc::StoreOrder scan() {
    rpc::StoreOrder order;
    order.mutable_scan();
    return order;
}

}  // namespace

TEST_CASE("parts of an answer come together, and orders go round the nodes", "[store_orders]") {
    StoreOrders orders;
    const Node::Answer both = [](StoreOrders& to, const std::string& name, const rpc::StoreOrder& order) {
        CHECK(to.node_of(order.order()) == name);
        to.reply("stranger", part(order.order(), "forged", true));
        to.reply(name, part(order.order(), name + "/1", false));
        to.reply(name, part(order.order(), name + "/2", true));
    };
    const Node first(orders, "n1", both), second(orders, "n2", both);
    std::vector<std::string> seen;
    for (int i = 0; i < 3; ++i) {
        const auto reply = orders.run(scan(), seconds(30), {});
        REQUIRE(reply);
        for (const rpc::StoreFile& file : reply->files()) seen.push_back(file.path());
    }
    CHECK(seen == std::vector<std::string>{"n1/1", "n1/2", "n2/1", "n2/2", "n1/1", "n1/2"});
}

TEST_CASE("an order avoids a node when there is another one", "[store_orders]") {
    StoreOrders orders;
    const Node::Answer done = [](StoreOrders& to, const std::string& name, const rpc::StoreOrder& order) {
        to.reply(name, part(order.order(), name, true));
    };
    const auto ask = [&](const std::string& avoid) {
        rpc::StoreOrder order = scan();
        order.set_avoid(avoid);
        return orders.run(order, seconds(30), {})->node();
    };
    const Node first(orders, "n1", done);
    CHECK(ask("n1") == "n1");
    const Node second(orders, "n2", done);
    for (int i = 0; i < 3; ++i) {
        CHECK(ask("n1") == "n2");
        CHECK(ask("n2") == "n1");
    }
}

TEST_CASE("what a node cannot do is told with its words", "[store_orders]") {
    StoreOrders orders;
    const Node node(orders, "n1", [](StoreOrders& to, const std::string& name, const rpc::StoreOrder& order) {
        rpc::StoreReply reply;
        reply.set_order(order.order());
        reply.set_done(true);
        reply.set_error("no space left");
        to.reply(name, reply);
    });
    const auto reply = orders.run(scan(), seconds(30), {});
    REQUIRE(!reply);
    CHECK(reply.error().code == Errc::io);
    CHECK_THAT(reply.error().text, ContainsSubstring("n1") && ContainsSubstring("no space left"));
}

TEST_CASE("a node that says something now and then may take as long as it likes", "[store_orders]") {
    StoreOrders orders;
    const Node slow(orders, "n1", [](StoreOrders& to, const std::string& name, const rpc::StoreOrder& order) {
        for (int i = 0; i < 8; ++i) {
            std::this_thread::sleep_for(std::chrono::milliseconds(500));
            rpc::StoreReply sign;
            sign.set_order(order.order());
            to.reply(name, sign);
        }
        to.reply(name, part(order.order(), "last", true));
    });
    const auto reply = orders.run(scan(), seconds(3), {});
    REQUIRE(reply);
    CHECK(reply->files(0).path() == "last");
}

TEST_CASE("a node that does not reach the store is as good as lost", "[store_orders]") {
    StoreOrders orders;
    const Node node(orders, "n1", [](StoreOrders& to, const std::string& name, const rpc::StoreOrder& order) {
        rpc::StoreReply reply;
        reply.set_order(order.order());
        reply.set_done(true);
        reply.set_away(true);
        reply.set_error("it is not mounted");
        to.reply(name, reply);
    });
    const auto reply = orders.run(scan(), seconds(30), {});
    REQUIRE(!reply);
    CHECK(reply.error().code == Errc::unavailable);
    CHECK_THAT(reply.error().text, ContainsSubstring("n1") && ContainsSubstring("not mounted"));
}

TEST_CASE("a node is told to stop what nobody waits for any more", "[store_orders]") {
    StoreOrders orders;
    const auto outbox = std::make_shared<test::ReadableOutbox>();
    orders.attached("n1", outbox);
    const auto told = [&] {  // the order, and what was said of it afterwards
        const std::stop_source never;
        const std::uint64_t order = outbox->pop(never.get_token())->store().order();
        const auto message = outbox->pop(never.get_token());
        REQUIRE(message->has_stop_store());
        return order == message->stop_store().order();
    };
    CHECK(orders.run(scan(), seconds(0), {}).error().code == Errc::timeout);
    CHECK(told());
    CHECK(orders.run(scan(), seconds(30), [] { return true; }).error().code == Errc::busy);
    CHECK(told());
}

TEST_CASE("a node that is lost, silent, or not wanted any more holds nobody up", "[store_orders]") {
    StoreOrders orders;
    CHECK(orders.run(scan(), seconds(30), {}).error().code == Errc::unavailable);
    CHECK_FALSE(orders.any_node());

    const Node silent(orders, "n1", [](StoreOrders&, const std::string&, const rpc::StoreOrder&) {});
    CHECK(orders.run(scan(), seconds(0), {}).error().code == Errc::timeout);
    CHECK(orders.run(scan(), seconds(30), [] { return true; }).error().code == Errc::busy);

    const Node dies(orders, "n2", [](StoreOrders& to, const std::string& name, const rpc::StoreOrder& order) {
        to.detached(name);
        to.reply(name, part(order.order(), "late", false));
    });
    CHECK(orders.run(scan(), seconds(30), {}).error().code == Errc::unavailable);
    CHECK(orders.any_node());
}
