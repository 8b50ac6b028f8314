// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the stub hands over so that the real srun starts as the script meant it to, and the environment that it gets.
#include "daemon/srun_environment.h"
#include "daemon/srun_launch.h"

#include <catch2/catch_test_macros.hpp>

#include <algorithm>

using namespace sckpt;

namespace {

SrunLaunch example() {
    SrunLaunch launch;
    launch.program = "/usr/bin/srun";
    launch.directory = "/home/user with space";
    launch.argv = {"srun", "", "-n4", "line\nbreak"};
    launch.environment = {"A=1", "EMPTY=", "BIG=" + std::string(1 << 20, 'x')};
    launch.descriptors = {3, 63};
    launch.file_mask = 027;
    launch.nice = 5;
    launch.ignored = signal_bit(1);
    launch.blocked = signal_bit(64);
    for (unsigned i = 0; i < RLIMIT_NLIMITS; ++i) launch.limits.push_back({i, RLIM_INFINITY});
    return launch;
}

using Variables = std::vector<std::string>;

bool holds(const Variables& environment, const std::string& variable) { return std::ranges::contains(environment, variable); }
bool mentions(const Variables& environment, const std::string& name) {
    return std::ranges::any_of(environment, [&](const std::string& variable) { return variable.starts_with(name + "="); });
}

}  // namespace

TEST_CASE("a launch comes over whole") {
    const SrunLaunch launch = example();
    const auto parsed = parse_srun_launch(to_bytes(launch));
    REQUIRE(parsed);
    CHECK(parsed->program == launch.program);
    CHECK(parsed->directory == launch.directory);
    CHECK(parsed->argv == launch.argv);
    CHECK(parsed->environment == launch.environment);
    CHECK(parsed->descriptors == launch.descriptors);
    CHECK(parsed->file_mask == launch.file_mask);
    CHECK(parsed->nice == launch.nice);
    CHECK(parsed->ignored == launch.ignored);
    CHECK(parsed->blocked == launch.blocked);
    REQUIRE(parsed->limits.size() == launch.limits.size());
    CHECK(parsed->limits.at(7).rlim_cur == 7);
    CHECK(parsed->limits.at(7).rlim_max == RLIM_INFINITY);
}

TEST_CASE("a launch that was cut off anywhere is refused") {
    SrunLaunch launch = example();
    launch.environment.pop_back();
    const std::string bytes = to_bytes(launch);
    for (std::size_t size = 0; size < bytes.size(); ++size) CHECK_FALSE(parse_srun_launch(std::string_view(bytes).substr(0, size)));
    CHECK_FALSE(parse_srun_launch(bytes + "x"));
}

TEST_CASE("a launch that makes no sense is refused") {
    for (const int number : {-1, 0, 2}) {
        SrunLaunch launch = example();
        launch.descriptors = {number};
        CHECK_FALSE(parse_srun_launch(to_bytes(launch)));
    }
    SrunLaunch launch = example();
    launch.program = "srun";
    CHECK_FALSE(parse_srun_launch(to_bytes(launch)));
    launch = example();
    launch.argv.clear();
    CHECK_FALSE(parse_srun_launch(to_bytes(launch)));
}

TEST_CASE("the srun of a job that was not restored gets the script's environment, and sckpt's own variables") {
    const Variables script{"PATH=/bin", "SLURM_NNODES=1", "SCKPT_SUPERVISOR=/run/x",
                           "SLURM_SPANK__SLURM_SPANK_OPTION_sckpt_ckpt_step=1:2:3"};
    const Variables expected{"PATH=/bin", "SLURM_NNODES=1", "SLURM_SPANK__SLURM_SPANK_OPTION_sckpt_ckpt_step=7:4:0", "SCKPT_STEP_REPORT=9"};
    CHECK(srun_environment(script, nullptr, {.job_id = 7, .key = 4, .report = 9}) == expected);
}

TEST_CASE("after a restart an srun is told of the allocation as it is now") {
    const Variables script{"PATH=/bin",
                           "SLURM_JOB_NODELIST=n1",
                           "SLURM_JOB_NODELIST_HET_GROUP_1=n2",
                           "SLURM_JOB_ID=7",
                           "SLURM_JOB_GPUS=0",
                           "SLURM_NNODES_OF_MINE=5",
                           "SLURM_SUBMIT_HOST=login"};
    const char* const now[] = {"PATH=/other",           "SLURM_JOB_NODELIST=n3",   "SLURM_JOB_NODELIST_HET_GROUP_1=n4",
                               "SLURM_RESTART_COUNT=1", "SLURM_SUBMIT_HOST=other", nullptr};
    const Variables started = srun_environment(script, now, {.job_id = 7, .key = 0, .report = 3});
    for (const char* variable : {"PATH=/bin", "SLURM_JOB_NODELIST=n3", "SLURM_JOB_NODELIST_HET_GROUP_1=n4", "SLURM_RESTART_COUNT=1",
                                 "SLURM_JOB_ID=7", "SLURM_NNODES_OF_MINE=5", "SLURM_SUBMIT_HOST=login"}) {
        INFO(variable);
        CHECK(holds(started, variable));
    }
    CHECK_FALSE(holds(started, "SLURM_JOB_NODELIST=n1"));
    CHECK_FALSE(mentions(started, "SLURM_JOB_GPUS"));
    CHECK_FALSE(mentions(started, "SLURM_OPEN_MODE"));  // a new step: its output begins as ever
}

TEST_CASE("a step that goes on appends to its output, unless the script has said what it wants") {
    const char* const now[] = {nullptr};
    const SrunStep step{.job_id = 7, .key = 1, .resume_from = 12, .report = 3};
    const Variables started = srun_environment({}, now, step);
    CHECK(holds(started, "SLURM_OPEN_MODE=a"));
    CHECK(holds(started, "SLURM_SPANK__SLURM_SPANK_OPTION_sckpt_ckpt_step=7:1:12"));
    CHECK_FALSE(holds(srun_environment({"SLURM_OPEN_MODE=t"}, now, step), "SLURM_OPEN_MODE=a"));
}
