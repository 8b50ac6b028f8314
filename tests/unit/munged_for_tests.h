// SPDX-License-Identifier: GPL-3.0-or-later
//
// A munged of the test's own, with its own key and socket in a temporary directory, ended with the object.
#pragma once

#include <sys/stat.h>
#include <unistd.h>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>

#include "common/fd.h"
#include "common/process.h"
#include "rpc/auth_munge.h"

namespace sckpt::test {

class Munged {
   public:
    // A test that needs munged is skipped, and says so, on a machine without it.
    static bool installed() { return ::access(kProgram, X_OK) == 0; }

    Munged() {
        char name[] = "/tmp/sckpt-munged-XXXXXX";
        REQUIRE(::mkdtemp(name) != nullptr);
        directory_ = name;
        REQUIRE(::chmod(name, 0711) == 0);  // munged wants its clients to be able to reach the socket
        REQUIRE(write_file_durable(path("key"), std::string(64, 'k') + directory_, 0600).has_value());
        auto child = ChildProcess::spawn({.argv = {kProgram, "--foreground", "--force", "--socket=" + socket(), "--key-file=" + path("key"),
                                                   "--pid-file=" + path("pid"), "--log-file=" + path("log"), "--seed-file=" + path("seed")},
                                          .environment = {"PATH=/usr/bin:/bin"},
                                          .descriptors = {}});
        REQUIRE(child.has_value());
        child_.emplace(std::move(*child));
        wait_until_it_answers();
    }
    Munged(const Munged&) = delete;
    Munged& operator=(const Munged&) = delete;
    ~Munged() {
        child_.reset();
        std::error_code ignored;  // a temporary directory that stays is no reason to fail a test
        std::filesystem::remove_all(directory_, ignored);
    }

    std::string socket() const { return path("socket"); }

   private:
    static constexpr const char* kProgram = "/usr/sbin/munged";

    std::string path(const char* name) const { return directory_ + "/" + name; }
    void wait_until_it_answers() const {
        const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        for (;;) {
            const auto credential = rpc::make_credential("is it up", socket().c_str());
            if (credential) return;
            INFO(credential.error().text);
            REQUIRE(std::chrono::steady_clock::now() < deadline);
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
    }

    std::string directory_;
    std::optional<ChildProcess> child_;
};

}  // namespace sckpt::test

#define SCKPT_REQUIRE_MUNGED() \
    if (!sckpt::test::Munged::installed()) SKIP("munged is not installed")
