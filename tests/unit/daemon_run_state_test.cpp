// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a sckpt-run tells the one that goes on after a restart.
#include "daemon/run_state.h"

#include <catch2/catch_test_macros.hpp>

using namespace sckpt;
using Phase = RunState::Step::Phase;

TEST_CASE("the state of sckpt-run comes back as it was") {
    RunState state;
    state.next_key = 7;
    state.stdin_consumed = 5'000'000'000;
    state.steps = {{.phase = Phase::ended, .key = 0, .wait_status = 0x0f00},
                   {.phase = Phase::running, .key = 3, .step_id = 4, .tasks = 128, .srun = 4711, .unreplayable = true},
                   {.phase = Phase::waiting, .key = 6, .srun = 4712}};
    const std::string text = to_text(state);
    CHECK(text == "next 7\nstep 0 ended 3840\nstep 3 running 4 128 4711\nunreplayable 3\nstep 6 waiting 4712\nstdin 5000000000\n");
    const auto parsed = parse_run_state(text);
    REQUIRE(parsed);
    CHECK(to_text(*parsed) == text);
    CHECK(parsed->steps.at(1).unreplayable);
    CHECK_FALSE(parsed->steps.at(2).unreplayable);
}

TEST_CASE("a state that nobody wrote is refused") {
    CHECK(parse_run_state(""));  // of a sckpt-run that had nothing to tell
    for (const char* bad :
         {"next\n", "next x\n", "next 1 2\n", "step 1\n", "step 1 gone\n", "step 1 running 2 3\n", "step 1 ended\n", "stdin -1\n",
          "unreplayable 1\n", "step 2 waiting 1\nstep 1 waiting 1\n", "step 1 waiting 1\nunreplayable 2\n", "else 1\n", "\n"}) {
        INFO(bad);
        const auto state = parse_run_state(bad);
        REQUIRE_FALSE(state);
        CHECK(state.error().code == Errc::corrupt);
    }
}
