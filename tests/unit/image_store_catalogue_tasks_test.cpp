// SPDX-License-Identifier: GPL-3.0-or-later
//
// Checkpoints of many tasks in the catalogue: all images or none, each with the packs of its own task, on their nodes; and checkpoints
// of a step alone, which are never taken for the job's.
#include <algorithm>
#include <format>

#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "image_store/catalogue_sql.h"
#include "tests/unit/catalogue_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using Catch::Matchers::ContainsSubstring;
using State = CheckpointState;
using Use = Catalogue::FileUse;
using Paths = std::vector<std::string>;
using Tasks = std::vector<std::string>;

namespace {

const Tasks kTasks{"0.0", "0.1", "1.0", "batch"};

// "batch" and rank 0 of each step on n1, all others on n2.
std::string node_of(const std::string& task) { return task == "batch" || task.ends_with(".0") ? "n1" : "n2"; }

Result<> capture_tasks(Catalogue& catalogue, const CheckpointRow& row, const Tasks& tasks, const std::vector<EndedTask>& ended = {}) {
    std::vector<CapturedImage> images;
    for (const std::string& task : tasks) images.push_back({task, node_of(task), 100, {{"/out." + task, 1, 2, true, false}}});
    return catalogue.captured(row.id, images, ended);
}

// of_base: the base's pack of the same task is referred to.
std::vector<StoredTask> stored_tasks(const CheckpointRow& row, const Tasks& tasks, const CheckpointRow* of_base = nullptr) {
    std::vector<StoredTask> images;
    for (const std::string& task : tasks) {
        const Paths packs = of_base != nullptr ? Paths{pack_name(*of_base, task)} : Paths();
        images.push_back({task, stored_as(row, task, packs), static_cast<std::uint32_t>(images.size() + 1)});
    }
    return images;
}

void complete_tasks(Catalogue& catalogue, const CheckpointRow& row, const Tasks& tasks = kTasks, const CheckpointRow* of_base = nullptr) {
    REQUIRE(capture_tasks(catalogue, row, tasks));
    const auto done = catalogue.complete(row.id, stored_tasks(row, tasks, of_base), 101);
    if (!done) FAIL(done.error().text);
}

CheckpointRow begin_step(Catalogue& catalogue, RowId job, const std::string& step) {
    const auto row = catalogue.begin_checkpoint(job, false, 100, step);
    if (!row) FAIL(row.error().text);
    return *row;
}

Tasks in_fast_tier(const Catalogue& catalogue, const CheckpointRow& row) {
    Tasks tasks;
    const auto images = *catalogue.images(row.id);
    for (const ImageRow& image : images)
        if (!image.fast_node.empty()) tasks.push_back(image.task);
    return tasks;
}

}  // namespace

TEST_CASE("a checkpoint of many tasks is captured as one, and tells of each", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const CheckpointRow row = begin(catalogue, add_job(catalogue));
    REQUIRE(capture_tasks(catalogue, row, {"batch", "1.0", "0.1", "0.0"}, {{"1.1", 256}, {"0.2", 9}}));
    const CheckpointRow captured = row_of(catalogue, row.id);
    CHECK(captured.state == State::captured);
    CHECK(captured.images == 4);
    CHECK(captured.bytes == 400);
    const auto bare = *catalogue.images(row.id), whole = *catalogue.images(row.id, true);
    REQUIRE(bare.size() == 4);
    REQUIRE(whole.size() == 4);
    for (std::size_t i = 0; i < kTasks.size(); ++i) {  // sorted
        CHECK(bare[i].task == kTasks[i]);
        CHECK(bare[i].node == node_of(kTasks[i]));
        CHECK(bare[i].fast_node == bare[i].node);
        CHECK(bare[i].bytes == 100);
        CHECK(bare[i].files.empty());
        REQUIRE(whole[i].files.size() == 1);
        CHECK(whole[i].files[0].path == "/out." + kTasks[i]);
    }
    CHECK(image_of(catalogue, row.id, "0.1").files[0].path == "/out.0.1");
    CHECK(*catalogue.image(row.id, "0.2") == std::nullopt);
    const auto ended = *catalogue.ended_tasks(row.id);
    REQUIRE(ended.size() == 2);
    CHECK(ended[0].task == "0.2");
    CHECK(ended[0].wait_status == 9);
    CHECK(*catalogue.ended_task(row.id, "1.1") == 256);
    CHECK(*catalogue.ended_task(row.id, "0.0") == std::nullopt);
    REQUIRE(catalogue.remove_checkpoint(row.id, 1));
    CHECK(catalogue.images(row.id)->empty());
    CHECK(catalogue.ended_tasks(row.id)->empty());
}

TEST_CASE("a checkpoint consists of each task once, and of one image at least", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const CheckpointRow row = begin(catalogue, add_job(catalogue));
    CHECK(capture_tasks(catalogue, row, {}).error().code == Errc::invalid);
    CHECK(capture_tasks(catalogue, row, {}, {{"0.0", 0}}).error().code == Errc::invalid);
    const auto twice = capture_tasks(catalogue, row, {"0.0", "0.1", "0.0"});
    REQUIRE_FALSE(twice);
    CHECK(twice.error().code == Errc::invalid);
    CHECK_THAT(twice.error().text, ContainsSubstring("0.0"));
    CHECK(capture_tasks(catalogue, row, {"0.0"}, {{"0.0", 0}}).error().code == Errc::invalid);
    CHECK(capture_tasks(catalogue, row, {"0.0"}, {{"0.1", 0}, {"0.1", 1}}).error().code == Errc::invalid);
    CHECK(capture_tasks(catalogue, row, {"0.0", ""}).error().code == Errc::invalid);
    CHECK(row_of(catalogue, row.id).state == State::preparing);
    CHECK(catalogue.images(row.id)->empty());
    CHECK(capture_tasks(catalogue, row, {"0.0"}));
}

TEST_CASE("a checkpoint is complete with exactly the images that were captured", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const CheckpointRow row = begin(catalogue, add_job(catalogue));
    REQUIRE(capture_tasks(catalogue, row, kTasks));
    const auto refused = [&](const std::vector<StoredTask>& images) {
        const auto done = catalogue.complete(row.id, images, 1);
        CHECK(row_of(catalogue, row.id).state == State::captured);
        CHECK(catalogue.named_files()->empty());  // all of it was taken back
        return !done && done.error().code == Errc::invalid;
    };
    CHECK(refused({}));
    CHECK(refused(stored_tasks(row, {"0.0", "0.1", "1.0"})));
    CHECK(refused(stored_tasks(row, {"0.0", "0.1", "1.0", "batch", "1.1"})));
    CHECK(refused(stored_tasks(row, {"0.0", "0.1", "1.0", "1.1"})));
    CHECK(refused(stored_tasks(row, {"0.0", "0.1", "1.0", "batch", "batch"})));
    auto images = stored_tasks(row, kTasks);
    images[3].image.digest.clear();  // the last one: the others are in by then
    CHECK(refused(images));
    images = stored_tasks(row, kTasks);
    images[1].image.manifest = images[0].image.manifest;
    CHECK(refused(images));

    REQUIRE(catalogue.complete(row.id, stored_tasks(row, {"batch", "0.1", "0.0", "1.0"}), 160));
    const CheckpointRow complete = row_of(catalogue, row.id);
    CHECK(complete.state == State::complete);
    CHECK(complete.bytes == 20'000);
    CHECK(complete.new_bytes == 4040);
    CHECK(complete.frozen_ms == 4);
    CHECK(complete.completed == 160);
    for (const std::string& task : kTasks) CHECK(image_of(catalogue, row.id, task).manifest == manifest_name(row, task));
}

TEST_CASE("an image refers to packs of the same task of its base only", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow first = begin(catalogue, job);
    complete_tasks(catalogue, first);
    const CheckpointRow second = begin(catalogue, job);
    CHECK(second.base == first.id);
    const Tasks tasks{"0.0", "2.0", "batch"};  // step 0 lost a rank, 2 is new
    REQUIRE(capture_tasks(catalogue, second, tasks));
    const auto with = [&](std::size_t which, const std::string& pack) {
        auto images = stored_tasks(second, tasks);
        images[which].image = stored_as(second, tasks[which], {pack});
        return catalogue.complete(second.id, images, 1);
    };
    CHECK(with(0, pack_name(first, "0.1")).error().code == Errc::invalid);
    CHECK(with(0, pack_name(first, "batch")).error().code == Errc::invalid);
    CHECK(with(1, pack_name(first, "1.0")).error().code == Errc::invalid);   // the base has no such task
    CHECK(with(2, pack_name(second, "0.0")).error().code == Errc::invalid);  // another's of the same checkpoint
    CHECK(row_of(catalogue, second.id).state == State::captured);
    CHECK(with(0, pack_name(first, "0.0")));
}

TEST_CASE("a node's part of a checkpoint comes and goes at once, and the parts of others stay", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow one = begin(catalogue, job), two = begin(catalogue, job), three = begin(catalogue, job);
    for (const CheckpointRow& row : {one, two, three}) REQUIRE(capture_tasks(catalogue, row, {"0.0", "0.1", "0.2", "batch"}));
    REQUIRE(catalogue.evicted(one.id, "n2"));
    CHECK(in_fast_tier(catalogue, one) == Tasks{"0.0", "batch"});
    CHECK(in_fast_tier(catalogue, two).size() == 4);
    REQUIRE(catalogue.set_fast_node(one.id, "n2"));
    CHECK(in_fast_tier(catalogue, one).size() == 4);
    REQUIRE(catalogue.forget_fast_node("n1"));
    for (const CheckpointRow& row : {one, two, three}) CHECK(in_fast_tier(catalogue, row) == Tasks{"0.1", "0.2"});
    REQUIRE(catalogue.failed(two.id, "a node was lost"));
    CHECK(in_fast_tier(catalogue, two).empty());
    CHECK(in_fast_tier(catalogue, three).size() == 2);
}

TEST_CASE("all files of a checkpoint become garbage with it, but for packs that a newer one refers to", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow one = begin(catalogue, job);
    complete_tasks(catalogue, one, {"0.0", "0.1", "batch"});
    const CheckpointRow two = begin(catalogue, job);
    complete_tasks(catalogue, two, {"0.1", "batch"}, &one);  // rank 0 has ended

    auto kept = *catalogue.kept(1);
    REQUIRE(kept.size() == 2);
    std::ranges::sort(kept, {}, [](const KeptCheckpoint& each) { return each.row.number; });
    CHECK(kept[0].freed == 3 * 10 + 1000);      // its manifests, and rank 0's pack
    CHECK(kept[1].freed == 2 * 10 + 4 * 1000);  // its manifests and packs, and what it shares
    const auto packs = *catalogue.packs(job);
    CHECK(packs.size() == 5);
    for (const PackRow& pack : packs) CHECK(pack.path.contains("-" + pack.task + "-"));

    REQUIRE(catalogue.remove_checkpoint(one.id, 1));
    CHECK(garbage_paths(catalogue) ==
          Paths{manifest_name(one, "0.0"), manifest_name(one, "0.1"), manifest_name(one, "batch"), pack_name(one, "0.0")});
    CHECK(catalogue.named_files()->size() == 6);
    CHECK(catalogue.kept(1)->front().freed == 4020);
}

TEST_CASE("files of any task of a checkpoint under way are left alone", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow row = begin(catalogue, job);
    REQUIRE(capture_tasks(catalogue, row, {"0.0", "batch"}));
    CHECK(*catalogue.uses({manifest_name(row, "0.0"), pack_name(row, "batch"), pack_name(row, "s4.17")}) ==
          std::vector{Use::under_way, Use::under_way, Use::under_way});
    CHECK(catalogue.add_garbage({{pack_name(row, "0.0"), 1}}).error().code == Errc::denied);
    REQUIRE(catalogue.failed(row.id, "no"));
    CHECK(catalogue.uses({manifest_name(row, "0.0")})->front() == Use::unknown);
}

TEST_CASE("no pack of a bad checkpoint is in any base, whichever task's it is", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow alone = begin(catalogue, job);
    complete_tasks(catalogue, alone);
    const CheckpointRow shared = begin(catalogue, job);
    complete_tasks(catalogue, shared);
    const CheckpointRow damaged = begin(catalogue, job);
    complete_tasks(catalogue, damaged, kTasks, &shared);
    REQUIRE(catalogue.bad(damaged.id, "a chunk of 1.0 does not verify"));
    CHECK(begin(catalogue, job).base == alone.id);
}

TEST_CASE("of a bad checkpoint only the image that was found bad is not built on", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow first = begin(catalogue, job), second = [&] {
        complete_tasks(catalogue, first);
        return begin(catalogue, job);
    }();
    REQUIRE(capture_tasks(catalogue, second, kTasks));
    std::vector<StoredTask> images = stored_tasks(second, kTasks, &first);
    std::erase_if(images[0].image.packs, [&](const PackUse& pack) { return pack.path == pack_name(first, kTasks[0]); });
    REQUIRE(catalogue.complete(second.id, images, 101));
    const bool named = GENERATE(false, true);
    const std::string digest = stored_as(second, kTasks[0]).digest;
    REQUIRE(catalogue.bad(second.id, "a chunk of its own pack does not verify", named ? digest : ""));
    CHECK(begin(catalogue, job).base == (named ? first.id : 0));  // that image has no pack of the first one's; others have
}

TEST_CASE("compaction changes over the images of one task and leaves the others", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow one = begin(catalogue, job);
    complete_tasks(catalogue, one, {"0.0", "batch"});
    const CheckpointRow two = begin(catalogue, job);
    complete_tasks(catalogue, two, {"0.0", "batch"}, &one);
    const PackUse made{.path = "job-12/made.pack", .bytes = 900, .used = 900};
    const auto changed = [&](const CheckpointRow& row, const std::string& task) {
        return Catalogue::Compacted{
            .checkpoint = row.id,
            .task = task,
            .old_digest = stored_as(row, task).digest,
            .image = {.manifest = manifest_name(row, task) + ".new.manifest", .digest = "new", .plain_bytes = 5000, .new_bytes = 10,
                      .packs = {made}}};
    };
    SECTION("done") {
        REQUIRE(catalogue.compacted({changed(one, "0.0"), changed(two, "0.0")}, 1));
        CHECK(image_of(catalogue, one.id, "0.0").digest == "new");
        CHECK(image_of(catalogue, two.id, "0.0").manifest == manifest_name(two, "0.0") + ".new.manifest");
        for (const CheckpointRow& row : {one, two}) CHECK(image_of(catalogue, row.id).digest == stored(row).digest);
        CHECK(garbage_paths(catalogue) == Paths{manifest_name(one, "0.0"), manifest_name(two, "0.0"), pack_name(one, "0.0"), pack_name(two, "0.0")});
        CHECK(catalogue.packs(job)->size() == 3);
    }
    SECTION("it is another task's digest") {
        Catalogue::Compacted wrong = changed(two, "0.0");
        wrong.old_digest = stored(two).digest;
        CHECK(catalogue.compacted({changed(one, "0.0"), wrong}, 1).error().code == Errc::busy);
        CHECK(image_of(catalogue, one.id, "0.0").digest == stored_as(one, "0.0").digest);
        CHECK(garbage_paths(catalogue).empty());
    }
}

TEST_CASE("a checkpoint of a step alone is never taken for the job's, nor for another step's", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow whole = begin(catalogue, job);
    complete_tasks(catalogue, whole);
    const CheckpointRow alone = begin_step(catalogue, job, "0");
    CHECK(alone.number == whole.number + 1);
    CHECK(alone.step == "0");
    CHECK(alone.base == whole.id);
    complete_tasks(catalogue, alone, {"0.0", "0.1"}, &whole);
    const CheckpointRow other = begin_step(catalogue, job, "s4");
    CHECK(other.base == whole.id);
    complete_tasks(catalogue, other, {"s4.0"});

    CHECK((*catalogue.newest_complete(job))->id == whole.id);
    CHECK((*catalogue.newest_complete_step(job, "0"))->id == alone.id);
    CHECK((*catalogue.newest_complete_step(job, "s4"))->id == other.id);
    CHECK(*catalogue.newest_complete_step(job, "1") == std::nullopt);
    CHECK(*catalogue.newest_complete(job, whole.number) == std::nullopt);
    const CheckpointRow next = begin(catalogue, job), again = begin_step(catalogue, job, "0");
    CHECK(next.base == whole.id);
    CHECK(again.base == alone.id);
    for (const CheckpointRow& row : {next, again}) REQUIRE(catalogue.failed(row.id, "no"));

    for (const CheckpointRow& row : {whole, alone, other}) {  // the newest of its kind
        CHECK(catalogue.remove_checkpoint(row.id, 1).error().code == Errc::denied);
        const auto kept = *catalogue.kept(1);
        CHECK(std::ranges::find(kept, row.id, [](const KeptCheckpoint& each) { return each.row.id; })->newest_complete);
    }
    const CheckpointRow newer = begin_step(catalogue, job, "0");
    complete_tasks(catalogue, newer, {"0.0"});
    CHECK(catalogue.remove_checkpoint(alone.id, 1));
    CHECK(catalogue.remove_checkpoint(whole.id, 1).error().code == Errc::denied);
}

TEST_CASE("the newest complete one is found by one look into an index", "[catalogue]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    open_catalogue(path);
    Sql sql(path);
    for (const char* query : {sckpt::sql::kNewestComplete, sckpt::sql::kNewestCompleteStep}) {
        const std::string plan = sql.values(std::string("EXPLAIN QUERY PLAN ") + query);
        INFO(plan);
        CHECK_THAT(plan, ContainsSubstring("SEARCH c USING INDEX checkpoints_complete (job=? AND step=?"));
        CHECK_FALSE(plan.contains("SCAN"));
        CHECK_FALSE(plan.contains("B-TREE"));
    }
    for (const char* query : {sckpt::sql::kSetFastNode, sckpt::sql::kEvicted, sckpt::sql::kForgetFastNode})
        CHECK_THAT(sql.values(std::string("EXPLAIN QUERY PLAN ") + query), ContainsSubstring("images_by_node (node=?"));
}

TEST_CASE("a checkpoint of ten thousand images", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    Tasks tasks;
    for (int rank = 0; rank < 10'000; ++rank) tasks.push_back(std::format("0.{}", rank));
    CheckpointRow before;
    for (int i = 0; i < 2; ++i) {
        const CheckpointRow row = begin(catalogue, job);
        complete_tasks(catalogue, row, tasks, i == 0 ? nullptr : &before);
        before = row;
    }
    CHECK(row_of(catalogue, before.id).images == 10'000);
    CHECK(row_of(catalogue, before.id).bytes == 50'000'000);
    CHECK(catalogue.images(before.id, true)->size() == 10'000);
    const auto kept = *catalogue.kept(1);
    CHECK(kept[0].freed + kept[1].freed == 20'000 * 1010ull);
    REQUIRE(catalogue.remove_checkpoint(before.base, 1));
    CHECK(catalogue.garbage(100'000)->size() == 10'000);
}
