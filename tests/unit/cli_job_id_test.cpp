// SPDX-License-Identifier: GPL-3.0-or-later
#include <catch2/catch_test_macros.hpp>

#include "cli/job_id.h"

using namespace sckpt;
using namespace sckpt::cli;

TEST_CASE("a job id is a decimal number") {
    CHECK(parse_job("12").value() == 12);
    CHECK(parse_job("4294967295").value() == 4294967295);
    for (const char* bad :
         {"", "0", "-1", "+1", " 12", "12 ", "12.3", "0x10", "twelve", "4294967296", "99999999999999999999", "12+1", "12.batch"}) {
        INFO(bad);
        const auto job = parse_job(bad);
        REQUIRE_FALSE(job.has_value());
        CHECK(job.error().code == Errc::invalid);
        CHECK(job.error().text.contains("such as 12"));
    }
}

TEST_CASE("a checkpoint is JOB.N") {
    const auto both = parse_job_or_checkpoint("12.3");
    REQUIRE(both.has_value());
    CHECK(both->job == 12);
    CHECK(both->checkpoint == 3);
    const auto job = parse_job_or_checkpoint("12");
    REQUIRE(job.has_value());
    CHECK(job->job == 12);
    CHECK(job->checkpoint == 0);
    for (const char* bad : {"", ".", "12.", ".3", "12.0", "0.3", "12.3.4", "12.batch", "12,3", "12. 3", "12.-3", "12.4294967296"}) {
        INFO(bad);
        const auto id = parse_job_or_checkpoint(bad);
        REQUIRE_FALSE(id.has_value());
        CHECK(id.error().code == Errc::invalid);
        CHECK(id.error().text.contains("12.3"));
    }
}

TEST_CASE("a job or checkpoint is written as it is read") {
    CHECK(to_string(JobId{12, 0}) == "12");
    CHECK(to_string(JobId{12, 3}) == "12.3");
}

TEST_CASE("a job array's task is a later feature, and the text says what to give") {
    for (const char* text : {"12_4", "12_[1-4]", "12_4.1"}) {
        INFO(text);
        CHECK(parse_job_or_checkpoint(text).error().text.contains("not supported yet"));
        CHECK(parse_job(text).error().text.contains("not supported yet"));
    }
}

TEST_CASE("a step is JOB.STEP, and the first one is 0") {
    CHECK(parse_job_or_step("12").value() == JobStep{12, {}});
    CHECK(parse_job_or_step("12.0").value() == JobStep{12, 0});
    CHECK(parse_job_or_step("12.345").value() == JobStep{12, 345});
    CHECK(to_text(JobStep{12, 0}) == "12.0");
    CHECK(to_text(JobStep{12, {}}) == "12");
    for (const char* bad : {"", ".", "12.", ".3", "0.3", "12.3.4", "12.batch", "12.-3", "12.4294967296"}) {
        INFO(bad);
        const auto id = parse_job_or_step(bad);
        REQUIRE_FALSE(id.has_value());
        CHECK(id.error().code == Errc::invalid);
        CHECK(id.error().text.contains("JOB.STEP"));
    }
}
