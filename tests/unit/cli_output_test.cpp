// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the commands print, as a reader or a script sees it.
#include <stdlib.h>
#include <time.h>
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <ranges>
#include <string>

#include "cli/session.h"
#include "cli/verbs.h"

using namespace sckpt;
using namespace sckpt::cli;

namespace {

std::size_t longest_line(const std::string& text) {
    std::size_t longest = 0;
    for (const auto line : text | std::views::split('\n'))
        longest = std::max(longest, static_cast<std::size_t>(std::ranges::distance(line)));
    return longest;
}

rpc::Checkpoint* add_checkpoint(rpc::Job& job, std::uint32_t number, rpc::CheckpointState state, std::int64_t created,
                                std::uint64_t bytes) {
    rpc::Checkpoint* checkpoint = job.add_checkpoints();
    checkpoint->set_number(number);
    checkpoint->set_state(state);
    checkpoint->set_created(created);
    checkpoint->set_bytes(bytes);
    checkpoint->set_frozen_ms(bytes > 0 ? 50 : 0);
    checkpoint->set_image_count(bytes > 0 ? 1 : 0);
    return checkpoint;
}

rpc::Job sample_job() {
    rpc::Job job;
    job.set_job_id(67108863);
    job.set_uid(1000);
    job.set_user("a-user-with-a-long-name");
    job.set_slurm_state("OUT_OF_MEMORY");
    job.set_restarts(3);
    job.set_max_restarts(3);
    job.set_interval_seconds(900);
    add_checkpoint(job, 11, rpc::COMPLETE, 1000, 12'900'000);
    add_checkpoint(job, 12, rpc::FAILED, 1600, 0)
        ->set_reason("the socket to 10.0.0.1:80 cannot be dumped: close it, or wait until the transfer is over");
    return job;
}

}  // namespace

TEST_CASE("sizes") {
    CHECK(format_bytes(0) == "0 B");
    CHECK(format_bytes(1023) == "1023 B");
    CHECK(format_bytes(1024) == "1.0 KiB");
    CHECK(format_bytes(12'897'485) == "12.3 MiB");
    CHECK(format_bytes((1u << 20) - 1) == "1.0 MiB");  // never "1024.0 KiB"
    CHECK(format_bytes(5ULL << 30) == "5.0 GiB");
    CHECK(format_bytes(3ULL << 50) == "3.0 PiB");
    CHECK(format_bytes(~0ULL) == "16384.0 PiB");
}

TEST_CASE("ages and times") {
    CHECK(format_age(-5) == "0s");
    CHECK(format_age(59) == "59s");
    CHECK(format_age(60) == "1m");
    CHECK(format_age(3599) == "59m");
    CHECK(format_age(3 * 3600 + 12 * 60 + 59) == "3h12m");
    CHECK(format_age(2 * 86400 + 4 * 3600) == "2d4h");
    CHECK(format_milliseconds(54) == "0.05 s");
    CHECK(format_milliseconds(12'345) == "12.35 s");
    CHECK(format_time(0) == "-");
    REQUIRE(setenv("TZ", "XYZ-2", 1) == 0);  // two hours east of Greenwich
    tzset();
    CHECK(format_time(1'000'000'000) == "2001-09-09T03:46:40");
}

TEST_CASE("nothing that a job wrote can steer the terminal") {
    CHECK(printable("plain, caf\xc3\xa9") == "plain, caf\xc3\xa9");
    CHECK(printable("a\033[2Jb\nc\x7f") == "a?[2Jb?c?");
    CHECK(printable("a\xc2\x9b"
                    "2Jb") == "a?2Jb");  // CSI as one character
    Table table({{"NOTE"}});
    table.add({{"x\033]0;title\007"}});
    CHECK_FALSE(table.text({}).contains('\033'));
}

TEST_CASE("texts are shortened between characters") {
    CHECK(shorten("short", 5) == "short");
    CHECK(shorten("longer", 5) == "lo...");
    CHECK(shorten("\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9", 5) == "\xc3\xa9\xc3\xa9...");
    CHECK(shorten("\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9", 5) == "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9");
}

TEST_CASE("a table lines its columns up and keeps within the width") {
    Table table({{"N", Align::right}, {"NAME"}, {"NOTE"}});
    table.add({{"1"}, {"caf\xc3\xa9"}, {"a note that is far too long for this terminal"}});
    table.add({{"100"}, {"x"}, {""}});
    CHECK(table.text({.width = 30}) ==
          "  N  NAME  NOTE\n"
          "  1  caf\xc3\xa9  a note that is f...\n"
          "100  x\n");
    CHECK(table.text({.width = 200}).contains("for this terminal"));
    CHECK(table.text({.width = 0}).contains("a not..."));  // the last column keeps some room on any terminal
}

TEST_CASE("colours are there only where they are asked for") {
    Table table({{"STATE"}, {"N", Align::right}});
    table.add({{"FAILED", Colour::bad}, {"1"}});
    CHECK_FALSE(table.text({.colour = false}).contains('\033'));
    CHECK(table.text({.colour = true}).contains("\033[31mFAILED\033[0m"));
}

TEST_CASE("list fits 80 columns, whatever the names, and tells the last good checkpoint") {
    rpc::ListReply reply;
    *reply.add_jobs() = sample_job();
    reply.mutable_jobs(0)->set_held_reason("restarted 3 times, and failed each time: look at its output, then scontrol release");
    const std::string text = render_jobs(reply, {.now = 1720});
    INFO(text);
    CHECK(longest_line(text) <= 80);
    CHECK(text.contains("  11 "));  // not 12, which failed
    CHECK(text.contains("12.3 MiB"));
    CHECK(text.contains(" 12m "));
    CHECK(text.contains("held: "));
}

TEST_CASE("the checkpoints of a job") {
    const std::string text = render_checkpoints(sample_job(), {});
    INFO(text);
    CHECK(longest_line(text) <= 80);
    CHECK(text.contains("COMPLETE"));
    CHECK(text.contains("FAILED"));
    CHECK(text.contains("the socket"));
    CHECK_FALSE(text.contains("0 B"));

    rpc::Job job = sample_job();
    job.mutable_checkpoints(0)->set_pinned(true);
    job.mutable_checkpoints(0)->set_new_bytes(4 << 20);
    rpc::Drain* drain = add_checkpoint(job, 13, rpc::CAPTURED, 1700, 12'900'000)->mutable_drain();
    drain->set_phase(rpc::Drain::WAITING);
    drain->set_text("the store is full");
    const std::string more = render_checkpoints(job, {.width = 200});
    INFO(more);
    for (const char* part : {" 4.0 MiB", "pinned", "waiting: the store is full"}) CHECK(more.contains(part));
}

TEST_CASE("what a drain does, in words") {
    rpc::Drain drain;
    CHECK(drain_text(drain) == "to be stored");
    drain.set_phase(rpc::Drain::QUEUED);
    CHECK(drain_text(drain) == "waiting for its turn to be stored");
    drain.set_urgent(true);
    CHECK(drain_text(drain) == "to be stored next");
    drain.set_phase(rpc::Drain::COPYING);
    drain.set_bytes_done(1ULL << 30);
    drain.set_bytes_total(4ULL << 30);
    CHECK(drain_text(drain) == "storing, 1.0 GiB of 4.0 GiB");
    drain.set_bytes_per_second(100ULL << 20);
    CHECK(drain_text(drain) == "storing, 1.0 GiB of 4.0 GiB, 100.0 MiB/s, 31s left");
    CHECK(drain_news(drain) == "storing");
    drain.set_bytes_done(5ULL << 30);  // more than was expected
    CHECK(drain_text(drain) == "storing, 5.0 GiB of 4.0 GiB, 100.0 MiB/s");
    drain.set_phase(rpc::Drain::WAITING);
    drain.set_text("the store does not answer");
    CHECK(drain_text(drain) == "waiting: the store does not answer");
    CHECK(drain_news(drain) == "waiting: the store does not answer");
}

TEST_CASE("the note of a job is the most urgent thing about it") {
    rpc::ListReply reply;
    rpc::Job& job = *reply.add_jobs() = sample_job();
    const auto shown = [&](const char* part) { return render_jobs(reply, {.width = 200}).contains(part); };
    job.set_outcome("succeeded");
    CHECK(shown("succeeded"));
    job.set_last_error("the dump was refused");
    CHECK(shown("the dump was refused"));
    add_checkpoint(job, 13, rpc::CAPTURED, 1700, 12'900'000)->mutable_drain()->set_phase(rpc::Drain::QUEUED);
    CHECK(shown("13: waiting for its turn"));
    job.set_held_reason("no checkpoint is left");
    CHECK(shown("held: no checkpoint is left"));
}

TEST_CASE("show tells everything") {
    rpc::Job job = sample_job();
    rpc::Image* image = job.mutable_checkpoints(0)->add_images();
    image->set_task("batch");
    image->set_node("n1");
    image->set_path("67108863/11/batch");
    image->set_digest(std::string(64, 'a'));
    rpc::File* file = image->add_files();
    file->set_path("/home/somebody/" + std::string(100, 'p') + "/results.dat");
    file->set_size(4096);
    file->set_append(true);
    rpc::Restart* restart = job.add_restarts_done();
    restart->set_checkpoint(11);
    restart->set_outcome("restored");
    job.add_events()->set_text("requeued: its node failed");
    image->set_fast_node("n7");
    job.set_account("physics");
    job.set_outcome("failed");
    job.mutable_checkpoints(0)->set_new_bytes(3'225'000);
    job.mutable_checkpoints(0)->set_pinned(true);
    const std::string text = render_job(job, {});
    INFO(text);
    for (const char* part : {"a-user-with-a-long-name (1000)", "OUT_OF_MEMORY", "15m", "3 by sckpt after failures, of at most 3",
                             "batch script", "/results.dat", "append", "physics", "failed", "of n7",
                             "3.1 MiB written to the store for it (25 %)", "sckpt unpin", "restored", "requeued: its node failed",
                             "67108863/11/batch"})
        CHECK(text.contains(part));
    CHECK(text.contains(std::string(64, 'a')));
    CHECK(render_checkpoint(job, job.checkpoints(1), {}).contains("wait until the transfer is over"));  // the whole reason
}

TEST_CASE("of many images show tells how many in a job, and each in a checkpoint") {
    rpc::Job job = sample_job();
    rpc::Checkpoint& checkpoint = *job.mutable_checkpoints(0);
    checkpoint.set_image_count(4);
    for (const char* task : {"0.10", "0.2", "batch", "s7.0"}) {
        rpc::Image* image = checkpoint.add_images();
        image->set_task(task);
        image->set_node(std::string(task) == "batch" ? "n1" : "n2");
        image->set_bytes(3 << 20);
        image->set_fast_node(image->node());
        image->set_path(std::string("job-1-1/ckpt-11-") + task + "-00.manifest");
        image->add_files()->set_path("/home/somebody/out");
    }
    const auto add_ended = [&](const char* task, int status) {
        rpc::EndedTask* ended = checkpoint.add_ended();
        ended->set_task(task);
        ended->set_wait_status(status);
    };
    add_ended("0.3", 2 << 8);
    add_ended("0.4", 9);
    const std::string whole = render_job(job, {.width = 200});
    INFO(whole);
    CHECK(whole.contains("images   4 on 2 nodes; 2 tasks had ended\n"));
    CHECK_FALSE(whole.contains("0.10"));
    const std::string text = render_checkpoint(job, checkpoint, {.width = 200});
    INFO(text);
    std::size_t at = 0;
    for (const char* line : {"    batch  n1    3.0 MiB  yes         1  job-1-1/ckpt-11-batch-00.manifest\n", "    0.2 ",
                             "    0.3    -           -  -           -  had ended: exit status 2\n",
                             "    0.4    -           -  -           -  had ended: signal 9\n", "    0.10 ", "    s7.0 "}) {
        INFO(line);
        at = text.find(line, at);
        REQUIRE(at != text.npos);
    }
    CHECK(render_checkpoints(job, {}).contains("CREATED              IMAGES  "));
    CHECK(longest_line(render_checkpoints(job, {})) <= 80);
    CHECK_FALSE(render_checkpoints(sample_job(), {}).contains("IMAGES"));
}

TEST_CASE("a checkpoint of a step alone is not taken for the job's") {
    rpc::ListReply reply;
    rpc::Job& job = *reply.add_jobs() = sample_job();
    add_checkpoint(job, 13, rpc::COMPLETE, 1700, 99'000'000)->set_step("s3");
    CHECK(render_jobs(reply, {.now = 1720}).contains("  11 "));
    CHECK(render_checkpoints(job, {.width = 100}).contains("step s3 alone"));
    CHECK(render_checkpoint(job, job.checkpoints(2), {}).contains("step s3 alone"));
    job.mutable_checkpoints(2)->set_pinned(true);
    CHECK(render_checkpoints(job, {.width = 100}).contains("step s3 alone; pinned"));
}

TEST_CASE("status tells which node cannot checkpoint, and why") {
    rpc::StatusReply reply;
    reply.set_version("0.1.0");
    reply.add_notes("the collector: the store is full");
    rpc::NodeInfo* good = reply.add_nodes();
    good->set_name("n1");
    good->set_connected(true);
    good->set_version("0.1.0");
    good->set_backend("criu 4.2.1");
    good->set_backend_usable(true);
    rpc::NodeInfo* bad = reply.add_nodes();
    bad->set_name("n2");
    bad->set_version("0.0.9");
    bad->set_backend_reason("/usr/sbin/criu is missing: install criu 4.2");
    const std::string text = render_status(reply, "head:6830", {});
    INFO(text);
    for (const char* part : {"sckptctld 0.1.0 at head:6830", "n2: no connection", "install criu 4.2", "n2: sckptd is version 0.0.9",
                             "does not answer", "note       the collector: the store is full"})
        CHECK(text.contains(part));
    CHECK_FALSE(text.contains("n1: "));
}

TEST_CASE("status names the node that sees another store") {
    rpc::StatusReply reply;
    reply.set_store_id("1a2b");
    for (const char* name : {"n1", "n2", "n3"}) {
        rpc::NodeInfo* node = reply.add_nodes();
        node->set_name(name);
        node->set_connected(true);
        node->set_backend_usable(true);
        if (name != std::string("n3")) node->set_store_id(name == std::string("n1") ? "1a2b" : "3c4d");
    }
    const std::string text = render_status(reply, "head:6830", {});
    INFO(text);
    CHECK(text.contains("n2: sees another store at store.directory (3c4d"));
    CHECK(text.contains("the cluster's (1a2b)"));
    CHECK_FALSE(text.contains("n1: "));
    CHECK_FALSE(text.contains("n3: "));  // its own notes say why it sees none
}

TEST_CASE("what holds for many nodes is said once") {
    rpc::StatusReply reply;
    for (int i = 1; i <= 12; ++i) {
        rpc::NodeInfo* node = reply.add_nodes();
        node->set_name("n" + std::to_string(i));
        node->set_connected(true);
        node->set_backend_usable(true);
        node->add_backend_notes("jobs with TCP connections are refused");
        if (i <= 2) node->add_backend_notes("the kernel has no pagemap scan");
    }
    const std::string text = render_status(reply, "head:6830", {});
    INFO(text);
    CHECK(text.contains("12 nodes (n1, n2, n3, n4, n5, n6, n7, n8, ...): jobs with TCP connections are refused\n"));
    CHECK(text.contains("2 nodes (n1, n2): the kernel has no pagemap scan\n"));
}

TEST_CASE("the progress of a checkpoint, and its result") {
    CreateState state;
    const NamedJob job{.job = 12, .part = {}, .name = "12", .problem = ""};
    const auto tell = [&](rpc::CreateProgress::Phase phase, std::uint64_t bytes) {
        rpc::CreateProgress progress;
        progress.set_phase(phase);
        progress.set_checkpoint(3);
        progress.set_bytes(bytes);
        progress.set_frozen_ms(bytes ? 50 : 0);
        if (bytes) {
            progress.mutable_drain()->set_phase(rpc::Drain::COPYING);
            progress.mutable_drain()->set_bytes_done(1 << 20);
            progress.mutable_drain()->set_bytes_total(bytes);
        }
        state.update(progress);
        return render_progress(state);
    };
    CHECK(tell(rpc::CreateProgress::ORDERED, 0) == "checkpoint 3: ordered");
    CHECK(tell(rpc::CreateProgress::CAPTURED, 12'897'485) ==
          "checkpoint 3: captured, 12.3 MiB, frozen 0.05 s; storing, 1.0 MiB of 12.3 MiB");
    CHECK(progress_news(state) == "CAPTURED storing");  // not a line for each MiB
    tell(rpc::CreateProgress::COMPLETE, 0);
    CHECK(render_created(state, job) == "checkpoint 3 of job 12: complete, 12.3 MiB, frozen 0.05 s\n");
    tell(rpc::CreateProgress::REQUEUED, 0);
    CHECK(render_created(state, job) == "checkpoint 3 of job 12: complete, 12.3 MiB, frozen 0.05 s; the job is requeued\n");
}

TEST_CASE("a checkpoint of a step says how a step is started from it") {
    CreateState state;
    for (const auto phase : {rpc::CreateProgress::CAPTURED, rpc::CreateProgress::COMPLETE}) {
        rpc::CreateProgress progress;
        progress.set_phase(phase);
        progress.set_checkpoint(3);
        progress.set_bytes(1 << 20);
        progress.set_frozen_ms(50);
        if (phase == rpc::CreateProgress::CAPTURED) progress.set_step("s0");
        state.update(progress);
    }
    const NamedJob step{.job = 124, .part = 0, .name = "123_4.0", .problem = ""};
    CHECK(render_created(state, step) == "checkpoint 3 of step 123_4.0: complete, 1.0 MiB, frozen 0.05 s; "
                                         "`srun --ckpt-restart=124.s0.3` starts a step from it\n");
}

TEST_CASE("a task of a job array has its two names in a list") {
    rpc::ListReply reply;
    rpc::Job& job = *reply.add_jobs();
    job.set_job_id(124);
    job.set_array_task("123_4");
    CHECK(render_jobs(reply, View{}).contains("124 (123_4)"));
    CHECK(render_job(job, View{}).starts_with("job 124 (123_4)\n"));
}

TEST_CASE("JSON has every field, 64-bit numbers as numbers, and enums by name") {
    rpc::ListReply reply;
    *reply.add_jobs() = sample_job();
    const auto document = to_json(reply);
    REQUIRE(document.has_value());
    const auto& job = (*document)["jobs"][0];
    CHECK(job["job_id"] == 67108863);
    CHECK(job["held_reason"] == "");
    CHECK(job["interval_seconds"] == 900);
    CHECK(job["checkpoints"][0]["bytes"] == 12'900'000);
    CHECK(job["checkpoints"][1]["state"] == "FAILED");
    const auto again = nlohmann::json::parse(json_text(*document), nullptr, false);
    CHECK(again == *document);
}

TEST_CASE("JSON tells how far a drain is, and leaves it out when there is none") {
    rpc::Job job = sample_job();
    job.mutable_checkpoints(0)->set_new_bytes(1ULL << 40);
    rpc::Drain* drain = add_checkpoint(job, 13, rpc::CAPTURED, 1700, 1)->mutable_drain();
    drain->set_phase(rpc::Drain::WAITING);
    drain->set_bytes_total(1ULL << 40);
    const auto document = to_json(job);
    REQUIRE(document.has_value());
    const auto& checkpoints = (*document)["checkpoints"];
    CHECK(checkpoints[0]["new_bytes"] == 1ULL << 40);
    CHECK(checkpoints[0]["pinned"] == false);
    CHECK_FALSE(checkpoints[0].contains("drain"));
    CHECK(checkpoints[2]["drain"]["phase"] == "WAITING");
    CHECK(checkpoints[2]["drain"]["bytes_total"] == 1ULL << 40);
    CHECK((*document)["account"] == "");
    CHECK((*document)["outcome"] == "");
}

TEST_CASE("exit codes are those of the manual page") {
    CHECK(static_cast<int>(exit_code(Errc::not_found)) == 3);
    CHECK(static_cast<int>(exit_code(Errc::denied)) == 4);
    CHECK(static_cast<int>(exit_code(Errc::unavailable)) == 5);
    CHECK(static_cast<int>(exit_code(Errc::timeout)) == 6);
    CHECK(static_cast<int>(ExitCode::faults) == 7);
    for (const Errc code :
         {Errc::exists, Errc::invalid, Errc::busy, Errc::no_space, Errc::corrupt, Errc::unsupported, Errc::io, Errc::internal})
        CHECK(static_cast<int>(exit_code(code)) == 1);
}
