// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the SPANK plug-in makes of plugstack.conf, of option values and of what sbatch knows.
#include "plugin/settings.h"

#include <catch2/catch_test_macros.hpp>

using namespace sckpt::plugin;

namespace {

Settings settings_of(std::vector<std::string> words) {
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    return read_settings(static_cast<int>(arguments.size()), arguments.data());
}

}  // namespace

TEST_CASE("plugstack.conf arguments replace the compiled-in paths") {
    CHECK(settings_of({}).problem.empty());
    CHECK(settings_of({}).supervisor.ends_with("/sckpt-run"));
    const Settings settings = settings_of({"socket=/run/x.sock", "supervisor=/opt/sckpt-run", "stub=/opt/sckpt-srun", "command=/opt/sckpt"});
    CHECK(settings.problem.empty());
    CHECK(settings.socket == "/run/x.sock");
    CHECK(settings.supervisor == "/opt/sckpt-run");
    CHECK(settings.stub == "/opt/sckpt-srun");
    CHECK(settings.command == "/opt/sckpt");
}

TEST_CASE("a bad plugstack.conf argument is named") {
    for (const char* bad : {"sokcet=/run/x", "socket", "socket=", "supervisor=bin/sckpt-run", "stub=sckpt-srun", "command=sckpt"}) {
        const Settings settings = settings_of({"socket=/run/ok", bad});
        CHECK(settings.problem.find(bad) != std::string::npos);
    }
}

TEST_CASE("the interval of --ckpt as sckpt-run's argument") {
    CHECK(interval_argument(*sckpt::parse_ckpt_option(nullptr)) == -1);
    CHECK(interval_argument(*sckpt::parse_ckpt_option("manual")) == 0);
    CHECK(interval_argument(*sckpt::parse_ckpt_option("90s")) == 90);
}

TEST_CASE("--ckpt-max-restarts is a number, and 0 is one") {
    CHECK(*parse_max_restarts("0") == 0);
    CHECK(*parse_max_restarts("17") == 17);
    for (const char* bad : {"", "-1", "3x", "many", "99999999999"}) {
        INFO(bad);
        const auto count = parse_max_restarts(bad);
        REQUIRE_FALSE(count);
        CHECK(count.error().text.find("such as 3") != std::string::npos);
    }
}

TEST_CASE("a bare --ckpt is known in each of its disguises") {
    CHECK(given_value(nullptr, false) == nullptr);
    CHECK(given_value("(null)", false) == nullptr);
    CHECK(given_value("", true) == nullptr);
    CHECK(std::string(given_value("", false)).empty());  // --ckpt= is a mistake
    CHECK(std::string(given_value("90s", true)) == "90s");
}

TEST_CASE("the user hears of output that a restart would truncate") {
    CHECK(judge_submission({"a", "unset", false, true}).empty());
    CHECK(judge_submission({"", "unset", true, true}).empty());
    CHECK(judge_submission({"t", "unset", true, true}).at(0) ==
          "--open-mode=truncate: output written before a restart will be lost; use --open-mode=append");
    CHECK(judge_submission({"", "unset", false, true}).at(0).find("JobFileAppend=0") != std::string::npos);
}

TEST_CASE("the user hears of a job that cannot be requeued") {
    CHECK(judge_submission({"a", "no-requeue", true, true}).at(0).find("--no-requeue") == 0);
    CHECK(judge_submission({"a", "unset", true, false}).at(0).find("JobRequeue=0") != std::string::npos);
    CHECK(judge_submission({"a", "requeue", true, false}).empty());
}

TEST_CASE("a step knows its job, its key and the checkpoint that it goes on from") {
    const auto origin = parse_step_origin("17:4:12");
    REQUIRE(origin);
    CHECK(origin->job_id == 17);
    CHECK(origin->key == 4);
    CHECK(origin->resume_from == 12);
    for (const char* bad : {"", "17", "17:4", "17:4:", "17:4:12:", "x:4:12", "17: 4:12", "17:-4:12"}) {
        INFO(bad);
        CHECK_FALSE(parse_step_origin(bad));
    }
}

TEST_CASE("--ckpt-restart names a step, and perhaps a checkpoint") {
    CHECK(*parse_restart("12.0") == sckpt::StepCheckpoint{12, 0, 0});
    CHECK(*parse_restart("12.s1.3") == sckpt::StepCheckpoint{12, sckpt::kForeignStep | 1, 3});
    for (const char* bad : {"", "12", "12.batch", "12.0.0", "(null)"}) {
        INFO(bad);
        const auto step = parse_restart(bad);
        REQUIRE_FALSE(step);
        CHECK(step.error().text.find("such as 12.0") != std::string::npos);
    }
}

TEST_CASE("a step that its script's restart has started anew goes on from that job's checkpoint") {
    Request request;
    request.restart = sckpt::StepCheckpoint{12, 0, 3};
    CHECK_FALSE(request.is_resumed());
    request.step = StepOrigin{20, 1, 0};
    CHECK_FALSE(request.is_resumed());
    request.step->resume_from = 2;
    CHECK(request.is_resumed());
}
