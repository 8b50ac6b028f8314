// SPDX-License-Identifier: GPL-3.0-or-later
//
// What becomes of a job that has ended: each state, and each thing that stands in the way of a restart; and which runs are one job's.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "daemon/restart_policy.h"
#include "daemon/running_job.h"

using namespace sckpt;
using Catch::Matchers::ContainsSubstring;

namespace {

EndedJob restartable(SlurmJobState state) {
    EndedJob job;
    job.state = state;
    job.exit_status = 3 << 8;
    job.has_complete = true;
    job.max_restarts = 3;
    return job;
}

}  // namespace

TEST_CASE("a job that has not ended is left alone", "[restart_policy]") {
    for (const auto state : {SlurmJobState::pending, SlurmJobState::running, SlurmJobState::suspended, SlurmJobState::other})
        CHECK(decide_end(restartable(state)).action == EndAction::wait);
}

TEST_CASE("success and a cancel are final, and the checkpoints go", "[restart_policy]") {
    CHECK(decide_end(restartable(SlurmJobState::completed)).action == EndAction::discard);
    CHECK(decide_end(restartable(SlurmJobState::cancelled)).action == EndAction::discard);
}

TEST_CASE("a failed program and a lost node lead to a restart", "[restart_policy]") {
    CHECK(decide_end(restartable(SlurmJobState::failed)).action == EndAction::requeue);
    CHECK(decide_end(restartable(SlurmJobState::node_fail)).action == EndAction::requeue);
}

TEST_CASE("a time limit and lack of memory would only repeat themselves: no restart, but the checkpoints stay", "[restart_policy]") {
    CHECK(decide_end(restartable(SlurmJobState::timed_out)).action == EndAction::keep);
    CHECK(decide_end(restartable(SlurmJobState::out_of_memory)).action == EndAction::keep);
}

TEST_CASE("without a complete checkpoint there is no restart, and the reason says so", "[restart_policy]") {
    EndedJob job = restartable(SlurmJobState::failed);
    job.has_complete = false;
    const EndDecision decision = decide_end(job);
    CHECK(decision.action == EndAction::keep);
    CHECK_THAT(decision.reason, ContainsSubstring("no complete checkpoint") && ContainsSubstring("exit code 3"));
}

TEST_CASE("a job that forbids requeue is not restarted", "[restart_policy]") {
    EndedJob job = restartable(SlurmJobState::failed);
    job.may_requeue = false;
    CHECK(decide_end(job).action == EndAction::keep);
    CHECK_THAT(decide_end(job).reason, ContainsSubstring("--no-requeue"));
}

TEST_CASE("restarts end at the limit", "[restart_policy]") {
    EndedJob job = restartable(SlurmJobState::failed);
    job.restarts = 2;
    CHECK(decide_end(job).action == EndAction::requeue);
    job.restarts = 3;
    CHECK(decide_end(job).action == EndAction::keep);
    CHECK_THAT(decide_end(job).reason, ContainsSubstring("restarted 3 times"));
    job.max_restarts = 0;
    job.restarts = 0;
    CHECK(decide_end(job).action == EndAction::keep);
}

TEST_CASE("the way a job ended is told as users know it", "[restart_policy]") {
    CHECK(describe_exit(3 << 8) == "exit code 3");
    CHECK(describe_exit(11) == "signal 11");
    CHECK(describe_exit(11 | 0x80) == "signal 11");  // with a core file
}

TEST_CASE("a later run of the same job is told from another job that got its number", "[restart_policy]") {
    JobRow row;
    row.uid = 1000;
    row.submit_time = 500;
    row.slurm_restart_count = 1;
    SlurmJob slurm;
    slurm.uid = 1000;
    slurm.submit_time = 500;
    slurm.restart_count = 1;
    CHECK(is_run_of(row, slurm));
    slurm.restart_count = 2;  // requeued, while its nodes are not free yet
    CHECK(is_run_of(row, slurm));
    slurm.submit_time = 600;  // and when they are
    CHECK(is_run_of(row, slurm));

    slurm.restart_count = 1;
    CHECK_FALSE(is_run_of(row, slurm));
    slurm.restart_count = 0;
    CHECK_FALSE(is_run_of(row, slurm));
    slurm.uid = 1001;
    slurm.restart_count = 2;
    CHECK_FALSE(is_run_of(row, slurm));
}

TEST_CASE("a failed job that is requeued by hand goes on, one that succeeded begins anew", "[restart_policy]") {
    JobRow row;
    row.submit_time = 500;
    SlurmJob slurm;
    slurm.submit_time = 600;
    slurm.restart_count = 1;
    for (const JobOutcome outcome : {JobOutcome::failed, JobOutcome::unknown}) {
        row.outcome = outcome;
        CHECK(may_live_again(row, slurm));
    }
    for (const JobOutcome outcome : {JobOutcome::live, JobOutcome::succeeded, JobOutcome::cancelled}) {
        row.outcome = outcome;
        CHECK_FALSE(may_live_again(row, slurm));
    }
    row.outcome = JobOutcome::failed;
    slurm.restart_count = 0;  // another job under its number
    CHECK_FALSE(may_live_again(row, slurm));
}

TEST_CASE("a run goes on as long as Slurm has not begun to end it, or another one", "[restart_policy]") {
    SlurmJob slurm;
    slurm.restart_count = 1;
    for (const SlurmJobState state : {SlurmJobState::running, SlurmJobState::suspended}) {
        slurm.state = state;
        slurm.completing = false;
        CHECK(runs_on(slurm, 1));
        CHECK_FALSE(runs_on(slurm, 0));
        CHECK_FALSE(runs_on(slurm, 2));
        slurm.completing = true;
        CHECK_FALSE(runs_on(slurm, 1));
    }
    slurm.completing = false;
    for (const SlurmJobState state : {SlurmJobState::pending, SlurmJobState::completed, SlurmJobState::failed, SlurmJobState::node_fail,
                                      SlurmJobState::cancelled, SlurmJobState::timed_out, SlurmJobState::out_of_memory, SlurmJobState::other}) {
        slurm.state = state;
        CHECK_FALSE(runs_on(slurm, 1));
    }
}
