// SPDX-License-Identifier: GPL-3.0-or-later
//
// The catalogue when one was lost: a new one, what is imported into it from the store, and the copy that is kept elsewhere.
#include <thread>

#include <sys/stat.h>

#include "tests/unit/catalogue_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using State = CheckpointState;
using Paths = std::vector<std::string>;

namespace {

Manifest manifest_of(RowId job_row, RowId checkpoint_row, std::uint32_t checkpoint, std::uint32_t job_id = 12) {
    Manifest manifest;
    manifest.identity = {.user = "carol",
                         .account = "physics",
                         .node = "n1",
                         .task = "batch",
                         .job_id = job_id,
                         .uid = 1000,
                         .submit_time = 50,
                         .restart_count = 2,
                         .job_row = job_row,
                         .checkpoint_row = checkpoint_row,
                         .checkpoint = checkpoint,
                         .images = 1,
                         .created = 400,
                         .interval_seconds = 60,
                         .max_restarts = 3,
                         .frozen_ms = 9};
    manifest.user_files = {{.path = "/home/carol/out", .inode = 5, .size = 6, .append = true, .stdio = false}};
    return manifest;
}

}  // namespace

TEST_CASE("a new catalogue needs a rebuild, and gives no number that may have been given before", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    {
        Catalogue catalogue = open_catalogue(path);
        CHECK(catalogue.needs_rebuild());
    }
    Catalogue catalogue = open_catalogue(path);
    CHECK(catalogue.needs_rebuild());
    CHECK(add_job(catalogue, 99) > 1'000'000'000'000);
    REQUIRE(catalogue.set_rebuilt());
    CHECK_FALSE(catalogue.needs_rebuild());
    CHECK_FALSE(open_catalogue(path).needs_rebuild());
}

TEST_CASE("a checkpoint found in the store is imported with everything that its manifest says", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const CheckpointRow second{.id = 70, .job = 8, .number = 4}, first{.id = 60, .job = 8, .number = 3};
    CHECK(*catalogue.import(manifest_of(8, 70, 4), stored(second, {pack_name(first)})));
    CHECK(*catalogue.import(manifest_of(8, 60, 3), stored(first)));
    CHECK_FALSE(*catalogue.import(manifest_of(8, 60, 3), stored(first)));

    const JobRow job = **catalogue.newest_job(12);
    CHECK(job.id == 8);
    CHECK(job.uid == 1000);
    CHECK(job.user == "carol");
    CHECK(job.account == "physics");
    CHECK(job.submit_time == 50);
    CHECK(job.slurm_restart_count == 2);
    CHECK(job.interval_seconds == 60);
    CHECK(job.max_restarts == 3);
    CHECK(job.outcome == JobOutcome::live);
    const CheckpointRow row = **catalogue.newest_complete(8);
    CHECK(row.id == 70);
    CHECK(row.number == 4);
    CHECK(row.created == 400);
    CHECK(row.completed == 400);
    CHECK(row.bytes == 5000);
    CHECK(row.new_bytes == 1010);
    CHECK(row.frozen_ms == 9);
    const ImageRow image = **catalogue.image(70);
    CHECK(image.task == "batch");
    CHECK(image.node == "n1");
    CHECK(image.fast_node.empty());
    CHECK(image.manifest == manifest_name(second));
    REQUIRE(image.files.size() == 1);
    CHECK(image.files[0].path == "/home/carol/out");
    CHECK(image.files[0].append);
    CHECK(catalogue.packs(8)->size() == 2);
    CHECK(begin(catalogue, 8).number == 5);
    REQUIRE(catalogue.remove_checkpoint(60, 1));
    CHECK(garbage_paths(catalogue) == Paths{manifest_name(first)});
    CHECK_FALSE(*catalogue.import(manifest_of(8, 60, 3), stored(first)));  // removed on purpose
}

TEST_CASE("an import never overwrites", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow captured = bring_to(catalogue, job, State::captured), failed = bring_to(catalogue, job, State::failed);
    CHECK_FALSE(*catalogue.import(manifest_of(job, captured.id, captured.number), stored(captured)));
    CHECK_FALSE(*catalogue.import(manifest_of(job, failed.id, failed.number), stored(failed)));
    CHECK(row_of(catalogue, captured.id).state == State::captured);
    const CheckpointRow other{.id = 70, .job = job, .number = captured.number};
    CHECK(catalogue.import(manifest_of(job, 70, captured.number), stored(other)).error().code == Errc::exists);
    CHECK(catalogue.import(manifest_of(job, 70, 9, 99), stored(other)).error().code == Errc::exists);
    CHECK(catalogue.import(manifest_of(0, 70, 9), stored(other)).error().code == Errc::invalid);
    CHECK(*catalogue.checkpoint(70) == std::nullopt);
    CHECK((*catalogue.job(job))->submit_time == 5);  // nothing of a refused import stays
}

TEST_CASE("a checkpoint of several images is complete with the last of them", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    Manifest manifest = manifest_of(8, 70, 4);
    manifest.identity.images = 2;
    const CheckpointRow row{.id = 70, .job = 8, .number = 4};
    CHECK(*catalogue.import(manifest, stored(row)));
    CHECK(row_of(catalogue, 70).state == State::captured);
    CHECK_FALSE(*catalogue.import(manifest, stored(row)));
    manifest.identity.task = "0.1";
    StoredImage second = stored(row);
    second.manifest = "job-12-8/ckpt-4-0.1-00bb.manifest";
    second.packs[0].path = "job-12-8/ckpt-4-0.1-00aa.pack";
    CHECK(*catalogue.import(manifest, second));
    CHECK(row_of(catalogue, 70).state == State::complete);
    CHECK(row_of(catalogue, 70).bytes == 10000);
}

TEST_CASE("a backup is a whole catalogue that knows that it may be behind", "[catalogue]") {
    const TempDir directory;
    Catalogue catalogue = open_catalogue(directory / "catalogue.sqlite");
    REQUIRE(catalogue.set_rebuilt());
    const RowId job = add_job(catalogue);
    const CheckpointRow row = bring_to(catalogue, job, State::complete);
    for (int i = 0; i < 200; ++i) REQUIRE(catalogue.add_event(job, i, std::string(20'000, 'x')));  // more than one step copies
    const std::string path = directory / "copy.sqlite";
    std::thread writes([&] { for (int i = 0; i < 50; ++i) static_cast<void>(catalogue.set_job_held(job, std::to_string(i))); });
    const auto done = catalogue.backup(path);
    writes.join();
    REQUIRE(done);
    struct stat st {};
    REQUIRE(::stat(path.c_str(), &st) == 0);
    CHECK((st.st_mode & 0777) == 0600);
    CHECK(::stat((path + "-wal").c_str(), &st) != 0);  // one file
    CHECK(catalogue.backup(path).error().code == Errc::exists);
    CHECK_FALSE(catalogue.needs_rebuild());
    Catalogue copy = open_catalogue(path);
    CHECK(copy.needs_rebuild());
    CHECK(row_of(copy, row.id).state == State::complete);
    CHECK(copy.events(job)->size() == 200);
    CHECK(add_job(copy, 13) > 1'000'000'000'000);
}
