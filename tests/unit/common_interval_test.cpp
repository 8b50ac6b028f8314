// SPDX-License-Identifier: GPL-3.0-or-later
//
// Times: Slurm's formats and ours, what is refused, and that what is printed is read back.
#include "common/interval.h"

#include <catch2/catch_test_macros.hpp>
#include <random>

using namespace sckpt;

TEST_CASE("times are read as sbatch reads --time, or with a unit") {
    const std::pair<const char*, std::int64_t> good[] = {
        {"1", 60}, {"15", 900}, {"007", 420}, {"0:30", 30}, {"1:99", 159}, {"90:00", 5400}, {"1:02:03", 3723}, {"0:0:1", 1},
        {"100:00:00", 360000}, {"1-0", 86400}, {"1-2", 93600}, {"1-2:3", 93780}, {"1-2:3:4", 93784}, {"0-0:0:5", 5},
        {"30s", 30}, {"5m", 300}, {"2h", 7200}, {"1d", 86400}, {"153722867280912930", 9223372036854775800}};
    for (const auto& [text, seconds] : good) {
        INFO(text);
        const auto parsed = parse_seconds(text);
        REQUIRE(parsed.has_value());
        CHECK(*parsed == seconds);
    }
}

TEST_CASE("what is no time is refused with a text that shows what is right") {
    const char* const bad[] = {
        "", "0", "0s", "0:00", "0-0", "-5", "+5", "-1", "1-", "-", ":", ":5", "5:", "1:2:", "1::2", "1:2:3:4", "1-2:3:4:5",
        "1-2-3", "1:2-3", "1-:2", "5x", "5 m", " 5", "5 ", "5mm", "5m3s", "5M", "m", "1.5h", "0x10", "UNLIMITED", "INFINITE",
        "99999999999999999999", "9223372036854775807", "153722867280912931", "9223372036854775807d", "106751991167301-0",
        "9223372036854775807-0", "0-9223372036854775807", "1:9223372036854775807"};
    for (const char* const text : bad) {
        INFO(text);
        const auto parsed = parse_seconds(text);
        REQUIRE_FALSE(parsed.has_value());
        CHECK(parsed.error().code == Errc::invalid);
        CHECK_FALSE(parsed.error().text.empty());
    }
    CHECK_FALSE(parse_seconds(std::string_view("5\0m", 3)).has_value());
    CHECK(parse_seconds("soon").error().text.contains("15m"));
}

TEST_CASE("times are printed as a person would write them") {
    const std::pair<std::int64_t, const char*> forms[] = {
        {1, "1s"}, {90, "90s"}, {900, "15m"}, {5400, "90m"}, {7200, "2h"}, {3661, "1:01:01"},
        {86400, "1d"}, {93600, "1-02:00:00"}, {kMaxIntervalSeconds, "366d"}};
    for (const auto& [seconds, text] : forms) CHECK(format_seconds(seconds) == text);
}

TEST_CASE("property: a printed time is read back to the same value") {
    std::mt19937_64 random(20);
    const auto check = [](std::int64_t seconds) {
        const auto parsed = parse_seconds(format_seconds(seconds));
        if (!parsed || *parsed != seconds) FAIL(seconds << " became " << format_seconds(seconds));
    };
    for (std::int64_t seconds = 1; seconds <= 100'000; ++seconds) check(seconds);
    for (int i = 0; i < 100'000; ++i) check(1 + static_cast<std::int64_t>(random() >> (1 + random() % 62)));
    check(INT64_MAX);
}

TEST_CASE("property: no text makes parse_seconds answer zero or less") {
    std::mt19937_64 random(21);
    const std::string_view letters = "0123456789:-smhd x";
    for (int i = 0; i < 100'000; ++i) {
        std::string text;
        for (auto n = random() % 12; n > 0; --n) text += letters[random() % letters.size()];
        const auto parsed = parse_seconds(text);
        if (parsed && *parsed <= 0) FAIL(text);
    }
}

TEST_CASE("--ckpt: bare, manual, an interval, and nothing else") {
    CHECK(parse_ckpt_option(nullptr)->mode == CkptOption::Mode::site_default);
    CHECK(parse_ckpt_option("manual")->mode == CkptOption::Mode::manual);
    const auto interval = parse_ckpt_option("15m");
    REQUIRE(interval.has_value());
    CHECK(interval->mode == CkptOption::Mode::interval);
    CHECK(interval->interval_seconds == 900);
    CHECK(parse_ckpt_option("1s")->interval_seconds == kMinIntervalSeconds);
    CHECK(parse_ckpt_option("366d")->interval_seconds == kMaxIntervalSeconds);
    for (const char* const text :
         {"", "0", "-5", "5x", "Manual", "manual ", "UNLIMITED", "367d", "366-0:0:1", "9999999999999999999"}) {
        INFO(text);
        const auto option = parse_ckpt_option(text);
        REQUIRE_FALSE(option.has_value());
        CHECK(option.error().code == Errc::invalid);
        CHECK(option.error().text.contains("--ckpt"));
    }
    CHECK(parse_ckpt_option("often").error().text.contains("manual"));
}
