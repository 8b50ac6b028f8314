// SPDX-License-Identifier: GPL-3.0-or-later
//
// The catalogue's rules: what a checkpoint may become, what is never deleted, and what is on disk after a crash.
#include "image_store/catalogue.h"

#include <algorithm>
#include <functional>
#include <map>
#include <thread>

#include <sqlite3.h>
#include <sys/stat.h>

#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "tests/unit/image_store_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using Catch::Matchers::ContainsSubstring;
using enum CheckpointState;

namespace {

Catalogue open_catalogue(const std::string& path = ":memory:") {
    auto catalogue = Catalogue::open(path);
    if (!catalogue) FAIL(catalogue.error().text);
    return std::move(*catalogue);
}

RowId add_job(Catalogue& catalogue, std::uint32_t job_id = 12) {
    const auto id =
        catalogue.add_job({.job_id = job_id, .uid = 1000, .submit_time = 5, .interval_seconds = 60, .max_restarts = 3});
    REQUIRE(id);
    return *id;
}

CheckpointRow begin(Catalogue& catalogue, RowId job) {
    const auto row = catalogue.begin_checkpoint(job, {.task = "batch", .node = "n1", .path = std::format("jobs/{}", job)}, 100);
    REQUIRE(row);
    return *row;
}

// A new checkpoint of the job, brought to this state by the calls that lead there.
CheckpointRow bring_to(Catalogue& catalogue, RowId job, CheckpointState state) {
    const CheckpointRow row = begin(catalogue, job);
    if (state != preparing && state != failed) REQUIRE(catalogue.captured(row.id, 10, 2, {}));
    if (state == complete || state == bad) REQUIRE(catalogue.complete(row.id, "d", 10, 101));
    if (state == failed) REQUIRE(catalogue.failed(row.id, "no"));
    if (state == bad) REQUIRE(catalogue.bad(row.id, "no"));
    if (state == deleting) REQUIRE(catalogue.begin_delete(row.id));
    return row;
}

CheckpointState state_of(const Catalogue& catalogue, RowId checkpoint) {
    const auto row = catalogue.checkpoint(checkpoint);
    REQUIRE(row);
    REQUIRE(*row);
    return (*row)->state;
}

void run_sql(const std::string& path, const char* sql) {
    sqlite3* database = nullptr;
    const int opened = sqlite3_open(path.c_str(), &database);
    const int done = sqlite3_exec(database, sql, nullptr, nullptr, nullptr);
    sqlite3_close(database);
    REQUIRE(opened == SQLITE_OK);
    REQUIRE(done == SQLITE_OK);
}

}  // namespace

TEST_CASE("a job's row comes back as it was written, and the newest of an id counts", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    CHECK(*catalogue.newest_job(12) == std::nullopt);
    add_job(catalogue, 12);
    const RowId newer = *catalogue.add_job({.job_id = 12, .uid = 4000000000u, .submit_time = 7, .interval_seconds = 0,
                                            .max_restarts = 1, .restarts = 2, .slurm_restart_count = 3, .held_reason = "h",
                                            .last_error = "e"});
    add_job(catalogue, 13);
    const JobRow row = **catalogue.newest_job(12);
    CHECK(row.id == newer);
    CHECK(row.uid == 4000000000u);
    CHECK(row.submit_time == 7);
    CHECK(row.interval_seconds == 0);
    CHECK(row.max_restarts == 1);
    CHECK(row.restarts == 2);
    CHECK(row.slurm_restart_count == 3);
    CHECK(row.held_reason == "h");
    CHECK(row.last_error == "e");
    CHECK_FALSE(row.ended);
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

    const RowId other = add_job(catalogue, 13);
    REQUIRE(catalogue.set_job_ended(job, true));
    REQUIRE(catalogue.jobs(false)->size() == 1);
    CHECK(catalogue.jobs(false)->front().id == other);
    CHECK(catalogue.jobs(true)->size() == 2);
    CHECK(catalogue.jobs(true)->front().id == other);  // newest first

    CHECK(catalogue.set_job_run(99, 1, 1).error().code == Errc::not_found);
    CHECK(catalogue.count_restart(99).error().code == Errc::not_found);
    CHECK(catalogue.begin_checkpoint(99, {.task = "batch"}, 1).error().code == Errc::not_found);
    CHECK(catalogue.add_event(99, 1, "x").error().code == Errc::not_found);
    CHECK(catalogue.add_restart(99, {}).error().code == Errc::not_found);
    CHECK(catalogue.complete(99, "d", 1, 1).error().code == Errc::not_found);
}

TEST_CASE("a checkpoint goes from preparing over captured to complete, with its image and files", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const auto begun = catalogue.begin_checkpoint(job, {.task = "batch", .node = "n1", .path = "jobs/12"}, 100);
    REQUIRE(begun);
    CHECK(begun->number == 1);
    CHECK(begun->state == preparing);
    const std::string odd_name("/scratch/\xff\n'out", 14);
    const std::vector<FileRow> files{{odd_name, ~0ull, 1ull << 50, true, false}, {"/home/u/log", 7, 0, false, true}};
    REQUIRE(catalogue.captured(begun->id, 1ull << 40, 250, files));
    REQUIRE(catalogue.complete(begun->id, "abc", 77, 160));

    const CheckpointRow row = **catalogue.checkpoint(begun->id);
    CHECK(row.state == complete);
    CHECK(row.job == job);
    CHECK(row.created == 100);
    CHECK(row.completed == 160);
    CHECK(row.bytes == 77);
    CHECK(row.frozen_ms == 250);
    const ImageRow image = **catalogue.image(begun->id);
    CHECK(image.task == "batch");
    CHECK(image.node == "n1");
    CHECK(image.path == "jobs/12/ckpt-1/batch");
    CHECK(image.digest == "abc");
    CHECK(image.bytes == 77);
    REQUIRE(image.files.size() == 2);
    CHECK(image.files[0].path == odd_name);
    CHECK(image.files[0].inode == ~0ull);
    CHECK(image.files[0].size == 1ull << 50);
    CHECK(image.files[0].append);
    CHECK_FALSE(image.files[0].stdio);
    CHECK(image.files[1].stdio);
    CHECK(catalogue.newest_complete(job)->value().id == begun->id);
}

TEST_CASE("only the allowed changes of state happen; the others name both states and change nothing", "[catalogue]") {
    struct Change {
        const char* to;
        std::function<Result<>(Catalogue&, RowId)> make;
        std::vector<CheckpointState> from;
    };
    const std::vector<Change> changes{
        {"captured", [](Catalogue& c, RowId id) { return c.captured(id, 1, 1, {}); }, {preparing}},
        {"complete", [](Catalogue& c, RowId id) { return c.complete(id, "d", 1, 1); }, {captured}},
        {"failed", [](Catalogue& c, RowId id) { return c.failed(id, "r"); }, {preparing, captured}},
        {"bad", [](Catalogue& c, RowId id) { return c.bad(id, "r"); }, {complete}},
        {"deleting", [](Catalogue& c, RowId id) { return c.begin_delete(id); },
         {preparing, captured, complete, failed, bad, deleting}},
        {"deleting", [](Catalogue& c, RowId id) { return c.deleted(id); }, {deleting}},
    };
    const std::map<CheckpointState, const char*> names{{preparing, "preparing"}, {captured, "captured"}, {complete, "complete"},
                                                       {failed, "failed"},       {bad, "bad"},           {deleting, "deleting"}};
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    for (const Change& change : changes) {
        for (const auto& [state, name] : names) {
            INFO("from " << name << " to " << change.to);
            const CheckpointRow row = bring_to(catalogue, job, state);
            REQUIRE(catalogue.complete(bring_to(catalogue, job, captured).id, "newer", 1, 1));  // so that deleting is not refused
            const auto changed = change.make(catalogue, row.id);
            if (std::ranges::contains(change.from, state)) {
                CHECK(changed);
            } else {
                REQUIRE_FALSE(changed);
                CHECK(changed.error().code == Errc::invalid);
                CHECK_THAT(changed.error().text, ContainsSubstring(name) && ContainsSubstring(change.to));
                CHECK(state_of(catalogue, row.id) == state);
            }
        }
    }
}

TEST_CASE("no checkpoint is complete without a digest", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const CheckpointRow row = bring_to(catalogue, add_job(catalogue), captured);
    CHECK(catalogue.complete(row.id, "", 1, 1).error().code == Errc::invalid);
    CHECK(state_of(catalogue, row.id) == captured);
}

TEST_CASE("numbers grow and are never used again", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue), other = add_job(catalogue, 13);
    const CheckpointRow first = bring_to(catalogue, job, failed), second = bring_to(catalogue, job, failed);
    CHECK(second.number == first.number + 1);
    REQUIRE(catalogue.begin_delete(second.id));
    REQUIRE(catalogue.deleted(second.id));
    CHECK(*catalogue.checkpoint(second.id) == std::nullopt);
    CHECK(*catalogue.image(second.id) == std::nullopt);
    const CheckpointRow third = begin(catalogue, job);
    CHECK(third.number == 3);
    CHECK(third.id != second.id);  // nodes know checkpoints by it
    CHECK(begin(catalogue, other).number == 1);
    REQUIRE(catalogue.checkpoints(job)->size() == 2);
    CHECK(catalogue.checkpoints(job)->front().number == 1);
    CHECK(catalogue.checkpoints_in(preparing)->size() == 2);
}

TEST_CASE("the newest complete checkpoint is kept as long as the job has not ended", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow older = bring_to(catalogue, job, complete), newest = bring_to(catalogue, job, complete);
    bring_to(catalogue, job, failed);
    const auto refused = catalogue.begin_delete(newest.id);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::denied);
    CHECK(state_of(catalogue, newest.id) == complete);
    CHECK(catalogue.newest_complete(job)->value().id == newest.id);
    CHECK(catalogue.newest_complete(job, newest.number)->value().id == older.id);
    CHECK(*catalogue.newest_complete(job, older.number) == std::nullopt);

    SECTION("an older one may go") {
        CHECK(catalogue.begin_delete(older.id));
        CHECK(catalogue.begin_delete(newest.id).error().code == Errc::denied);
    }
    SECTION("when the newest is bad, the older one is the newest complete") {
        REQUIRE(catalogue.bad(newest.id, "its hash is wrong"));
        CHECK(catalogue.newest_complete(job)->value().id == older.id);
        CHECK(catalogue.begin_delete(older.id).error().code == Errc::denied);
        CHECK(catalogue.begin_delete(newest.id));
    }
    SECTION("after the end of the job all may go") {
        REQUIRE(catalogue.set_job_ended(job, true));
        CHECK(catalogue.begin_delete(newest.id));
        CHECK(catalogue.begin_delete(older.id));
    }
}

TEST_CASE("two checkpoints never name the same place in the store", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue), later = add_job(catalogue);  // Slurm's job ids come back after years
    const ImageRow image{.task = "batch", .path = "jobs/12"};
    const auto first = catalogue.begin_checkpoint(job, image, 1);
    REQUIRE(first);
    CHECK(catalogue.begin_checkpoint(later, image, 1).error().code == Errc::invalid);
    CHECK(catalogue.checkpoints(later)->empty());  // the whole transaction was rolled back
    REQUIRE(catalogue.begin_delete(first->id));
    REQUIRE(catalogue.deleted(first->id));
    CHECK(catalogue.begin_checkpoint(later, image, 1)->number == 1);
    CHECK(catalogue.begin_checkpoint(later, image, 1)->number == 2);
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

TEST_CASE("the database is private, and survives being closed", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    RowId id = 0;
    {
        Catalogue catalogue = open_catalogue(path);
        id = bring_to(catalogue, add_job(catalogue), complete).id;
        struct stat st {};
        for (const char* suffix : {"", "-wal", "-shm"}) {
            REQUIRE(::stat((path + suffix).c_str(), &st) == 0);
            CHECK((st.st_mode & 0777) == 0600);
        }
    }
    CHECK(state_of(open_catalogue(path), id) == complete);
}

TEST_CASE("a schema of the future, another program's database and what is none are refused and left alone", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    SECTION("newer schema") {
        open_catalogue(path);
        run_sql(path, std::format("PRAGMA user_version = {}", Catalogue::kSchemaVersion + 1).c_str());
        const auto opened = Catalogue::open(path);
        REQUIRE_FALSE(opened);
        CHECK(opened.error().code == Errc::unsupported);
        CHECK_THAT(opened.error().text, ContainsSubstring(std::to_string(Catalogue::kSchemaVersion + 1)));
    }
    SECTION("another program's") {
        const char* sql = GENERATE("CREATE TABLE other (x)", "PRAGMA application_id = 77");
        run_sql(path, sql);
        const std::string before = read_text(path);
        const auto opened = Catalogue::open(path);
        REQUIRE_FALSE(opened);
        CHECK(opened.error().code == Errc::invalid);
        CHECK(read_text(path) == before);
    }
    SECTION("no database") {
        write_text(path, std::string(8192, 'x'));
        CHECK(Catalogue::open(path).error().code == Errc::corrupt);
    }
    SECTION("no directory") { CHECK(Catalogue::open(directory / "none/catalogue.sqlite").error().code == Errc::not_found); }
}

TEST_CASE("after kill -9 the database is as of the last call that returned", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    const RowId job = [&] {
        Catalogue catalogue = open_catalogue(path);
        return add_job(catalogue);
    }();
    std::uint32_t last_number = 0;
    for (int round = 0; round < 8; ++round) {
        int pipe_ends[2];
        REQUIRE(::pipe(pipe_ends) == 0);
        Child writer([&] {
            auto catalogue = Catalogue::open(path);
            if (!catalogue) return 1;
            for (;;) {
                const auto row = catalogue->begin_checkpoint(job, {.task = "batch", .node = "n"}, 1);
                if (!row || !catalogue->captured(row->id, 1, 1, {{"/f", 1, 1, true, true}})) return 2;
                if (!catalogue->complete(row->id, "d", 1, 1)) return 2;
                if (::write(pipe_ends[1], &row->number, sizeof row->number) != sizeof row->number) return 3;
            }
        });
        ::close(pipe_ends[1]);
        std::uint32_t returned = 0;
        for (int i = 0; i <= round * 3; ++i) REQUIRE(::read(pipe_ends[0], &returned, sizeof returned) == sizeof returned);
        writer.kill_and_reap();
        for (std::uint32_t more = 0; ::read(pipe_ends[0], &more, sizeof more) == sizeof more;) returned = more;
        ::close(pipe_ends[0]);

        Catalogue catalogue = open_catalogue(path);
        const auto rows = *catalogue.checkpoints(job);
        REQUIRE(returned > last_number);
        REQUIRE(rows.size() >= returned);
        for (const CheckpointRow& row : rows) {
            if (row.number > last_number && row.number <= returned) CHECK(row.state == complete);
            if (row.state == complete) {
                const ImageRow image = **catalogue.image(row.id);
                CHECK(image.digest == "d");
                CHECK(image.files.size() == 1);
            }
        }
        last_number = rows.back().number;
    }
}

TEST_CASE("threads share a catalogue", "[catalogue]") {
    const TempDir directory;
    Catalogue catalogue = open_catalogue(directory / "catalogue.sqlite");
    const RowId job = add_job(catalogue);
    constexpr int kEach = 40;
    std::vector<std::uint32_t> numbers[2];
    const auto work = [&](std::vector<std::uint32_t>& mine) {
        for (int i = 0; i < kEach; ++i) {
            const auto row = catalogue.begin_checkpoint(job, {.task = "batch"}, 1);
            if (row && catalogue.captured(row->id, 1, 1, {}) && catalogue.newest_complete(job)) mine.push_back(row->number);
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
    CHECK(catalogue.checkpoints_in(captured)->size() == 2 * kEach);
}

TEST_CASE("a second process waits for a lock and then is told that the catalogue is busy", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    Catalogue catalogue = open_catalogue(path);
    const RowId job = add_job(catalogue);
    sqlite3* other = nullptr;
    REQUIRE(sqlite3_open(path.c_str(), &other) == SQLITE_OK);
    REQUIRE(sqlite3_exec(other, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr) == SQLITE_OK);
    std::thread unlocks([&] { sqlite3_exec(other, "COMMIT", nullptr, nullptr, nullptr); });
    const auto waited = catalogue.add_event(job, 1, "waited");
    unlocks.join();
    CHECK(waited);
    REQUIRE(sqlite3_exec(other, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr) == SQLITE_OK);
    CHECK(catalogue.add_event(job, 1, "too long").error().code == Errc::busy);
    sqlite3_close(other);
    CHECK(catalogue.events(job)->size() == 1);
}
