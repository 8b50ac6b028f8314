// SPDX-License-Identifier: GPL-3.0-or-later
//
// Sizes as people write and read them.
#include "common/bytes.h"

#include <catch2/catch_test_macros.hpp>

using namespace sckpt;

TEST_CASE("sizes are shown in the unit that fits") {
    CHECK(format_bytes(0) == "0 B");
    CHECK(format_bytes(512) == "512 B");
    CHECK(format_bytes(1023) == "1023 B");
    CHECK(format_bytes(1024) == "1.0 KiB");
    CHECK(format_bytes(12'897'485) == "12.3 MiB");
    CHECK(format_bytes((1u << 20) - 1) == "1.0 MiB");  // not 1024.0 KiB
    CHECK(format_bytes(10ull << 30) == "10.0 GiB");
    CHECK(format_bytes(3ull << 50) == "3.0 PiB");
    CHECK(format_bytes(~0ull) == "16384.0 PiB");
}

TEST_CASE("sizes are read with powers of 1024, as Slurm's --mem") {
    CHECK(*parse_bytes("0") == 0);
    CHECK(*parse_bytes("4096") == 4096);
    CHECK(*parse_bytes("512K") == 512u << 10);
    CHECK(*parse_bytes("512M") == 512u << 20);
    CHECK(*parse_bytes("16G") == 16ull << 30);
    CHECK(*parse_bytes("16GB") == 16ull << 30);
    CHECK(*parse_bytes("16GiB") == 16ull << 30);
    CHECK(*parse_bytes("1.5T") == 3ull << 39);
    CHECK(*parse_bytes("2P") == 2ull << 50);
    CHECK(*parse_bytes("1E") == 1ull << 60);
    CHECK(*parse_bytes("4294967297") == 4294967297ull);
    CHECK(*parse_bytes("9007199254740993") == 9007199254740993ull);  // bytes are exact, whatever a double can hold
}

TEST_CASE("what is no size is refused with what is right") {
    for (const char* text : {"",    "G",   "-1",  "-1G",   "+1",  " 1G",  "1G ", "1 G", "1g",  "1X",
                             "1GG", "1Gi", "1iB", "1GiBs", "1e3", "0x10", "nan", "inf", "16E", "99999999999999999999",
                             ".",   "1.5"}) {
        INFO(text);
        const auto bytes = parse_bytes(text);
        REQUIRE_FALSE(bytes.has_value());
        CHECK(bytes.error().code == Errc::invalid);
        CHECK(bytes.error().text.contains(text));
        CHECK(bytes.error().text.contains("16G"));
    }
}
