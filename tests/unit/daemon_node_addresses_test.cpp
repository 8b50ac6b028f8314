// SPDX-License-Identifier: GPL-3.0-or-later
//
// Whether a peer is a node, by a table that is asked for once for many.
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <thread>
#include <vector>

#include "daemon/node_addresses.h"

using namespace sckpt;
using Catch::Matchers::ContainsSubstring;

TEST_CASE("a node is known by the address of its connection, and many are known by one question", "[node_addresses]") {
    std::atomic<int> asked = 0;
    NodeAddresses addresses([&]() -> Result<NodeAddresses::Table> {
        ++asked;
        return NodeAddresses::Table{{"n1", "127.0.0.1"}, {"n2", "127.0.0.2"}, {"lost", "no-such-host.invalid"}};
    });
    {
        std::vector<std::jthread> nodes;
        std::atomic<int> known = 0;
        for (int i = 0; i < 16; ++i)
            nodes.emplace_back([&] {
                for (int round = 0; round < 50; ++round) known += addresses.verify("n1", "ipv4:127.0.0.1:4321").has_value();
            });
        nodes.clear();
        CHECK(known == 16 * 50);
    }
    CHECK(asked == 1);
    const auto other = addresses.verify("n2", "ipv4:127.0.0.1:4321");
    REQUIRE_FALSE(other);
    CHECK(other.error().code == Errc::denied);
    CHECK_THAT(other.error().text, ContainsSubstring("n2") && ContainsSubstring("127.0.0.1"));
    CHECK(addresses.verify("n3", "ipv4:127.0.0.1:4321").error().code == Errc::not_found);
    CHECK(addresses.verify("lost", "ipv4:127.0.0.1:4321").error().code == Errc::not_found);
    CHECK(addresses.verify("n1", "unix:/tmp/x").error().code == Errc::unsupported);
    CHECK(asked <= 2);
}

TEST_CASE("a node that has moved is found at its new address, and silence of Slurm is not taken for a word", "[node_addresses]") {
    std::atomic<bool> moved = false, silent = true;
    NodeAddresses addresses([&]() -> Result<NodeAddresses::Table> {
        if (silent) return fail(Errc::unavailable, "slurmctld is silent");
        return NodeAddresses::Table{{"n1", moved ? "127.0.0.2" : "127.0.0.1"}};
    });
    CHECK(addresses.verify("n1", "ipv4:127.0.0.1:1").error().code == Errc::unavailable);
    silent = false;
    const auto until = [&](const char* peer) {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(8);  // less than kFresh
        while (!addresses.verify("n1", peer)) {
            if (std::chrono::steady_clock::now() > deadline) return false;
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
        return true;
    };
    CHECK(until("ipv4:127.0.0.1:1"));
    moved = true;
    CHECK(until("ipv4:127.0.0.2:1"));
    CHECK_FALSE(addresses.verify("n1", "ipv4:127.0.0.1:1"));
}
