// SPDX-License-Identifier: GPL-3.0-or-later
#include <catch2/catch_test_macros.hpp>

#include "backend/criu/credentials.h"

using namespace sckpt;
using namespace sckpt::criu;

TEST_CASE("credentials as the kernel tells them") {
    const auto user = parse_credentials("Name:\tx\nUid:\t1000\t1000\t1000\t1000\nGid:\t100\t100\t100\t100\nGroups:\t4 27 \nCapPrm:\t0\n");
    REQUIRE(user);
    CHECK(user->uid == 1000);
    CHECK(user->gid == 100);
    CHECK(user->groups == std::vector<gid_t>{4, 27});
}

TEST_CASE("a process with more than one identity is refused") {
    const auto user = parse_credentials("Uid:\t1000\t0\t0\t0\nGid:\t100\t100\t100\t100\nGroups:\t\n");
    REQUIRE_FALSE(user);
    CHECK(user.error().code == Errc::denied);
    CHECK_FALSE(parse_credentials("Uid:\t1000\t1000\t1000\t1000\n"));
    CHECK_FALSE(become_user({0, 0, {}}));  // never by mistake
}
