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

FoundImage found(const CheckpointRow& row, const StoredImage& stored, std::uint32_t job_id = 12) {
    return {.identity = {.user = "carol",
                         .account = "physics",
                         .node = "n1",
                         .task = "batch",
                         .job_id = job_id,
                         .uid = 1000,
                         .submit_time = 50,
                         .restart_count = 2,
                         .job_row = row.job,
                         .checkpoint_row = row.id,
                         .checkpoint = row.number,
                         .images = 1,
                         .created = 400,
                         .interval_seconds = 60,
                         .max_restarts = 3,
                         .frozen_ms = 9,
                         .leader = "batch",
                         .ended = {}},
            .user_files = {{.path = "/home/carol/out", .inode = 5, .size = 6, .append = true, .stdio = false}},
            .stored = stored};
}

// Images of the batch script and of ranks 0 and 1 of a step, of which the last was frozen longest; rank 2 had ended.
std::vector<FoundImage> several(const CheckpointRow& row) {
    std::vector<FoundImage> images;
    for (const char* task : {"0.1", "batch", "0.0"}) {
        FoundImage image = found(row, stored_as(row, task));
        image.identity.task = task;
        image.identity.images = 3;
        image.identity.frozen_ms += static_cast<std::uint32_t>(images.size());
        images.push_back(std::move(image));
    }
    images[1].identity.ended = {{"0.2", 3 << 8}};
    return images;
}

}  // namespace

TEST_CASE("the catalogue is one store's, for ever, and so are its copies", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    {
        Catalogue catalogue = open_catalogue(path);
        CHECK(catalogue.store_id().empty());
        REQUIRE(catalogue.set_store_id("this"));
        REQUIRE(catalogue.set_store_id("this"));
        CHECK(catalogue.set_store_id("other").error().code == Errc::exists);
        CHECK(catalogue.store_id() == "this");
        REQUIRE(catalogue.backup(directory / "copy"));
    }
    for (const char* name : {"catalogue.sqlite", "copy"}) CHECK(open_catalogue(directory / name).store_id() == "this");
}

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
    CHECK(*catalogue.import({found(second, stored(second, {pack_name(first)}))}));
    CHECK(*catalogue.import({found(first, stored(first))}));
    CHECK_FALSE(*catalogue.import({found(first, stored(first))}));

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
    CHECK(row.images == 1);
    CHECK(row.step.empty());
    CHECK(catalogue.ended_tasks(70)->empty());
    const ImageRow image = image_of(catalogue, 70);
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
    CHECK_FALSE(*catalogue.import({found(first, stored(first))}));  // removed on purpose
}

TEST_CASE("an import never overwrites", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow captured = bring_to(catalogue, job, State::captured), failed = bring_to(catalogue, job, State::failed);
    CHECK_FALSE(*catalogue.import({found(captured, stored(captured))}));
    CHECK_FALSE(*catalogue.import({found(failed, stored(failed))}));
    CHECK(row_of(catalogue, captured.id).state == State::captured);
    const CheckpointRow other{.id = 70, .job = job, .number = captured.number}, later{.id = 70, .job = job, .number = 9};
    CHECK(catalogue.import({found(other, stored(other))}).error().code == Errc::exists);
    CHECK(catalogue.import({found(later, stored(later), 99)}).error().code == Errc::exists);
    const CheckpointRow nobodys{.id = 70, .job = 0, .number = 9};
    CHECK(catalogue.import({found(nobodys, stored(nobodys))}).error().code == Errc::invalid);
    CHECK(*catalogue.checkpoint(70) == std::nullopt);
    CHECK((*catalogue.job(job))->submit_time == 5);  // nothing of a refused import stays
}

TEST_CASE("a checkpoint of several images is imported whole", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const CheckpointRow row{.id = 70, .job = 8, .number = 4};
    REQUIRE(*catalogue.import(several(row)));
    const CheckpointRow imported = row_of(catalogue, 70);
    CHECK(imported.state == State::complete);
    CHECK(imported.images == 3);
    CHECK(imported.bytes == 15'000);
    CHECK(imported.new_bytes == 3030);
    CHECK(imported.frozen_ms == 11);
    CHECK(imported.completed == 400);
    CHECK(imported.step.empty());
    const auto images = *catalogue.images(70);
    REQUIRE(images.size() == 3);
    CHECK(images[0].task == "0.0");
    CHECK(images[2].task == "batch");
    CHECK(images[1].manifest == stored_as(row, "0.1").manifest);
    CHECK(catalogue.image(70, "0.1")->value().files.size() == 1);
    CHECK(*catalogue.ended_task(70, "0.2") == 3 << 8);
    CHECK_FALSE(*catalogue.import(several(row)));
}

TEST_CASE("a checkpoint that is not whole is not imported, and nothing of it stays", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    std::vector<FoundImage> images = several({.id = 70, .job = 8, .number = 4});
    Errc code = Errc::corrupt;
    SECTION("nothing") {
        images.clear();
        code = Errc::not_found;
    }
    SECTION("a task is missing") {
        images.pop_back();
        code = Errc::not_found;
    }
    SECTION("the leader is missing") {
        images.erase(images.begin() + 1);
        code = Errc::not_found;
    }
    SECTION("the leader is none of them") {
        for (FoundImage& image : images) image.identity.leader = "0.7";
    }
    SECTION("a task twice") { images[2].identity.task = "0.1"; }
    SECTION("more than it has") {
        for (FoundImage& image : images) image.identity.images = 2;
    }
    SECTION("they disagree on who leads") { images[0].identity.leader = "0.1"; }
    SECTION("they disagree on how many there are") { images[2].identity.images = 4; }
    SECTION("one is of another checkpoint") { images[0].identity.checkpoint_row = 71; }
    SECTION("one is of another job") { images[0].identity.job_row = 9; }
    CHECK(check_whole(images).error().code == code);
    CHECK(catalogue.import(images).error().code == code);
    CHECK(*catalogue.job(8) == std::nullopt);
    CHECK(catalogue.named_files()->empty());
}

TEST_CASE("a step's checkpoint is imported as what it is", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const CheckpointRow whole{.id = 70, .job = 8, .number = 4}, alone{.id = 71, .job = 8, .number = 5};
    REQUIRE(*catalogue.import(several(whole)));
    std::vector<FoundImage> images = several(alone);
    images.erase(images.begin() + 1);
    for (FoundImage& image : images) {
        image.identity.images = 2;
        image.identity.leader = "0.0";
    }
    images[1].identity.ended = {{"0.2", 9}};
    REQUIRE(*catalogue.import(images));
    CHECK(row_of(catalogue, 71).step == "0");
    CHECK(*catalogue.ended_task(71, "0.2") == 9);
    CHECK((*catalogue.newest_complete(8))->id == 70);
    CHECK((*catalogue.newest_complete_step(8, "0"))->id == 71);
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
