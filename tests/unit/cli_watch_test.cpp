// SPDX-License-Identifier: GPL-3.0-or-later
//
// What is shown while something goes on: to who watches, on a terminal, and in a log.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <catch2/catch_test_macros.hpp>
#include <string>

#include "cli/progress.h"
#include "cli/verbs.h"
#include "common/fd.h"

using namespace sckpt;
using namespace sckpt::cli;

namespace {

class Pipe {
   public:
    Pipe() {
        int ends[2];
        REQUIRE(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
        from_.reset(ends[0]);
        to_.reset(ends[1]);
    }
    int to() const { return to_.get(); }
    std::string read() const {  // what has come since the last call
        std::string text(65536, '\0');
        const ssize_t size = ::read(from_.get(), text.data(), text.size());
        text.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
        return text;
    }

   private:
    UniqueFd from_, to_;
};

rpc::WatchReply reply_with(std::uint32_t job, std::uint32_t number, rpc::CheckpointState state, rpc::Drain::Phase phase,
                           std::uint64_t done = 0) {
    rpc::WatchReply reply;
    rpc::Job& entry = *reply.add_jobs();
    entry.set_job_id(job);
    entry.set_user("alice");
    entry.set_node("n1");
    rpc::Checkpoint& checkpoint = *entry.add_checkpoints();
    checkpoint.set_number(number);
    checkpoint.set_state(state);
    if (state == rpc::CAPTURED) {
        checkpoint.mutable_drain()->set_phase(phase);
        checkpoint.mutable_drain()->set_bytes_done(done);
        checkpoint.mutable_drain()->set_bytes_total(100 << 20);
    }
    return reply;
}

}  // namespace

TEST_CASE("a log of a watch has a line a change, and hears of each end") {
    WatchState state;
    const auto update = [&](const rpc::WatchReply& reply) { return state.update(activities(reply)); };
    CHECK(update(reply_with(12, 3, rpc::PREPARING, rpc::Drain::UNKNOWN)).changed.size() == 1);
    CHECK(update(reply_with(12, 3, rpc::PREPARING, rpc::Drain::UNKNOWN)).changed.empty());
    CHECK(update(reply_with(12, 3, rpc::CAPTURED, rpc::Drain::QUEUED)).changed.size() == 1);
    CHECK(update(reply_with(12, 3, rpc::CAPTURED, rpc::Drain::COPYING, 1 << 20)).changed.size() == 1);
    CHECK(update(reply_with(12, 3, rpc::CAPTURED, rpc::Drain::COPYING, 2 << 20)).changed.empty());
    const auto end = update({});
    CHECK(end.changed.empty());
    REQUIRE(end.ended.size() == 1);
    CHECK(end.ended[0] == JobId{12, 3});
    CHECK(update({}).ended.empty());
}

TEST_CASE("a job that does nothing but restart is shown as such") {
    rpc::WatchReply reply;
    rpc::Job& job = *reply.add_jobs();
    job.set_job_id(12);
    job.set_node("n2");
    rpc::Checkpoint& old = *job.add_checkpoints();
    old.set_number(3);
    old.set_state(rpc::COMPLETE);
    const auto all = activities(reply);
    REQUIRE(all.size() == 1);
    CHECK(all[0].id == JobId{12, 0});
    CHECK(all[0].text == "restarting on n2");
    job.add_restarts_done()->set_outcome("restored");
    CHECK(render_end({12, 0}, job) == "12: restored");
}

TEST_CASE("what became of a checkpoint") {
    rpc::Job job;
    rpc::Checkpoint& checkpoint = *job.add_checkpoints();
    checkpoint.set_number(3);
    checkpoint.set_state(rpc::COMPLETE);
    checkpoint.set_bytes(100 << 20);
    checkpoint.set_new_bytes(20 << 20);
    checkpoint.set_frozen_ms(50);
    CHECK(render_end({12, 3}, job) == "12.3: complete, 100.0 MiB (20.0 MiB written), frozen 0.05 s");
    checkpoint.set_state(rpc::FAILED);
    checkpoint.set_reason("its node went down");
    CHECK(render_end({12, 3}, job) == "12.3: failed: its node went down");
    CHECK(render_end({12, 4}, job) == "12.4: removed");
}

TEST_CASE("the table of a watch is as wide as the terminal at most") {
    auto reply = reply_with(12, 3, rpc::CAPTURED, rpc::Drain::WAITING);
    reply.mutable_jobs(0)->mutable_checkpoints(0)->mutable_drain()->set_text(std::string(200, 'x'));
    const std::string text = render_activities(activities(reply), {.width = 40});
    CHECK(text.starts_with("CKPT  USER   NODE  DOING\n12.3  alice  n1    waiting: xxx"));
    CHECK(text.find('\n', 25) <= 25 + 40);
    CHECK(render_activities({}, {.width = 12}).size() <= 13);
}

TEST_CASE("progress in a log is a line a phase, without control characters") {
    Pipe pipe;
    {
        ProgressLine line(pipe.to(), false);
        line.show("copying 1", "copying");
        line.show("copying 2", "copying");
        line.show("waiting\033[2J", "waiting");
        line.tick("not yet: half a minute has not passed");
        line.note("stays");
    }
    CHECK(pipe.read() == "copying 1\nwaiting?[2J\nstays\n");
}

TEST_CASE("progress on a terminal is one line that changes, and is gone at the end") {
    Pipe pipe;
    {
        ProgressLine line(pipe.to(), true);
        line.tick("1 of 3");
        line.tick(std::string(200, 'x'));
        line.note("stays");
        line.tick("3 of 3");
    }
    const std::string clear = "\r\033[K";
    CHECK(pipe.read() == clear + "1 of 3" + clear + std::string(76, 'x') + "..." + clear + "stays\n" + clear + "3 of 3" + clear);
}

TEST_CASE("live lines are drawn over, and what is told stays above them") {
    Pipe pipe;
    LiveLines lines(pipe.to());
    REQUIRE(lines.show("", "a\nb\n"));
    CHECK(pipe.read() == "a\nb\n");
    REQUIRE(lines.show("told\n", "c\n"));
    CHECK(pipe.read() == "\033[2A\r\033[Jtold\nc\n");
    REQUIRE(lines.show("", ""));
    CHECK(pipe.read() == "\033[1A\r\033[J");
}

TEST_CASE("how long to wait") {
    CHECK(parse_wait("90").value() == std::chrono::seconds(90));  // as it was at first: seconds
    CHECK(parse_wait("5m").value() == std::chrono::minutes(5));
    CHECK(parse_wait("1:30:00").value() == std::chrono::minutes(90));
    for (const char* bad : {"", "0", "-1", "soon", "5x", "367d", "99999999999999999999"}) {
        INFO(bad);
        CHECK_FALSE(parse_wait(bad).has_value());
    }
}
