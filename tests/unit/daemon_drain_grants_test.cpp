// SPDX-License-Identifier: GPL-3.0-or-later
//
// Who may drain: the cluster's limits, the order, and what a lost node gives back.
#include <catch2/catch_test_macros.hpp>

#include "daemon/drain_grants.h"

using namespace sckpt;

namespace {

Config::Drain limits(std::int64_t streams, std::uint64_t bandwidth = 0) {
    Config::Drain drain;
    drain.cluster_streams = streams;
    drain.cluster_bandwidth = bandwidth;
    return drain;
}

std::vector<std::int64_t> taken(DrainGrants& grants) {
    std::vector<std::int64_t> ids;
    for (const DrainGrants::Grant& grant : grants.take()) ids.push_back(grant.checkpoint);
    return ids;
}

using Ids = std::vector<std::int64_t>;

}  // namespace

TEST_CASE("drains begin in the order of their asking, so many at once as the cluster allows", "[drain_grants]") {
    DrainGrants grants(limits(2));
    for (const std::int64_t id : {1, 2, 3, 4}) grants.ask(id, "n1", false);
    CHECK(taken(grants) == Ids{1, 2});
    CHECK(taken(grants).empty());
    grants.end(1);
    CHECK(taken(grants) == Ids{3});
    grants.end(3);
    grants.end(2);
    CHECK(taken(grants) == Ids{4});
}

TEST_CASE("urgent drains are as many at once as their own limit says, and go before the others", "[drain_grants]") {
    Config::Drain drain = limits(2);
    drain.cluster_urgent_streams = 3;
    DrainGrants grants(drain);
    grants.ask(1, "n1", false);
    for (const std::int64_t id : {11, 12, 13, 14, 15}) grants.ask(id, "n2", true);
    CHECK(taken(grants) == Ids{11, 12, 13});
    for (const std::int64_t id : {11, 12}) grants.end(id);
    CHECK(taken(grants) == Ids{14, 15});
    grants.ask(13, "n2", true);  // asked again: it has its stream already
    CHECK(taken(grants) == Ids{13});
    for (const std::int64_t id : {13, 14}) grants.end(id);
    CHECK(taken(grants) == Ids{1});  // no urgent one waits, and one of two streams is free
}

TEST_CASE("an urgent drain takes a stream while it runs, and does not wait for one of the others", "[drain_grants]") {
    DrainGrants grants(limits(1));
    grants.ask(1, "n1", false);
    grants.ask(2, "n1", false);
    grants.ask(3, "n2", true);
    CHECK(taken(grants) == Ids{3});  // the only stream is its
    grants.ask(4, "n2", true);
    CHECK(taken(grants) == Ids{4});
    grants.end(3);
    CHECK(taken(grants).empty());
    grants.end(4);
    CHECK(taken(grants) == Ids{1});
    grants.set_urgent(2);
    CHECK(taken(grants) == Ids{2});
    CHECK(grants.granted() == 2);
}

TEST_CASE("the bandwidth of the cluster is shared by the streams, and a small one does not become none", "[drain_grants]") {
    DrainGrants grants(limits(4, 1000));
    grants.ask(1, "n1", false);
    CHECK(grants.take().at(0).bytes_per_second == 250);
    grants.ask(2, "n1", true);
    CHECK(grants.take().at(0).bytes_per_second == 0);  // urgent: as fast as it can

    DrainGrants small(limits(64, 10));
    small.ask(1, "n1", false);
    CHECK(small.take().at(0).bytes_per_second == 1);

    DrainGrants unlimited(limits(0));
    unlimited.ask(1, "n1", false);
    CHECK(unlimited.take().at(0).bytes_per_second == 0);
}

TEST_CASE("a lost node gives its streams back, and asks again when it returns", "[drain_grants]") {
    DrainGrants grants(limits(1));
    grants.ask(1, "n1", false);
    grants.ask(2, "n1", false);
    grants.ask(3, "n2", false);
    CHECK(taken(grants) == Ids{1});
    grants.node_lost("n1");
    CHECK(taken(grants) == Ids{3});
    CHECK(grants.waiting() == 0);
    grants.ask(1, "n1", false);
    CHECK(taken(grants).empty());
    grants.end(3);
    CHECK(taken(grants) == Ids{1});
}

TEST_CASE("asking again is answered again, and costs neither a second stream nor the place", "[drain_grants]") {
    DrainGrants grants(limits(1));
    grants.ask(1, "n1", false);
    grants.ask(2, "n2", false);
    CHECK(taken(grants) == Ids{1});
    grants.ask(1, "n1", false);
    grants.ask(2, "n2", false);
    CHECK(taken(grants) == Ids{1});
    CHECK(grants.granted() == 1);
    CHECK(grants.waiting() == 1);
    grants.end(2);  // given up before it began
    grants.end(1);
    CHECK(taken(grants).empty());
}

TEST_CASE("each node drains its part of a checkpoint by a grant of its own", "[drain_grants]") {
    DrainGrants grants(limits(2));
    for (const char* node : {"n1", "n2", "n3"}) grants.ask(1, node, false);
    CHECK(grants.take().size() == 2);
    grants.end(1, "n1");
    const auto next = grants.take();
    REQUIRE(next.size() == 1);
    CHECK(next.front().node == "n3");
    grants.ask(2, "n1", false);
    grants.end(1);
    CHECK(taken(grants) == Ids{2});
    CHECK(grants.granted() == 1);
}

TEST_CASE("many nodes drain in turn, and the word of one costs the same however many there are", "[drain_grants]") {
    constexpr int kNodes = 50'000;
    DrainGrants grants(limits(64));
    std::vector<std::string> granted;
    for (int i = 0; i < kNodes; ++i) {
        grants.ask(1, "n" + std::to_string(i), false);
        for (const DrainGrants::Grant& grant : grants.take()) granted.push_back(grant.node);
    }
    for (std::size_t ended = 0; ended < granted.size(); ++ended) {  // squares of this number would take minutes
        grants.end(1, granted[ended]);
        for (const DrainGrants::Grant& grant : grants.take()) granted.push_back(grant.node);
    }
    REQUIRE(granted.size() == kNodes);
    CHECK(granted.back() == "n" + std::to_string(kNodes - 1));
    CHECK(grants.granted() == 0);
    for (int i = 0; i < kNodes; ++i) grants.ask(2, "n" + std::to_string(i), true);
    for (int i = 0; i < kNodes; ++i) grants.node_lost("n" + std::to_string(i));
    CHECK(grants.waiting() == 0);
}
