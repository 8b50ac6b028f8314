// SPDX-License-Identifier: GPL-3.0-or-later
#include <catch2/catch_test_macros.hpp>

#include "backend/criu/stats.h"

using namespace sckpt;
using namespace sckpt::criu;
using namespace std::string_literals;

TEST_CASE("frozen time is the freezing and what follows") {
    // freezing_time 300 (0xac 0x02), frozen_time 70000 (0xf0 0xa2 0x04)
    const std::string stats = "\x13\x19\x27\x55\x23\x57\x00\x08\x0b\x00\x00\x00"s + "\x0a\x09\x08\xac\x02\x10\xf0\xa2\x04\x18\x00"s;
    const auto frozen = parse_frozen_time(stats);
    REQUIRE(frozen);
    CHECK(frozen->count() == 70300);
}

TEST_CASE("stats of an unknown form are an error, not a guess") {
    CHECK_FALSE(parse_frozen_time(""));
    CHECK_FALSE(parse_frozen_time("123456789012"));
    CHECK_FALSE(parse_frozen_time("123456789012\x12\x02\x08\x01"));
    CHECK_FALSE(parse_frozen_time("123456789012\x0a\x02\x08\xff"));
}
