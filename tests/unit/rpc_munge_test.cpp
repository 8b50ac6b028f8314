// SPDX-License-Identifier: GPL-3.0-or-later
//
// Credentials against a real munged: good once, for one purpose, and not after a change.
#include <arpa/inet.h>
#include <unistd.h>
#include <catch2/catch_test_macros.hpp>

#include "rpc/auth_munge.h"
#include "rpc/purpose.h"
#include "tests/unit/munged_for_tests.h"

using namespace sckpt;
using rpc::check_credential;
using rpc::make_credential;

TEST_CASE("a credential names its maker, once") {
    SCKPT_REQUIRE_MUNGED();
    const test::Munged munged;
    const std::string socket = munged.socket();
    const auto credential = make_credential("/a/B digest", socket.c_str());
    REQUIRE(credential.has_value());

    const auto caller = check_credential(*credential, "/a/B digest", socket.c_str());
    REQUIRE(caller.has_value());
    CHECK(caller->uid == getuid());
    CHECK(caller->gid == getgid());

    const auto again = check_credential(*credential, "/a/B digest", socket.c_str());
    REQUIRE_FALSE(again.has_value());
    CHECK(again.error().code == Errc::denied);
    CHECK(again.error().text.contains("used before"));
}

TEST_CASE("a credential is worth nothing for another purpose") {
    SCKPT_REQUIRE_MUNGED();
    const test::Munged munged;
    const std::string socket = munged.socket();
    for (const char* other : {"/a/C digest", "/a/B", "/a/B digest and more", ""}) {
        const auto credential = make_credential("/a/B digest", socket.c_str());
        REQUIRE(credential.has_value());
        const auto caller = check_credential(*credential, other, socket.c_str());
        REQUIRE_FALSE(caller.has_value());
        CHECK(caller.error().code == Errc::denied);
    }
}

TEST_CASE("a changed credential, another key's credential and no credential are refused") {
    SCKPT_REQUIRE_MUNGED();
    const test::Munged munged, stranger;
    const std::string socket = munged.socket();
    const auto credential = make_credential("/a/B", socket.c_str());
    REQUIRE(credential.has_value());

    std::string changed = *credential;
    char& middle = changed[changed.size() / 2];
    middle = middle == 'A' ? 'B' : 'A';
    for (const std::string& bad : {changed, std::string("MUNGE:AAAA:"), std::string("me, really"), std::string()}) {
        const auto caller = check_credential(bad, "/a/B", socket.c_str());
        REQUIRE_FALSE(caller.has_value());
        CHECK(caller.error().code == Errc::denied);
    }
    const auto elsewhere = check_credential(*credential, "/a/B", stranger.socket().c_str());
    REQUIRE_FALSE(elsewhere.has_value());
    CHECK(elsewhere.error().code == Errc::denied);
    CHECK(check_credential(*credential, "/a/B", socket.c_str()).has_value());  // the true one is still good
}

TEST_CASE("without munged both sides say so") {
    const auto made = make_credential("/a/B", "/nonexistent/munge.socket");
    REQUIRE_FALSE(made.has_value());
    CHECK(made.error().code == Errc::unavailable);
    CHECK(made.error().text.contains("munged"));
    const auto checked = check_credential("MUNGE:AAAA:", "/a/B", "/nonexistent/munge.socket");
    REQUIRE_FALSE(checked.has_value());
    CHECK(checked.error().code == Errc::unavailable);
}

TEST_CASE("a purpose that does not fit is a defect of the caller") {
    CHECK(make_credential("", "/nonexistent").error().code == Errc::internal);
    CHECK(make_credential(std::string(4097, 'x'), "/nonexistent").error().code == Errc::internal);
}

TEST_CASE("the welcome's purpose depends on every byte of the nonce") {
    CHECK(rpc::welcome_purpose(std::string("a\0b", 3)) != rpc::welcome_purpose(std::string("a\0c", 3)));
    CHECK(rpc::welcome_purpose("n").starts_with("sckptctld-welcome "));
}
