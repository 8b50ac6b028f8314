// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-run: its command line, and where it finds the program (as slurmstepd does, which is not as execvp(3) does).
#include "daemon/sckpt_run_exec.h"
#include "daemon/sckpt_run_options.h"

#include <catch2/catch_test_macros.hpp>

#include <filesystem>
#include <fstream>
#include <vector>

#include <stdlib.h>

using namespace sckpt;

namespace {

struct CommandLine {
    explicit CommandLine(std::vector<std::string> given) : words(std::move(given)) {
        for (std::string& word : words) pointers.push_back(word.data());
        pointers.push_back(nullptr);
    }
    Result<RunOptions> parse() { return parse_run_options(static_cast<int>(words.size()), pointers.data()); }
    std::vector<std::string> words;
    std::vector<char*> pointers;
};

struct TemporaryDirectory {
    TemporaryDirectory() { REQUIRE(::mkdtemp(name.data())); }
    ~TemporaryDirectory() { std::filesystem::remove_all(name); }
    std::string name = "/tmp/sckpt-run-test-XXXXXX";
};

}  // namespace

TEST_CASE("the command line that the plug-in writes is understood") {
    CommandLine line({"sckpt-run", "--job=7", "--step=4294967291", "--task=3", "--restart-count=2", "--interval=-1", "--max-restarts=5",
                      "--socket=/run/s", "--", "program", "--job=8"});
    const auto options = line.parse();
    REQUIRE(options);
    CHECK(options->job_id == 7);
    CHECK(options->step_id == 4294967291U);
    CHECK(options->task_id == 3);
    CHECK(options->restart_count == 2);
    CHECK(options->interval_seconds == -1);
    CHECK(options->max_restarts == 5);
    CHECK(std::string(options->socket) == "/run/s");
    CHECK(std::string(options->program[0]) == "program");
    CHECK(std::string(options->program[1]) == "--job=8");
    CHECK(options->program[2] == nullptr);
}

TEST_CASE("the command line of a step's task says what it is, and whether it goes on from something") {
    CommandLine line({"sckpt-run", "--job=7", "--step=3", "--task=1", "--step-key=2147483651", "--resume-from=12", "--tasks=64", "--restart-count=0",
                      "--socket=/run/s", "--", "program"});
    const auto options = line.parse();
    REQUIRE(options);
    CHECK(options->step_key == 2147483651U);
    CHECK(options->resume_from == 12);
    CHECK(options->tasks == 64);
    CHECK_FALSE(options->is_batch());
    CHECK_FALSE(options->first_start());
}

TEST_CASE("only a batch script is what Slurm restarts") {
    RunOptions options;
    options.restart_count = 1;
    options.step_id = local::kBatchStep;
    CHECK_FALSE(options.first_start());
    options.step_id = 0;
    CHECK(options.first_start());
}

TEST_CASE("a bad command line is refused with the bad word") {
    const std::vector<std::string> good{"sckpt-run", "--job=7", "--socket=/run/s"};
    for (const char* bad : {"--job=", "--job=x", "--job=99999999999", "--interval=-2", "--jobs=1", "--socket=run/s", "program"}) {
        std::vector<std::string> words = good;
        words.insert(words.end(), {bad, "--", "true"});
        const auto options = CommandLine(words).parse();
        REQUIRE_FALSE(options);
        CHECK(options.error().text.find(bad) != std::string::npos);
    }
    CHECK_FALSE(CommandLine(good).parse());
    CHECK_FALSE(CommandLine({"sckpt-run", "--job=7", "--socket=/run/s", "--"}).parse());
    CHECK_FALSE(CommandLine({"sckpt-run", "--job=7", "--", "true"}).parse());
}

TEST_CASE("a program is looked for as slurmstepd does") {
    const TemporaryDirectory first, second;
    std::filesystem::create_directory(first.name + "/tool");   // a directory is passed over
    std::ofstream(second.name + "/tool") << "not executable";  // but a file is taken, executable or not
    const std::string path = "::" + first.name + ":" + second.name;
    CHECK(resolve_program("tool", path.c_str()) == second.name + "/tool");
    CHECK(resolve_program("nowhere", path.c_str()) == "nowhere");
    CHECK(resolve_program("tool", nullptr) == "tool");
    CHECK(resolve_program("/bin/../bin/x", path.c_str()) == "/bin/../bin/x");
    CHECK(resolve_program("./x", path.c_str()) == std::filesystem::current_path().string() + "/./x");
}
