// SPDX-License-Identifier: GPL-3.0-or-later
#include <catch2/catch_test_macros.hpp>

#include "rpc/task_name.h"

using namespace sckpt;

TEST_CASE("a task's name tells its step and its rank") {
    CHECK(task_name(0, 3) == "0.3");
    CHECK(task_name(12, 0) == "12.0");
    CHECK(task_name(kForeignStep | 4, 1) == "s4.1");
    CHECK(step_name(12) == "12");
    CHECK(step_name(kForeignStep | 4) == "s4");
    for (const std::uint32_t key : {0u, 7u, 0x7fffffffu, kForeignStep, kForeignStep | 9u}) {
        const auto name = parse_task_name(task_name(key, 4294967295u));
        REQUIRE(name);
        CHECK(name->step_key == key);
        CHECK(name->rank == 4294967295u);
    }
}

TEST_CASE("what is no task's name is refused") {
    for (const char* bad : {"", "batch", "0", "0.", ".0", "s.0", "0.0.0", "00.1", "0.01", "-1.0", "0.-1", " 0.0", "0.0 ", "2147483648.0", "s2147483648.0", "x4.0"}) {
        INFO(bad);
        CHECK_FALSE(parse_task_name(bad));
    }
}

TEST_CASE("a step in a checkpoint is JOB.STEP or JOB.STEP.N, and is written as it is read") {
    CHECK(parse_step_checkpoint("12.0") == StepCheckpoint{12, 0, 0});
    CHECK(parse_step_checkpoint("12.0.3") == StepCheckpoint{12, 0, 3});
    CHECK(parse_step_checkpoint("12.s7.1") == StepCheckpoint{12, kForeignStep | 7, 1});
    for (const char* text : {"1.0", "4294967295.2147483647.4294967295", "12.s0", "12.s4.9"}) {
        INFO(text);
        const auto step = parse_step_checkpoint(text);
        REQUIRE(step);
        CHECK(to_string(*step) == text);
    }
    for (const char* bad : {"", ".", "12", "12.", ".0", "0.0", "12.0.", "12.0.0", "12.0.1.2", "12..1", "12.s", "12.s.1", "s12.0", "012.0", "12.00", "12.0.01", "-1.0",
                            "12.-1", "12.batch", "12.0.x", " 12.0", "12.0 ", "12.2147483648", "4294967296.0", "12_1.0"}) {
        INFO(bad);
        CHECK_FALSE(parse_step_checkpoint(bad));
    }
}
