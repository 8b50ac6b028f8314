// SPDX-License-Identifier: GPL-3.0-or-later
//
// The catalogue and the files of the store: what is kept from being removed, what becomes garbage and when, compaction.
#include <algorithm>

#include "tests/unit/catalogue_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using State = CheckpointState;
using Use = Catalogue::FileUse;
using Paths = std::vector<std::string>;

namespace {

std::uint64_t held(const std::vector<KeptCheckpoint>& kept) {
    std::uint64_t bytes = 0;
    for (const KeptCheckpoint& each : kept) bytes += each.freed;
    return bytes;
}

}  // namespace

TEST_CASE("the base is the newest complete checkpoint, and cannot go until the drain is over", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow base = bring_to(catalogue, job, State::complete), drain = begin(catalogue, job);
    CHECK(drain.base == base.id);
    REQUIRE(catalogue.set_job_ended(job, JobOutcome::failed, 1));  // so that nothing but the base holds it
    CHECK(catalogue.remove_checkpoint(base.id, 1).error().code == Errc::denied);
    SECTION("complete") { complete(catalogue, drain, stored(drain, {pack_name(base)})); }
    SECTION("failed") { REQUIRE(catalogue.failed(drain.id, "no")); }
    SECTION("gone") { REQUIRE(catalogue.remove_checkpoint(drain.id, 1)); }
    CHECK(catalogue.remove_checkpoint(base.id, 1));
}

TEST_CASE("an image refers to packs of its base and new ones only", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue), other = add_job(catalogue, 13);
    const CheckpointRow first = bring_to(catalogue, job, State::complete), strange = bring_to(catalogue, other, State::complete);
    const CheckpointRow second = bring_to(catalogue, job, State::complete);  // refers to nothing of the first
    const CheckpointRow third = bring_to(catalogue, job, State::captured);
    CHECK(try_complete(catalogue, third, stored(third, {pack_name(strange)})).error().code == Errc::invalid);
    CHECK(try_complete(catalogue, third, stored(third, {pack_name(first)})).error().code == Errc::invalid);
    CHECK(row_of(catalogue, third.id).state == State::captured);
    CHECK(catalogue.packs(job)->size() == 2);  // the whole transaction was rolled back
    CHECK(try_complete(catalogue, third, stored(third, {pack_name(second)})));
    CHECK(row_of(catalogue, third.id).base == 0);
}

TEST_CASE("what does not name an image is refused", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const CheckpointRow row = bring_to(catalogue, add_job(catalogue), State::captured);
    StoredImage image = stored(row);
    SECTION("no digest") { image.digest.clear(); }
    SECTION("no manifest") { image.manifest.clear(); }
    SECTION("a path out of the store") { image.manifest = "../etc/passwd"; }
    SECTION("a pack's path out of the store") { image.packs[0].path = "/etc/passwd"; }
    SECTION("a pack twice") { image.packs.push_back(image.packs[0]); }
    SECTION("the manifest as a pack") { image.packs[0].path = image.manifest; }
    SECTION("another checkpoint's manifest") { image.manifest = "job-12-1/ckpt-2-batch-00bb.manifest"; }
    SECTION("another job's manifest") { image.manifest = "job-12-2/ckpt-1-batch-00bb.manifest"; }
    SECTION("another checkpoint's pack") { image.packs[0].path = "job-12-1/ckpt-2-batch-00aa.pack"; }
    SECTION("a pack of no checkpoint") { image.packs[0].path = "job-12-1/stray.pack"; }
    CHECK(try_complete(catalogue, row, image).error().code == Errc::invalid);
    CHECK(row_of(catalogue, row.id).state == State::captured);
}

TEST_CASE("a pack that a bad checkpoint refers to is in no base any more", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow alone = bring_to(catalogue, job, State::complete);
    const CheckpointRow shared = begin(catalogue, job);
    complete(catalogue, shared, stored(shared));
    const CheckpointRow damaged = bring_to(catalogue, job, State::complete, {pack_name(shared)});
    REQUIRE(catalogue.bad(damaged.id, "chunk 3 does not verify"));
    CHECK(begin(catalogue, job).base == alone.id);
    REQUIRE(catalogue.remove_checkpoint(damaged.id, 1));  // its packs do not become good by that
    const CheckpointRow next = begin(catalogue, job);
    CHECK(next.base == alone.id);
    complete(catalogue, next, stored(next));
    CHECK(begin(catalogue, job).base == next.id);
}

TEST_CASE("an image that builds on what was found bad meanwhile does not become complete", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow older = bring_to(catalogue, job, State::complete), base = bring_to(catalogue, job, State::complete);
    const CheckpointRow drain = bring_to(catalogue, job, State::captured);
    REQUIRE(drain.base == base.id);
    REQUIRE(catalogue.bad(base.id, "chunk 3 does not verify"));
    CHECK(try_complete(catalogue, drain, stored(drain, {pack_name(base)})).error().code == Errc::corrupt);
    CHECK(row_of(catalogue, drain.id).state == State::captured);
    CHECK((*catalogue.newest_complete(job))->id == older.id);
    SECTION("drained without that base it may") { CHECK(try_complete(catalogue, drain, stored(drain))); }
    SECTION("dropped, the next one builds on another") {
        REQUIRE(catalogue.failed(drain.id, "no"));
        CHECK(begin(catalogue, job).base == older.id);
    }
}

TEST_CASE("what is needed is not removed", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow older = bring_to(catalogue, job, State::complete), newest = bring_to(catalogue, job, State::complete);
    bring_to(catalogue, job, State::failed);
    const auto refused = [&](const CheckpointRow& row, std::int64_t now = 1000) {
        const auto removed = catalogue.remove_checkpoint(row.id, now);
        CHECK(row_of(catalogue, row.id).state == State::complete);
        CHECK(garbage_paths(catalogue).empty());
        return !removed && removed.error().code == Errc::denied;
    };
    CHECK(refused(newest));
    SECTION("the newest of an ended job may go") {
        REQUIRE(catalogue.set_job_ended(job, JobOutcome::cancelled, 1));
        CHECK(catalogue.remove_checkpoint(newest.id, 1000));
        CHECK(catalogue.remove_checkpoint(older.id, 1000));
    }
    SECTION("when the newest is bad, the older one is the newest") {
        REQUIRE(catalogue.bad(newest.id, "its hash is wrong"));
        CHECK(refused(older));
        CHECK(catalogue.remove_checkpoint(newest.id, 1000));
        CHECK(catalogue.remove_checkpoint(older.id, 1000).error().code == Errc::denied);
    }
    SECTION("a pinned one, until it is not") {
        REQUIRE(catalogue.set_pinned(older.id, true));
        CHECK(row_of(catalogue, older.id).pinned);
        CHECK(refused(older));
        REQUIRE(catalogue.set_pinned(older.id, false));
        CHECK(catalogue.remove_checkpoint(older.id, 1000));
    }
    SECTION("a leased one, until the lease is over") {
        REQUIRE(catalogue.lease(older.id, 1001));
        CHECK(refused(older));
        CHECK(catalogue.remove_checkpoint(older.id, 1001));
    }
    SECTION("a lease is given back") {
        REQUIRE(catalogue.lease(older.id, 1001));
        REQUIRE(catalogue.lease(older.id, 0));
        CHECK(catalogue.remove_checkpoint(older.id, 1000));
    }
}

TEST_CASE("no more can be pinned of a user than the limit says, shared packs counted once", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue), another = add_job(catalogue, 13), daves = add_job(catalogue, 14, "dave", 1001);
    const CheckpointRow one = bring_to(catalogue, job, State::complete);
    const CheckpointRow two = bring_to(catalogue, job, State::complete, {pack_name(one)});
    const CheckpointRow third = bring_to(catalogue, another, State::complete), other = bring_to(catalogue, daves, State::complete);
    REQUIRE(catalogue.set_pinned(one.id, true, 2020));
    REQUIRE(catalogue.set_pinned(two.id, true, 2020));  // two packs, two manifests
    const auto refused = catalogue.set_pinned(third.id, true, 3029);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == Errc::no_space);
    CHECK(refused.error().text.contains("user_quota"));
    CHECK_FALSE(row_of(catalogue, third.id).pinned);
    CHECK(catalogue.set_pinned(other.id, true, 2020));  // another user's
    CHECK(catalogue.set_pinned(third.id, true, 3030));
    REQUIRE(catalogue.set_pinned(one.id, false, 1));  // it is always unpinned
    CHECK(catalogue.set_pinned(one.id, true));
}

TEST_CASE("what the job has passed stays while it is pinned, and nothing goes on from it", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow older = bring_to(catalogue, job, State::complete), newer = bring_to(catalogue, job, State::complete);
    REQUIRE(catalogue.set_pinned(newer.id, true));
    REQUIRE(catalogue.set_passed(newer.id, "the job went on from checkpoint 1"));
    CHECK(row_of(catalogue, newer.id).state == State::complete);
    CHECK(row_of(catalogue, newer.id).passed);
    CHECK((*catalogue.newest_complete(job))->id == older.id);
    CHECK(catalogue.remove_checkpoint(older.id, 1).error().code == Errc::denied);  // it is the newest one now
    CHECK(catalogue.remove_checkpoint(newer.id, 1).error().code == Errc::denied);
    const CheckpointRow next = begin(catalogue, job);
    CHECK(next.base == older.id);
    REQUIRE(catalogue.failed(next.id, "no"));
    const auto kept = *catalogue.kept(1);
    const auto is_newest = [&](RowId id) { return std::ranges::find(kept, id, [](const auto& each) { return each.row.id; })->newest_complete; };
    CHECK(is_newest(older.id));
    CHECK_FALSE(is_newest(newer.id));
    REQUIRE(catalogue.set_pinned(newer.id, false));
    CHECK(catalogue.remove_checkpoint(newer.id, 1));
    CHECK_FALSE(catalogue.set_passed(next.id, "it is not complete"));
}

TEST_CASE("a file is garbage when the last row that names it is gone; manifests come first", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow one = bring_to(catalogue, job, State::complete);
    const CheckpointRow two = bring_to(catalogue, job, State::complete, {pack_name(one)});
    const CheckpointRow three = bring_to(catalogue, job, State::complete, {pack_name(two)});
    REQUIRE(catalogue.remove_checkpoint(one.id, 1));
    CHECK(garbage_paths(catalogue) == Paths{manifest_name(one)});
    CHECK(catalogue.garbage(10)->front().bytes == 10);
    CHECK(*catalogue.uses({manifest_name(one), pack_name(one), manifest_name(two), "job-1-1/other"}) ==
          std::vector{Use::garbage, Use::named, Use::named, Use::unknown});
    REQUIRE(catalogue.remove_checkpoint(two.id, 1));
    CHECK(garbage_paths(catalogue) == Paths{manifest_name(one), manifest_name(two), pack_name(one)});
    CHECK(catalogue.garbage(2)->size() == 2);
    CHECK(catalogue.garbage(10)->back().bytes == 1000);
    CHECK(*catalogue.named_files() == Paths{pack_name(two), pack_name(three), manifest_name(three)});

    REQUIRE(catalogue.garbage_removed({manifest_name(one), manifest_name(two), "never heard of"}));
    CHECK(garbage_paths(catalogue) == Paths{pack_name(one)});
    REQUIRE(catalogue.garbage_removed({pack_name(one)}));
    CHECK(garbage_paths(catalogue).empty());
    CHECK(catalogue.packs(job)->size() == 2);
}

TEST_CASE("a name that is garbage is not named again", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow one = bring_to(catalogue, job, State::complete);
    bring_to(catalogue, job, State::complete);
    REQUIRE(catalogue.remove_checkpoint(one.id, 1));
    const CheckpointRow row = bring_to(catalogue, job, State::captured);
    CHECK_FALSE(try_complete(catalogue, row, stored(row, {pack_name(one)})));
    StoredImage image = stored(row);
    image.manifest = manifest_name(one);
    CHECK_FALSE(try_complete(catalogue, row, image));
    CHECK(try_complete(catalogue, row, stored(row)));
}

TEST_CASE("what no row ever named can be made garbage, what is a checkpoint's cannot", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow done = bring_to(catalogue, job, State::complete), dumping = begin(catalogue, job),
                        draining = bring_to(catalogue, job, State::captured), lost = bring_to(catalogue, job, State::failed);
    CHECK(*catalogue.uses(
              {pack_name(dumping), manifest_name(draining), pack_name(lost), "stray", "job-12-/ckpt-1-x", "job-12-5/ckpt-x"}) ==
          std::vector{Use::under_way, Use::under_way, Use::unknown, Use::unknown, Use::unknown, Use::unknown});
    for (const auto& path : {pack_name(done), manifest_name(done), pack_name(draining)}) {
        CHECK(catalogue.add_garbage({{"stray", 3}, {path, 4}}).error().code == Errc::denied);
        CHECK(garbage_paths(catalogue).empty());
    }
    CHECK(catalogue.add_garbage({{"../out", 1}}).error().code == Errc::invalid);
    REQUIRE(catalogue.add_garbage({{pack_name(lost), 4}, {manifest_name(lost), 3}, {pack_name(lost), 4}}));
    CHECK(garbage_paths(catalogue) == Paths{manifest_name(lost), pack_name(lost)});
}

TEST_CASE("packs tell how much of them is used at least, and who has dead space is found", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue), whole = add_job(catalogue, 13);
    bring_to(catalogue, whole, State::complete);
    const CheckpointRow one = bring_to(catalogue, job, State::complete);
    bring_to(catalogue, job, State::complete, {pack_name(one)});
    CHECK(catalogue.jobs_with_dead_space(0.3, 100)->empty());
    REQUIRE(catalogue.remove_checkpoint(one.id, 1));  // the second uses 600 of its 1000
    const auto packs = *catalogue.packs(job);
    REQUIRE(packs.size() == 2);
    CHECK(packs[0].path == pack_name(one));
    CHECK(packs[0].bytes == 1000);
    CHECK(packs[0].used == 600);
    CHECK(packs[0].images == 1);
    CHECK(*catalogue.jobs_with_dead_space(0.3, 100) == std::vector{job});
    CHECK(catalogue.jobs_with_dead_space(0.5, 100)->empty());
    CHECK(catalogue.jobs_with_dead_space(0.3, 500)->empty());
}

TEST_CASE("compaction changes over in one transaction, or not at all", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue);
    const CheckpointRow one = bring_to(catalogue, job, State::complete);
    const CheckpointRow two = bring_to(catalogue, job, State::complete, {pack_name(one)});
    REQUIRE(catalogue.remove_checkpoint(one.id, 1));
    const CheckpointRow three = bring_to(catalogue, job, State::complete, {pack_name(one), pack_name(two)});
    const auto compacted = [&](const CheckpointRow& row, const std::string& own) {
        const PackUse made{.path = "job-12/compact-1.pack", .bytes = 600, .used = 600};
        return Catalogue::Compacted{.checkpoint = row.id,
                                    .task = "batch",
                                    .old_digest = stored(row).digest,
                                    .image = {.manifest = manifest_name(row) + ".new.manifest",
                                              .digest = "new",
                                              .plain_bytes = 5000,
                                              .new_bytes = 10,
                                              .packs = {made, {.path = own, .bytes = 1000, .used = 900}}}};
    };
    const auto before = *catalogue.named_files();
    std::vector<Catalogue::Compacted> images{compacted(two, pack_name(two)), compacted(three, pack_name(three))};
    SECTION("done") {
        REQUIRE(catalogue.compacted(images, 1));
        CHECK(image_of(catalogue, two.id).manifest == images[0].image.manifest);
        CHECK(image_of(catalogue, three.id).digest == "new");
        CHECK(garbage_paths(catalogue) == Paths{manifest_name(one), manifest_name(two), manifest_name(three), pack_name(one)});
        CHECK(catalogue.packs(job)->size() == 3);
        CHECK(catalogue.compacted(images, 1).error().code == Errc::busy);  // no longer as they were
        CHECK(catalogue.bad(two.id, "x", stored(two).digest).error().code == Errc::busy);  // it was the old one that was found so
        CHECK(row_of(catalogue, two.id).state == State::complete);
        REQUIRE(catalogue.bad(two.id, "x", "new"));
        CHECK(row_of(catalogue, two.id).state == State::bad);
        return;
    }
    SECTION("a lease") { REQUIRE(catalogue.lease(three.id, 2)); }
    SECTION("a drain refers to one of them") { begin(catalogue, job); }
    SECTION("one is bad by now") { REQUIRE(catalogue.bad(three.id, "x", stored(three).digest)); }
    SECTION("one is gone") {
        bring_to(catalogue, job, State::complete);
        REQUIRE(catalogue.remove_checkpoint(three.id, 1));
    }
    CHECK(catalogue.compacted(images, 1).error().code == Errc::busy);
    CHECK(image_of(catalogue, two.id).manifest == manifest_name(two));
    CHECK((*catalogue.uses({images[0].image.manifest}))[0] == Use::unknown);
}

TEST_CASE("kept tells of each checkpoint what holds it and what it holds", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    const RowId job = add_job(catalogue), other = add_job(catalogue, 13, "dave");
    const CheckpointRow one = bring_to(catalogue, job, State::complete);
    const CheckpointRow strange = bring_to(catalogue, other, State::complete);
    const CheckpointRow two = bring_to(catalogue, job, State::complete, {pack_name(one)});
    bring_to(catalogue, job, State::failed);
    const CheckpointRow damaged = bring_to(catalogue, job, State::bad);
    REQUIRE(catalogue.lease(one.id, 50));
    begin(catalogue, job);  // its base: two
    auto kept = *catalogue.kept(10);
    std::ranges::sort(kept, {}, [](const KeptCheckpoint& each) { return std::pair(each.job.id, each.row.number); });
    REQUIRE(kept.size() == 5);
    CHECK(kept[0].row.id == one.id);
    CHECK(kept[0].in_use);
    CHECK_FALSE(kept[0].newest_complete);
    CHECK(kept[0].freed == 10);  // its pack is the second's too
    CHECK(kept[0].job.user == "carol");
    CHECK(kept[1].row.id == two.id);
    CHECK(kept[1].newest_complete);
    CHECK(kept[1].in_use);
    CHECK(kept[1].freed == 2010);
    CHECK(kept[2].row.state == State::failed);
    CHECK(kept[2].freed == 0);
    CHECK(kept[3].row.id == damaged.id);
    CHECK(kept[3].freed == 1010);
    CHECK(kept[4].row.id == strange.id);
    CHECK(kept[4].newest_complete);
    CHECK(kept[4].job.id == other);
    CHECK(kept[4].job.user == "dave");
    CHECK(held(kept) == 4 * 1010);
    CHECK_FALSE(catalogue.kept(50)->at(0).in_use);
}

TEST_CASE("what looks through everything sees everything, more than it takes at a time too", "[catalogue]") {
    Catalogue catalogue = open_catalogue();
    constexpr std::uint32_t kMany = 4100;
    for (std::uint32_t i = 1; i <= kMany; ++i) bring_to(catalogue, add_job(catalogue, i), State::complete);
    const auto kept = *catalogue.kept(1);
    REQUIRE(kept.size() == kMany);
    CHECK(held(kept) == kMany * 1010);
    CHECK(std::ranges::all_of(kept, &KeptCheckpoint::newest_complete));
    CHECK(catalogue.named_files()->size() == 2 * kMany);
    CHECK(std::ranges::is_sorted(*catalogue.named_files()));
    CHECK(catalogue.jobs_with_dead_space(0, 0)->size() == kMany);
}
