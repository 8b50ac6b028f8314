// SPDX-License-Identifier: GPL-3.0-or-later
//
// The catalogue's rules about jobs and checkpoints: what a checkpoint may become, in which order numbers come, what threads see.
#include "image_store/catalogue.h"

#include <algorithm>
#include <functional>
#include <map>
#include <thread>

#include <sys/stat.h>

#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "tests/unit/catalogue_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using Catch::Matchers::ContainsSubstring;
using State = CheckpointState;

TEST_CASE("a job's row comes back as it was written, and the newest of an id counts", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    CHECK(*catalogue.newest_job(12) == std::nullopt);
    add_job(catalogue, 12);
    const RowId newer = *catalogue.add_job({.job_id = 12, .uid = 4000000000u, .user = "dave", .account = "chem", .submit_time = 7,
                                            .interval_seconds = 0, .max_restarts = 1, .restarts = 2, .slurm_restart_count = 3,
                                            .held_reason = "h", .last_error = "e"});
    add_job(catalogue, 13);
    const JobRow row = **catalogue.newest_job(12);
    CHECK(row.id == newer);
    CHECK(row.uid == 4000000000u);
    CHECK(row.user == "dave");
    CHECK(row.account == "chem");
    CHECK(row.submit_time == 7);
    CHECK(row.interval_seconds == 0);
    CHECK(row.max_restarts == 1);
    CHECK(row.restarts == 2);
    CHECK(row.slurm_restart_count == 3);
    CHECK(row.held_reason == "h");
    CHECK(row.last_error == "e");
    CHECK(row.outcome == JobOutcome::live);
    CHECK(row.ended == 0);
    CHECK((*catalogue.job(newer))->user == "dave");
    CHECK(*catalogue.job(99) == std::nullopt);
}

TEST_CASE("changes of a job are kept, and one of a job that is not there is not_found", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    REQUIRE(catalogue.set_job_run(job, 4, 11));
    REQUIRE(catalogue.set_job_held(job, "why"));
    REQUIRE(catalogue.set_job_error(job, "what"));
    CHECK(*catalogue.count_restart(job) == 1);
    CHECK(*catalogue.count_restart(job) == 2);
    JobRow row = **catalogue.newest_job(12);
    CHECK(row.slurm_restart_count == 4);
    CHECK(row.held_reason == "why");
    CHECK(row.last_error == "what");
    CHECK(row.restarts == 2);
    REQUIRE(catalogue.set_job_held(job, ""));
    CHECK((*catalogue.newest_job(12))->held_reason.empty());

    CHECK(catalogue.set_job_run(99, 1, 1).error().code == Errc::not_found);
    CHECK(catalogue.count_restart(99).error().code == Errc::not_found);
    CHECK(catalogue.begin_checkpoint(99, false, 1).error().code == Errc::not_found);
    CHECK(catalogue.add_event(99, 1, "x").error().code == Errc::not_found);
    CHECK(catalogue.add_restart(99, {}).error().code == Errc::not_found);
    CHECK(catalogue.complete(99, {{"batch", {.manifest = "m", .digest = "d"}, 1}}, 1).error().code == Errc::not_found);
    CHECK(catalogue.remove_checkpoint(99, 1).error().code == Errc::not_found);
    CHECK(catalogue.lease(99, 1).error().code == Errc::not_found);
    CHECK(catalogue.set_pinned(99, true).error().code == Errc::not_found);
    CHECK(catalogue.forget_job(99).error().code == Errc::not_found);
}

TEST_CASE("the end of a job is kept with its first time, may be taken back, and the job is then listed only when asked for",
          "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue, 12), other = add_job(catalogue, 13);
    REQUIRE(catalogue.set_job_ended(job, JobOutcome::failed, 500));
    REQUIRE(catalogue.set_job_ended(job, JobOutcome::cancelled, 600));
    CHECK((*catalogue.job(job))->outcome == JobOutcome::cancelled);
    CHECK((*catalogue.job(job))->ended == 500);
    REQUIRE(catalogue.jobs(false)->size() == 1);
    CHECK(catalogue.jobs(false)->front().id == other);
    REQUIRE(catalogue.jobs(true)->size() == 2);
    CHECK(catalogue.jobs(true)->front().id == other);  // newest first
    REQUIRE(catalogue.set_job_ended(job, JobOutcome::live, 700));
    CHECK((*catalogue.job(job))->ended == 0);
    CHECK(catalogue.jobs(false)->size() == 2);
    CHECK(catalogue.set_job_ended(job, JobOutcome::failed, 0).error().code == Errc::invalid);  // an end has a time
}

TEST_CASE("a checkpoint goes from preparing over captured to complete, with its image and files", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const auto begun = catalogue.begin_checkpoint(job, true, 100);
    REQUIRE(begun);
    CHECK(begun->number == 1);
    CHECK(begun->state == State::preparing);
    CHECK(begun->urgent);
    CHECK(begun->base == 0);
    CHECK(catalogue.images(begun->id)->empty());
    CHECK(begun->images == 0);
    const std::string odd_name("/scratch/\xff\n'out", 14);
    const std::vector<UserFile> files{{odd_name, ~0ull, 1ull << 50, true, false}, {"/home/u/log", 7, 0, false, true}};
    REQUIRE(catalogue.captured(begun->id, {{"batch", "n1", 1ull << 40, files}}, {}));
    CHECK(row_of(catalogue, begun->id).bytes == 1ull << 40);
    CHECK(image_of(catalogue, begun->id).fast_node == "n1");
    CHECK(image_of(catalogue, begun->id).manifest.empty());
    REQUIRE(catalogue.complete(begun->id, {{"batch", stored(*begun), 250}}, 160));

    const CheckpointRow row = row_of(catalogue, begun->id);
    CHECK(row.state == State::complete);
    CHECK(row.job == job);
    CHECK(row.created == 100);
    CHECK(row.completed == 160);
    CHECK(row.bytes == 5000);
    CHECK(row.new_bytes == 1010);
    CHECK(row.frozen_ms == 250);
    CHECK(row.images == 1);
    CHECK(row.step.empty());
    const ImageRow image = image_of(catalogue, begun->id);
    CHECK(image.task == "batch");
    CHECK(image.node == "n1");
    CHECK(image.fast_node == "n1");
    CHECK(image.manifest == manifest_name(row));
    CHECK(image.digest == stored(row).digest);
    CHECK(image.bytes == 5000);
    REQUIRE(image.files.size() == 2);
    CHECK(image.files[0].path == odd_name);
    CHECK(image.files[0].inode == ~0ull);
    CHECK(image.files[0].size == 1ull << 50);
    CHECK(image.files[0].append);
    CHECK_FALSE(image.files[0].stdio);
    CHECK(image.files[1].stdio);
    CHECK(catalogue.newest_complete(job)->value().id == begun->id);
    CHECK((*catalogue.checkpoint(job, 1))->id == begun->id);
    CHECK(*catalogue.checkpoint(job, 2) == std::nullopt);
}

TEST_CASE("only the allowed changes of state happen; the others name both states and change nothing", "[catalogue]") {
    struct Change {
        const char* to;
        std::function<Result<>(Catalogue&, const CheckpointRow&)> make;
        std::vector<State> from;
    };
    const std::vector<Change> changes{
        {"captured", [](Catalogue& c, const CheckpointRow& row) { return capture(c, row); }, {State::preparing}},
        {"complete",
         [](Catalogue& c, const CheckpointRow& row) { return try_complete(c, row, stored(row)); },
         {State::captured}},
        {"failed",
         [](Catalogue& c, const CheckpointRow& row) { return c.failed(row.id, "r"); },
         {State::preparing, State::captured}},
        {"bad", [](Catalogue& c, const CheckpointRow& row) { return c.bad(row.id, "r"); }, {State::complete}},
    };
    const std::map<State, const char*> names{{State::preparing, "preparing"}, {State::captured, "captured"},
                                             {State::complete, "complete"}, {State::failed, "failed"}, {State::bad, "bad"}};
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    for (const Change& change : changes) {
        for (const auto& [state, name] : names) {
            INFO("from " << name << " to " << change.to);
            const CheckpointRow row = bring_to(catalogue, job, state);
            const auto changed = change.make(catalogue, row);
            if (std::ranges::contains(change.from, state)) {
                CHECK(changed);
            } else {
                REQUIRE_FALSE(changed);
                CHECK(changed.error().code == Errc::invalid);
                CHECK_THAT(changed.error().text, ContainsSubstring(name) && ContainsSubstring(change.to));
                CHECK(row_of(catalogue, row.id).state == state);
            }
        }
    }
}

TEST_CASE("numbers grow and are never used again", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue), other = add_job(catalogue, 13);
    const CheckpointRow first = bring_to(catalogue, job, State::failed), second = bring_to(catalogue, job, State::failed);
    CHECK(second.number == first.number + 1);
    REQUIRE(catalogue.remove_checkpoint(second.id, 1));
    CHECK(*catalogue.checkpoint(second.id) == std::nullopt);
    CHECK(*catalogue.image(second.id, "batch") == std::nullopt);
    const CheckpointRow third = begin(catalogue, job);
    CHECK(third.number == 3);
    CHECK(third.id != second.id);  // nodes know checkpoints by it
    CHECK(begin(catalogue, other).number == 1);
    REQUIRE(catalogue.checkpoints(job)->size() == 2);
    CHECK(catalogue.checkpoints(job)->front().number == 1);
    CHECK(catalogue.checkpoints_in(State::preparing)->size() == 2);
}

TEST_CASE("the newest complete one below a number is found", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    CHECK(*catalogue.newest_complete(job) == std::nullopt);
    const CheckpointRow older = bring_to(catalogue, job, State::complete), newest = bring_to(catalogue, job, State::complete);
    bring_to(catalogue, job, State::failed);
    CHECK(catalogue.newest_complete(job)->value().id == newest.id);
    CHECK(catalogue.newest_complete(job, newest.number)->value().id == older.id);
    CHECK(*catalogue.newest_complete(job, older.number) == std::nullopt);
    REQUIRE(catalogue.bad(newest.id, "its hash is wrong"));
    CHECK(catalogue.newest_complete(job)->value().id == older.id);
    CHECK(row_of(catalogue, newest.id).reason == "its hash is wrong");
}

TEST_CASE("where fast tiers have images is kept until it is lost", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow one = bring_to(catalogue, job, State::complete), two = bring_to(catalogue, job, State::captured),
                        three = bring_to(catalogue, job, State::captured);
    REQUIRE(catalogue.forget_fast_node("n2"));
    for (const CheckpointRow& row : {one, two, three}) CHECK(image_of(catalogue, row.id).fast_node == "n1");
    REQUIRE(catalogue.forget_fast_node("n1"));
    CHECK(image_of(catalogue, one.id).fast_node.empty());
    CHECK(image_of(catalogue, two.id).fast_node.empty());
    CHECK(image_of(catalogue, two.id).node == "n1");
    REQUIRE(catalogue.set_fast_node(one.id, "n2"));  // it was not dumped there
    CHECK(image_of(catalogue, one.id).fast_node.empty());
    REQUIRE(catalogue.set_fast_node(one.id, "n1"));
    REQUIRE(catalogue.set_fast_node(three.id, "n1"));
    REQUIRE(catalogue.evicted(one.id, "n2"));
    CHECK(image_of(catalogue, one.id).fast_node == "n1");
    REQUIRE(catalogue.evicted(one.id, "n1"));
    REQUIRE(catalogue.evicted(99, "n1"));
    CHECK(image_of(catalogue, one.id).fast_node.empty());
    CHECK(catalogue.set_fast_node(99, "n1").error().code == Errc::not_found);
    CHECK(image_of(catalogue, three.id).fast_node == "n1");
    REQUIRE(catalogue.failed(three.id, "dropped"));
    CHECK(image_of(catalogue, three.id).fast_node.empty());
    REQUIRE(catalogue.set_urgent(two.id));
    CHECK(row_of(catalogue, two.id).urgent);
}

TEST_CASE("restarts and events come back in order; the newest 200 events of each job are kept", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue), other = add_job(catalogue, 13);
    REQUIRE(catalogue.add_event(other, 1, "of the other job"));
    for (int i = 0; i < 450; ++i) REQUIRE(catalogue.add_event(job, i, std::to_string(i)));
    const auto events = *catalogue.events(job);
    REQUIRE(events.size() == 200);
    CHECK(events.front().text == "250");
    CHECK(events.back().text == "449");
    CHECK(events.back().time == 449);
    CHECK(catalogue.events(other)->size() == 1);

    REQUIRE(catalogue.add_restart(job, {1, 1, 0, "n1", "from the beginning: no checkpoint", 0}));
    REQUIRE(catalogue.add_restart(job, {2, 2, 5, "n2", "restored", 321}));
    const auto restarts = *catalogue.restarts(job);
    REQUIRE(restarts.size() == 2);
    CHECK(restarts[0].outcome == "from the beginning: no checkpoint");
    CHECK(restarts[1].time == 2);
    CHECK(restarts[1].slurm_restart_count == 2);
    CHECK(restarts[1].checkpoint == 5);
    CHECK(restarts[1].node == "n2");
    CHECK(restarts[1].restore_ms == 321);
}

TEST_CASE("an ended job without checkpoints is forgotten with its events and restarts, another is not", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue), with_checkpoint = add_job(catalogue, 13), live = add_job(catalogue, 14);
    REQUIRE(catalogue.add_event(job, 1, "x"));
    REQUIRE(catalogue.add_restart(job, {}));
    bring_to(catalogue, with_checkpoint, State::failed);
    for (const RowId id : {job, with_checkpoint}) REQUIRE(catalogue.set_job_ended(id, JobOutcome::failed, 500));
    CHECK(catalogue.forgettable_jobs(500)->empty());
    REQUIRE(catalogue.forgettable_jobs(501)->size() == 1);
    CHECK(catalogue.forgettable_jobs(501)->front().id == job);
    CHECK(catalogue.forget_job(with_checkpoint).error().code == Errc::denied);
    CHECK(catalogue.forget_job(live).error().code == Errc::denied);
    REQUIRE(catalogue.forget_job(job));
    CHECK(catalogue.events(job)->empty());
    CHECK(catalogue.restarts(job)->empty());
    CHECK(*catalogue.job(job) == std::nullopt);
}

TEST_CASE("the database is private, and survives being closed", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    RowId id = 0;
    {
        Catalogue catalogue = open_catalogue(path);
        id = bring_to(catalogue, add_job(catalogue), State::complete).id;
        struct stat st {};
        for (const char* suffix : {"", "-wal", "-shm"}) {
            REQUIRE(::stat((path + suffix).c_str(), &st) == 0);
            CHECK((st.st_mode & 0777) == 0600);
        }
    }
    CHECK(row_of(open_catalogue(path), id).state == State::complete);
}

TEST_CASE("threads share a catalogue", "[catalogue]") {
    const TempDir directory;
    Catalogue catalogue = open_catalogue(directory / "catalogue.sqlite");
    const RowId job = add_job(catalogue);
    constexpr int kEach = 40;
    std::vector<std::uint32_t> numbers[2];
    const auto work = [&](std::vector<std::uint32_t>& mine) {
        for (int i = 0; i < kEach; ++i) {
            const auto row = catalogue.begin_checkpoint(job, false, 1);
            if (row && capture(catalogue, *row) && catalogue.newest_complete(job)) mine.push_back(row->number);
        }
    };
    std::thread first(work, std::ref(numbers[0])), second(work, std::ref(numbers[1]));
    first.join();
    second.join();
    std::vector<std::uint32_t> all(numbers[0]);
    all.insert(all.end(), numbers[1].begin(), numbers[1].end());
    std::ranges::sort(all);
    REQUIRE(all.size() == 2 * kEach);
    for (std::size_t i = 0; i < all.size(); ++i) CHECK(all[i] == i + 1);
    CHECK(catalogue.checkpoints_in(State::captured)->size() == 2 * kEach);
}

TEST_CASE("a second process waits for a lock and then is told that the catalogue is busy", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    Catalogue catalogue = open_catalogue(path);
    const RowId job = add_job(catalogue);
    Sql other(path);
    other.run("BEGIN IMMEDIATE");
    std::thread unlocks([&] { static_cast<void>(other.try_run("COMMIT")); });
    const auto waited = catalogue.add_event(job, 1, "waited");
    unlocks.join();
    CHECK(waited);
    other.run("BEGIN IMMEDIATE");
    CHECK(catalogue.add_event(job, 1, "too long").error().code == Errc::busy);
    other.run("ROLLBACK");
    CHECK(catalogue.events(job)->size() == 1);
}
