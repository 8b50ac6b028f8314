// SPDX-License-Identifier: GPL-3.0-or-later
//
// Which names may become paths.
#include "image_store/names.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

using namespace sckpt;

TEST_CASE("names that lead nowhere else are accepted", "[names]") {
    const std::string name =
        GENERATE(as<std::string>(), "a", "job-12-3/ckpt-1-batch-0123456789abcdef.pack", "a.b/c_d/e-f", "...", "..a", "a..",
                 std::string(200, 'a'), std::string(200, 'a') + "/" + std::string(200, 'b'));
    INFO(name);
    CHECK(check_store_path(name));
    CHECK(check_file_name(name));
}

TEST_CASE("names that could lead elsewhere are refused", "[names]") {
    const std::string name =
        GENERATE(as<std::string>(), "", ".", "..", "/", "/etc", "a/../b", "../a", "a/..", "a//b", "a/", "a/.", "./a", "a\nb",
                 "\x7f", "\xc3\xa4", std::string("a\0b", 3), std::string(201, 'a'), "b/" + std::string(201, 'a'),
                 std::string(1200, 'a'));
    INFO(name);
    CHECK(check_store_path(name).error().code == Errc::invalid);
    CHECK(check_file_name(name).error().code == Errc::invalid);
}

TEST_CASE("a file of an image may have any printable name, a file of the store may not", "[names]") {
    const std::string name = GENERATE(as<std::string>(), "a b", "a~old", "files/\"x\"", "$HOME", "-rf *", "a\\b");
    INFO(name);
    CHECK(check_file_name(name));
    CHECK_FALSE(check_store_path(name));
}

TEST_CASE("a refusal shows the name without its control characters", "[names]") {
    const auto refused = check_file_name("a\x1b[2Jb/..");
    REQUIRE_FALSE(refused);
    CHECK(refused.error().text.contains("a?[2Jb"));
}

TEST_CASE("a task's name tells its step", "[names]") {
    CHECK(step_of("0.3") == "0");
    CHECK(step_of("s4.17") == "s4");
    CHECK(step_of("batch").empty());
}

TEST_CASE("a path has a directory and a base", "[names]") {
    CHECK(directory_of("a/b/c") == "a/b");
    CHECK(base_of("a/b/c") == "c");
    CHECK(directory_of("c").empty());
    CHECK(base_of("c") == "c");
    CHECK(directory_of("").empty());
    CHECK(base_of("").empty());
}
