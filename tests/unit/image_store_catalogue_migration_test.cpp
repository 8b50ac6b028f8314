// SPDX-License-Identifier: GPL-3.0-or-later
//
// The catalogue's file: older schemas, newer ones, damage, kill -9, and the schema's own defence against what the code should
// refuse.
#include <algorithm>

#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "image_store/catalogue_schema.h"
#include "image_store/seal.h"
#include "tests/unit/catalogue_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using Catch::Matchers::ContainsSubstring;
using State = CheckpointState;

namespace {

// A database as version 1 of the schema left it: a live and an ended job, with checkpoints of every state.
void make_version_1(const std::string& path) {
    Sql sql(path);
    sql.run("PRAGMA application_id = 0x53434b50");
    sql.run(::sckpt::sql::kMigrations[0]);
    sql.run("INSERT INTO jobs VALUES (3, 12, 1000, 7, 60, 3, 1, 2, 0, 'held', 'error', 8),"
            "(4, 13, 1001, 8, 0, 0, 0, 0, 1, '', '', 2),"
            "(9, 14, 1001, 8, 0, 0, 0, 0, 1, '', '', 1);"
            "DELETE FROM jobs WHERE id = 9;"
            "INSERT INTO checkpoints VALUES (11, 3, 1, 1, 100, 0, 0, 0, ''), (12, 3, 2, 2, 101, 0, 50, 7, ''),"
            "(13, 3, 3, 3, 102, 110, 60, 8, ''), (14, 3, 4, 4, 103, 0, 0, 0, 'a reason'),"
            "(15, 3, 5, 5, 104, 111, 70, 9, 'bad chunk'),"
            "(16, 3, 6, 6, 105, 112, 80, 9, ''), (17, 4, 1, 3, 106, 113, 90, 9, ''), (29, 3, 7, 6, 0, 0, 0, 0, '');");
    for (int id = 11; id <= 17; ++id)
        sql.run(std::format("INSERT INTO images VALUES ({0}, {0}, 'batch', 'n1', 'jobs/{0}', 'd', 40);"
                            "INSERT INTO files VALUES ({0}, {0}, '/home/u/{0}', 5, 6, 1, 0)", id));
    sql.run("INSERT INTO restarts VALUES (1, 3, 120, 2, 3, 'n2', 'restored', 55);"
            "INSERT INTO events VALUES (31, 3, 121, 'an event');"
            "PRAGMA user_version = 1");
}

// As version 2 left it, which had one image for each checkpoint from its beginning on: one live job with checkpoints of every state.
void make_version_2(const std::string& path) {
    Sql sql(path);
    sql.run("PRAGMA application_id = 0x53434b50");
    for (int step = 0; step < 2; ++step) sql.run(::sckpt::sql::kMigrations[step]);
    sql.run("UPDATE meta SET value = 5 WHERE name = 'first_number';"
            "INSERT INTO jobs VALUES (3, 12, 1000, 'carol', 'physics', 7, 60, 3, 1, 2, 0, 0, '', '', 7);"
            "INSERT INTO checkpoints (id, job, number, state, created, completed, bytes, new_bytes, frozen_ms, urgent, pinned, base, lease, reason)"
            "VALUES (11, 3, 1, 3, 100, 110, 50, 40, 7, 0, 1, NULL, 900, ''), (12, 3, 2, 3, 101, 111, 51, 41, 8, 0, 0, NULL, 0, ''),"
            "(13, 3, 3, 5, 102, 112, 52, 42, 9, 0, 0, NULL, 0, 'a bad chunk'), (14, 3, 4, 4, 103, 0, 0, 0, 0, 0, 0, NULL, 0, 'no'),"
            "(15, 3, 5, 2, 104, 0, 53, 0, 10, 1, 0, 12, 0, ''), (16, 3, 6, 1, 105, 0, 0, 0, 0, 0, 0, 12, 0, '')");
    for (int id = 11; id <= 16; ++id)
        sql.run(std::format("INSERT INTO images (id, checkpoint, task, node, bytes) VALUES ({0}, {0}, 'batch', 'n1', {0});"
                            "INSERT INTO files VALUES ({0}, {0}, '/home/u/{0}', 5, 6, 1, 0)", id));
    for (int id = 11; id <= 13; ++id)
        sql.run(std::format("UPDATE images SET manifest = 'job-12-3/{0}.manifest', digest = 'd{0}', manifest_bytes = 10 WHERE id = {0};"
                            "INSERT INTO packs VALUES ({0}, 3, 'job-12-3/{0}.pack', 1000, {0} = 13);"
                            "INSERT INTO pack_refs VALUES ({0}, {0}, 900)", id));
    sql.run("INSERT INTO pack_refs VALUES (12, 11, 500);"
            "UPDATE images SET fast_node = 'n1' WHERE id IN (12, 15);"
            "UPDATE images SET fast_node = 'n2' WHERE id = 11;"
            "INSERT INTO garbage VALUES ('job-12-3/10.manifest', 10, 0);"
            "INSERT INTO restarts VALUES (1, 3, 120, 2, 1, 'n2', 'restored', 55);"
            "INSERT INTO events VALUES (31, 3, 121, 'an event');"
            "PRAGMA user_version = 2");
}

// As version 3 left it, which knew its store, what it could not read there, and which checkpoints a job had gone back behind; still with one image
// for each checkpoint.
void make_version_3(const std::string& path) {
    make_version_2(path);
    Sql sql(path);
    sql.run(::sckpt::sql::kMigrations[2]);
    sql.run("UPDATE texts SET value = 'a-store' WHERE name = 'store';"
            "UPDATE checkpoints SET passed = 1, reason = 'gone back behind' WHERE id = 12;"
            "UPDATE checkpoints SET base = 11 WHERE id IN (15, 16);"
            "INSERT INTO unreadable VALUES ('job-77-5/ckpt-1-batch-0123456789abcdef.manifest', 77, 'input/output error');"
            "PRAGMA user_version = 3");
}

}  // namespace

TEST_CASE("a text that has made databases is never changed", "[catalogue]") {
    const std::vector<std::string> digests{"c1d8f51d77dd15949acf1465902ce2d4779d3fefed279d8bff99b5e1d73203ef",
                                           "50e9051d89836a97305851ae9218249c10bbfd3dbd7ee2da5f4e90e6729944af",
                                           "f325c291ae68c70c1a9c69445eb0ce7c2bc7fc6adcaf023cfef83d99d71c290a",
                                           "68817eafaaf9f9c4675fd05da292132cc3a7121d0bc0d1257b6ae6df1c010389"};
    REQUIRE(std::size(::sckpt::sql::kMigrations) == digests.size());
    REQUIRE(digests.size() == Catalogue::kSchemaVersion);
    for (std::size_t i = 0; i < digests.size(); ++i) CHECK(to_hex(digest_of(::sckpt::sql::kMigrations[i])) == digests[i]);
}

TEST_CASE("a database of version 1 keeps every row, and its images are none any more", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    make_version_1(path);
    Catalogue catalogue = open_catalogue(path);
    CHECK_FALSE(catalogue.needs_rebuild());

    const JobRow live = **catalogue.job(3), ended = **catalogue.job(4);
    CHECK(live.job_id == 12);
    CHECK(live.uid == 1000);
    CHECK(live.restarts == 1);
    CHECK(live.slurm_restart_count == 2);
    CHECK(live.outcome == JobOutcome::live);
    CHECK(live.ended == 0);
    CHECK(live.held_reason == "held");
    CHECK(live.last_error == "error");
    CHECK(ended.outcome == JobOutcome::unknown);
    CHECK(ended.ended > 1'700'000'000);
    CHECK(catalogue.jobs(true)->size() == 2);

    const auto rows = *catalogue.checkpoints(3);
    REQUIRE(rows.size() == 5);  // what was being deleted is gone
    const State states[] = {State::preparing, State::captured, State::bad, State::failed, State::bad};
    for (std::size_t i = 0; i < rows.size(); ++i) CHECK(rows[i].state == states[i]);
    CHECK_THAT(rows[2].reason, ContainsSubstring("made by an earlier version of sckpt"));
    CHECK(rows[2].completed == 110);
    CHECK(rows[2].bytes == 60);
    CHECK(rows[3].reason == "a reason");
    CHECK(rows[4].reason == "bad chunk");
    CHECK(row_of(catalogue, 17).state == State::bad);  // so that its job is held, and does not start from zero in silence
    CHECK(*catalogue.newest_complete(3) == std::nullopt);
    const ImageRow image = image_of(catalogue, 12);
    CHECK(image.node == "n1");
    CHECK(image.manifest.empty());
    CHECK(image.digest.empty());
    REQUIRE(image.files.size() == 1);
    CHECK(image.files[0].path == "/home/u/12");
    CHECK(catalogue.images(16)->empty());
    CHECK(catalogue.events(3)->front().text == "an event");
    CHECK(catalogue.restarts(3)->front().outcome == "restored");

    CHECK(add_job(catalogue, 15) == 10);  // above the job that was deleted
    const CheckpointRow next = begin(catalogue, 3);
    CHECK(next.number == 8);
    CHECK(next.id == 30);
    complete(catalogue, next, stored(next));
    for (const RowId id : {13, 15, 17}) CHECK(catalogue.remove_checkpoint(id, 1));
    CHECK(garbage_paths(catalogue).empty());
    CHECK(Sql(path).values("PRAGMA foreign_key_check; PRAGMA integrity_check") == "ok");
    CHECK(Sql(path).values("SELECT name FROM sqlite_schema WHERE name GLOB 'old_*'").empty());
}

TEST_CASE("a database of version 2 keeps every checkpoint, each of one image", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    make_version_2(path);
    Catalogue catalogue = open_catalogue(path);
    CHECK_FALSE(catalogue.needs_rebuild());
    CHECK(*catalogue.gave_number(6));
    CHECK_FALSE(*catalogue.gave_number(5));
    CHECK((*catalogue.newest_job(12))->user == "carol");

    const auto rows = *catalogue.checkpoints(3);
    REQUIRE(rows.size() == 6);
    const State states[] = {State::complete, State::complete, State::bad, State::failed, State::captured, State::preparing};
    for (std::size_t i = 0; i < rows.size(); ++i) {
        INFO("checkpoint " << rows[i].id);
        CHECK(rows[i].state == states[i]);
        CHECK(rows[i].step.empty());
        CHECK(rows[i].images == (rows[i].state == State::preparing ? 0 : 1));  // it is not known before it is captured
        CHECK(catalogue.images(rows[i].id)->size() == rows[i].images);
        CHECK(catalogue.ended_tasks(rows[i].id)->empty());
    }
    CHECK(rows[0].pinned);
    CHECK(rows[0].frozen_ms == 7);
    CHECK(rows[4].urgent);
    CHECK(rows[4].base == 12);
    CHECK((*catalogue.newest_complete(3))->id == 12);
    CHECK((*catalogue.newest_complete(3, 2))->id == 11);
    CHECK(image_of(catalogue, 12).digest == "d12");
    CHECK(image_of(catalogue, 12).fast_node == "n1");
    CHECK(image_of(catalogue, 11).fast_node.empty());  // it was not dumped where it was said to be
    CHECK(image_of(catalogue, 15).files[0].path == "/home/u/15");
    CHECK(garbage_paths(catalogue) == std::vector<std::string>{"job-12-3/10.manifest"});
    CHECK(catalogue.named_files()->size() == 6);
    const auto packs = *catalogue.packs(3);
    REQUIRE(packs.size() == 3);
    CHECK(packs[0].images == 2);
    CHECK(packs[0].task == "batch");
    CHECK(catalogue.kept(1)->size() == 4);
    CHECK(catalogue.events(3)->front().text == "an event");

    CHECK(catalogue.remove_checkpoint(11, 800).error().code == Errc::denied);  // pinned, and leased
    const StoredImage image{.manifest = "job-12-3/ckpt-5-batch-00bb.manifest", .digest = "d15", .plain_bytes = 5, .new_bytes = 6,
                            .packs = {{.path = "job-12-3/12.pack", .bytes = 1000, .used = 5}}};
    REQUIRE(catalogue.complete(15, {{"batch", image, 10}}, 200));
    CHECK((*catalogue.newest_complete(3))->id == 15);
    REQUIRE(catalogue.captured(16, {{"batch", "n1", 5, {}}, {"0.0", "n2", 6, {}}}, {}));
    const CheckpointRow next = begin(catalogue, 3);
    CHECK(next.number == 7);
    CHECK(next.base == 15);  // shares no pack with the bad one
    CHECK(Sql(path).values("PRAGMA foreign_key_check; PRAGMA integrity_check") == "ok");
}

TEST_CASE("a database of version 3 keeps its store, what was passed, and what could not be read", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    make_version_3(path);
    {
        Catalogue catalogue = open_catalogue(path);
        CHECK_FALSE(catalogue.needs_rebuild());
        CHECK(catalogue.store_id() == "a-store");
        CHECK(catalogue.set_store_id("another").error().code == Errc::exists);
        CHECK((*catalogue.unreadable_of(77))->why == "input/output error");
        CHECK_FALSE(*catalogue.unreadable_of(12));
        const auto rows = *catalogue.checkpoints(3);
        REQUIRE(rows.size() == 6);
        for (const CheckpointRow& row : rows) {
            INFO("checkpoint " << row.id);
            CHECK(row.passed == (row.id == 12));
            CHECK(row.images == (row.state == State::preparing ? 0 : 1));
            CHECK(catalogue.images(row.id)->size() == row.images);
        }
        CHECK((*catalogue.newest_complete(3))->id == 11);  // the job has gone back behind the newer one
        CHECK(rows[4].base == 11);
        CHECK(catalogue.named_files()->size() == 6);
        CHECK(catalogue.remove_checkpoint(11, 2000).error().code == Errc::denied);  // pinned, and what the job goes on from
        CHECK(begin(catalogue, 3).base == 11);
    }
    Catalogue again = open_catalogue(path);
    CHECK(again.store_id() == "a-store");
    CHECK(again.checkpoints(3)->size() == 7);
    CHECK(Sql(path).values("PRAGMA foreign_key_check; PRAGMA integrity_check") == "ok");
}

TEST_CASE("a migrated database has the schema of a new one", "[catalogue]") {
    const TempDir directory;
    make_version_1(directory / "1");
    make_version_2(directory / "2");
    make_version_3(directory / "3");
    for (const char* name : {"1", "2", "3", "new"}) open_catalogue(directory / name);
    const char* const schema = "SELECT sql FROM sqlite_schema ORDER BY name";
    for (const char* name : {"1", "2", "3"}) CHECK(Sql(directory / name).values(schema) == Sql(directory / "new").values(schema));
}

TEST_CASE("a schema of the future, another program's database and what is none are refused and left alone", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    SECTION("newer schema") {
        open_catalogue(path);
        Sql(path).run(std::format("PRAGMA user_version = {}", Catalogue::kSchemaVersion + 1));
        const auto opened = Catalogue::open(path);
        REQUIRE_FALSE(opened);
        CHECK(opened.error().code == Errc::unsupported);
        CHECK_THAT(opened.error().text, ContainsSubstring(std::to_string(Catalogue::kSchemaVersion + 1)));
    }
    SECTION("another program's") {
        const char* sql = GENERATE("CREATE TABLE other (x)", "PRAGMA application_id = 77");
        Sql(path).run(sql);
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

TEST_CASE("a damaged file is told as such, not served", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    {
        Catalogue catalogue = open_catalogue(path);
        for (std::uint32_t i = 1; i <= 50; ++i) bring_to(catalogue, add_job(catalogue, i), State::complete);
    }
    std::string bytes = read_text(path);
    SECTION("cut off") { bytes.resize(bytes.size() / 2 / 4096 * 4096); }
    SECTION("pages of noise") {
        for (std::size_t page = 3; page < bytes.size() / 4096; page += 3) bytes.replace(page * 4096, 4096, noise(4096, page));
    }
    SECTION("the head overwritten") { bytes.replace(0, 16, std::string(16, '\0')); }
    write_text(path, bytes);
    const auto opened = Catalogue::open(path);
    REQUIRE_FALSE(opened);
    INFO(opened.error().text);
    CHECK(opened.error().code == Errc::corrupt);
    CHECK_THAT(opened.error().text, ContainsSubstring(path));
}

TEST_CASE("the schema refuses what would lose a checkpoint, whoever asks", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    Catalogue catalogue = open_catalogue(path);
    const RowId job = add_job(catalogue);
    const CheckpointRow one = bring_to(catalogue, job, State::complete);
    const CheckpointRow two = bring_to(catalogue, job, State::complete, {pack_name(one)});
    const CheckpointRow three = begin(catalogue, job);
    Sql sql(path);
    sql.run("PRAGMA foreign_keys = ON");
    const auto refused = [&](const std::string& text) {
        INFO(text);
        CHECK(sql.try_run(text) != "");
    };
    refused(std::format("DELETE FROM checkpoints WHERE id = {}", two.id));
    refused(std::format("UPDATE checkpoints SET state = 3 WHERE id = {}", three.id));
    refused(std::format("UPDATE checkpoints SET state = 2 WHERE id = {0}; UPDATE checkpoints SET state = 3 WHERE id = {0}",
                        three.id));  // it has no image
    refused(std::format("INSERT INTO images (checkpoint, task, node) VALUES ({0}, '0.0', 'n1'); UPDATE checkpoints SET state = 3 WHERE id = {0}",
                        three.id));  // one that is not stored
    sql.run(std::format("UPDATE checkpoints SET state = 4, base = NULL WHERE id = {}", three.id));
    const auto of_step = catalogue.begin_checkpoint(job, false, 1, "0");
    complete(catalogue, *of_step, stored(*of_step));
    refused(std::format("DELETE FROM checkpoints WHERE id = {}", of_step->id));
    refused(std::format("DELETE FROM checkpoints WHERE id = {}", two.id));  // a step's newer one is not the job's
    refused(std::format("UPDATE jobs SET next_number = 1 WHERE id = {}", job));
    refused(std::format("INSERT INTO garbage VALUES ('{}', 1, 1)", pack_name(one)));
    refused(std::format("INSERT INTO garbage VALUES ('{}', 1, 0)", manifest_name(two)));
    refused(std::format("DELETE FROM packs WHERE path = '{}'", pack_name(one)));
    refused(std::format("DELETE FROM jobs WHERE id = {}", job));
}

TEST_CASE("after kill -9 the database is as of the last call that returned, whole transactions only", "[catalogue]") {
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
        Child writer([&] {  // completes checkpoints, each with the one before as base, and removes what is older than two
            auto catalogue = Catalogue::open(path);
            if (!catalogue) return 1;
            for (;;) {
                const auto row = catalogue->begin_checkpoint(job, false, 1);
                if (!row || !capture(*catalogue, *row, {{"/f", 1, 1, true, true}})) return 2;
                const auto base = catalogue->checkpoint(row->base);
                if (!base || !try_complete(*catalogue, *row, *base ? stored(*row, {pack_name(**base)}) : stored(*row))) return 2;
                const auto rows = catalogue->checkpoints(job);
                if (!rows || (rows->size() > 2 && !catalogue->remove_checkpoint(rows->front().id, 1))) return 2;
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
        REQUIRE(returned > last_number);
        CHECK((*catalogue.newest_complete(job))->number >= returned);
        std::vector<std::string> named;
        const auto rows = *catalogue.checkpoints(job);
        for (const CheckpointRow& row : rows) {
            last_number = row.number;
            const auto images = *catalogue.images(row.id);
            CHECK(images.size() == row.images);
            const ImageRow image = images.empty() ? ImageRow() : images.front();
            CHECK((row.state == State::complete) == (image.manifest == manifest_name(row)));
            CHECK((row.state == State::complete) == (image.digest == stored(row).digest));
            if (row.state == State::complete) named.insert(named.end(), {manifest_name(row), pack_name(row)});
            else if (row.state != State::failed) REQUIRE(catalogue.failed(row.id, "killed"));
        }
        for (const std::string& path_of : named) CHECK((*catalogue.uses({path_of}))[0] == Catalogue::FileUse::named);
        for (const std::string& path_of : garbage_paths(catalogue)) CHECK_FALSE(std::ranges::contains(named, path_of));
        CHECK(Sql(path).values("SELECT count(*) FROM packs WHERE id NOT IN (SELECT pack FROM pack_refs)") == "0");
        CHECK(Sql(path).values("PRAGMA foreign_key_check; PRAGMA integrity_check") == "ok");
    }
}
