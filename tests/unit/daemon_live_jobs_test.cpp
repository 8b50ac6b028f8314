// SPDX-License-Identifier: GPL-3.0-or-later
#include <catch2/catch_test_macros.hpp>

#include "daemon/live_jobs.h"
#include "rpc/local.h"

using namespace sckpt;

namespace {

rpc::Task script(std::uint32_t job) {
    rpc::Task task;
    task.set_job_id(job);
    task.set_step_id(local::kBatchStep);
    task.set_uid(1000);
    return task;
}

rpc::Task rank(std::uint32_t job, std::uint32_t key, std::uint32_t number, std::uint32_t tasks) {
    rpc::Task task;
    task.set_job_id(job);
    task.set_step_id(key + 10);
    task.set_step_key(key);
    task.set_task_id(number);
    task.set_tasks(tasks);
    task.set_uid(1000);
    return task;
}

rpc::Task ended(rpc::Task task, int wait_status) {
    task.set_ended(true);
    task.set_wait_status(wait_status);
    return task;
}

}  // namespace

TEST_CASE("a job is live while its script or a task of its steps runs") {
    LiveJobs live;
    live.script_started("n1", script(7));
    CHECK(live.find(7)->node == "n1");
    CHECK(live.task_started("n2", rank(7, 0, 1, 2)));
    live.task_ended("n1", script(7));
    REQUIRE(live.find(7) != nullptr);
    CHECK_FALSE(live.find(7)->has_script());
    live.task_ended("n2", ended(rank(7, 0, 1, 2), 0));
    CHECK(live.find(7) != nullptr);  // rank 0 may run, on a node that has not said so yet
    live.task_started("n1", rank(7, 0, 0, 2));
    live.task_ended("n1", ended(rank(7, 0, 0, 2), 256));
    CHECK(live.find(7) == nullptr);
}

TEST_CASE("ranks are known with their node, and with how they ended") {
    LiveJobs live;
    live.script_started("n1", script(7));
    live.task_started("n1", rank(7, 3, 0, 2));
    CHECK_FALSE(live.task_started("n1", rank(7, 3, 0, 2)));  // told again
    live.task_started("n2", rank(7, 3, 1, 2));
    live.task_ended("n2", ended(rank(7, 3, 1, 2), 512));
    const auto ranks = live.find(7)->ranks();
    REQUIRE(ranks.size() == 2);
    CHECK(ranks[0].node == "n1");
    CHECK_FALSE(ranks[0].wait_status);
    CHECK(ranks[1].wait_status == 512);
    CHECK(live.step_key(7, 13) == 3u);
    CHECK_FALSE(live.step_key(7, 3));
}

TEST_CASE("another node's word of an end, or another user's, does not count") {
    LiveJobs live;
    live.script_started("n1", script(7));
    live.task_started("n1", rank(7, 0, 0, 1));
    live.task_ended("n2", ended(rank(7, 0, 0, 1), 0));
    live.task_ended("n2", script(7));
    rpc::Task foreign = ended(rank(7, 0, 0, 1), 0);
    foreign.set_uid(1001);
    live.task_ended("n1", foreign);
    CHECK(live.find(7)->node == "n1");
    CHECK_FALSE(live.find(7)->ranks().front().wait_status);
}

TEST_CASE("a rank that goes without a word is not known any more") {
    LiveJobs live;
    live.script_started("n1", script(7));
    live.task_started("n1", rank(7, 0, 0, 2));
    live.task_ended("n1", rank(7, 0, 0, 2));
    CHECK(live.find(7)->ranks().empty());
}

TEST_CASE("a node that connects tells anew what runs there") {
    LiveJobs live;
    live.script_started("n1", script(7));
    live.task_started("n1", rank(7, 0, 0, 2));
    live.task_started("n2", rank(7, 0, 1, 2));
    live.node_attached("n1");
    CHECK_FALSE(live.find(7)->has_script());
    CHECK(live.find(7)->ranks().size() == 1);
    live.node_attached("n2");
    CHECK(live.find(7) == nullptr);
}

TEST_CASE("of steps that are over the latest are remembered") {
    LiveJobs live;
    live.script_started("n1", script(7));
    for (std::uint32_t key = 0; key < 1000; ++key) {
        live.task_started("n1", rank(7, key, 0, 1));
        live.task_ended("n1", ended(rank(7, key, 0, 1), 0));
    }
    CHECK(live.find(7)->steps.size() < 100);
    CHECK(live.find(7)->steps.contains(999));
}

TEST_CASE("the word of a node costs the same however many ranks there are") {
    constexpr std::uint32_t kRanks = 50'000;
    const auto name = [](std::uint32_t number) { return "n" + std::to_string(number); };
    LiveJobs live;
    live.script_started("ctl", script(7));
    for (std::uint32_t i = 0; i < kRanks; ++i) live.task_started(name(i), rank(7, 0, i, kRanks));
    for (std::uint32_t i = 0; i < kRanks; ++i) {  // squares of this number would take minutes
        live.node_attached(name(i));
        live.task_started(name(i), rank(7, 0, i, kRanks));
    }
    for (std::uint32_t i = 0; i < kRanks; ++i) {
        CHECK_FALSE(live.find(7)->steps.at(0).over());
        live.task_ended(name(i), ended(rank(7, 0, i, kRanks), 0));
        if (i == 7) CHECK(live.rank_of(rank(7, 0, 7, kRanks))->wait_status == 0);
    }
    CHECK(live.find(7)->steps.at(0).over());
    CHECK_FALSE(live.rank_of(rank(7, 0, kRanks, kRanks)));
}
