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

TEST_CASE("a job or checkpoint is written as it is read") {
    CHECK(to_string(JobId{12, 0}) == "12");
    CHECK(to_string(JobId{12, 3}) == "12.3");
}

namespace {

using Selectors = std::vector<JobSelector>;

Selectors parsed(const char* text, Part part = Part::none) {
    INFO(text);
    const auto selectors = parse_selectors(text, part);
    REQUIRE(selectors.has_value());
    return *selectors;
}

}  // namespace

TEST_CASE("jobs are named by numbers, with commas between") {
    CHECK(parsed("12") == Selectors{{12, {}, {}}});
    CHECK(parsed("12,13") == Selectors{{12, {}, {}}, {13, {}, {}}});
}

TEST_CASE("tasks of a job array are named as Slurm does") {
    CHECK(parsed("123_4") == Selectors{{123, {{4, 4, 1}}, {}}});
    CHECK(parsed("123_0") == Selectors{{123, {{0, 0, 1}}, {}}});
    CHECK(parsed("123_[1-10]") == Selectors{{123, {{1, 10, 1}}, {}}});
    CHECK(parsed("123_[1,3-5,7]") == Selectors{{123, {{1, 1, 1}, {3, 5, 1}, {7, 7, 1}}, {}}});
    CHECK(parsed("123_[0-15:4]") == Selectors{{123, {{0, 15, 4}}, {}}});
    CHECK(parsed("123_[1,2],12,5_[3]") == Selectors{{123, {{1, 1, 1}, {2, 2, 1}}, {}}, {12, {}, {}}, {5, {{3, 3, 1}}, {}}});
}

TEST_CASE("a dot names a checkpoint, from 1 on, or a step, from 0 on") {
    CHECK(parsed("12.3", Part::checkpoint) == Selectors{{12, {}, 3}});
    CHECK(parsed("12", Part::checkpoint) == Selectors{{12, {}, {}}});
    CHECK(parsed("12.0", Part::step) == Selectors{{12, {}, 0}});
    CHECK(parsed("123_[1-2].1,12.2", Part::step) == Selectors{{123, {{1, 2, 1}}, 1}, {12, {}, 2}});
    CHECK_FALSE(parse_selectors("12.0", Part::checkpoint).has_value());
    CHECK_FALSE(parse_selectors("12.1", Part::none).has_value());
}

TEST_CASE("what names no job is refused with the forms that do") {
    for (const char* bad : {"", ",", "12,", ",12", "12,,13", "0", "-1", "+1", " 12", "twelve", "4294967296", "12+1", ".", "12.", ".3", "0.3", "12.3.4",
                            "12.batch", "12. 3", "12.-3", "12.4294967296", "123_", "123_[]", "123_[", "123_[1", "123_1]", "123_[1-]", "123_[-1]", "123_[5-3]",
                            "123_[1,]", "123_[,1]", "123_[1-5:0]", "123_[1:2]", "123_[1-5:]", "123_x", "_4", "0_4", "123_[1]2", "123_[[1]]", "123_1-3"}) {
        INFO(bad);
        for (const Part part : {Part::none, Part::checkpoint, Part::step}) {
            const auto selectors = parse_selectors(bad, part);
            REQUIRE_FALSE(selectors.has_value());
            CHECK(selectors.error().code == Errc::invalid);
            CHECK(selectors.error().text.contains("123_[1-10]"));
        }
    }
}
