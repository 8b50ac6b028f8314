// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/deadline.h"

#include <atomic>

#include <catch2/catch_test_macros.hpp>

using namespace sckpt;
using namespace std::chrono_literals;

TEST_CASE("what is not done in time is ended") {
    std::atomic<bool> ended = false;
    const auto begun = std::chrono::steady_clock::now();
    const Deadline deadline(300ms, [&] { ended = true; });
    while (!ended && std::chrono::steady_clock::now() < begun + 60s) std::this_thread::sleep_for(5ms);
    CHECK(ended);
    CHECK(std::chrono::steady_clock::now() - begun >= 300ms);
}

TEST_CASE("what is done in time is not ended, and waits for nothing") {
    bool ended = false;
    const auto begun = std::chrono::steady_clock::now();
    { const Deadline deadline(1h, [&] { ended = true; }); }
    CHECK_FALSE(ended);
    CHECK(std::chrono::steady_clock::now() - begun < 10min);
}
