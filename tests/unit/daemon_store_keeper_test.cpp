// SPDX-License-Identifier: GPL-3.0-or-later
//
// The keeper of the store: what it removes, what it never removes, and that it may be killed at every step.
#include <algorithm>
#include <format>
#include <utility>

#include <condition_variable>
#include <mutex>
#include <thread>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "daemon/catalogue_file.h"
#include "image_store/faulty_database.h"
#include "tests/unit/store_keeper_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using Catch::Matchers::ContainsSubstring;
using Orphans = StoreKeeper::Orphans;

namespace {

constexpr std::int64_t kNow = 1'000'000;
const StoreKeeper::Cancelled never = [] { return false; };

std::vector<rpc::Orphan> of_kind(const rpc::OrphansReply& reply, rpc::Orphan::Kind kind) {
    std::vector<rpc::Orphan> found;
    for (const rpc::Orphan& orphan : reply.orphans())
        if (orphan.kind() == kind) found.push_back(orphan);
    return found;
}

// Three images that share packs, of which the oldest goes by retention; one bad; and a torn drain.
struct Busy : Kept {
    RowId job = add_job(catalogue);
    CheckpointRow first = make(job);
    CheckpointRow second = make(job, {pack_name(first)});
    CheckpointRow third = make(job, {pack_name(first), pack_name(second)});
    Busy() { store.files["job-12-1/ckpt-9-batch-00cc.pack"] = 77; }
};

}  // namespace

TEST_CASE("what retention lets go leaves the store, and nothing else does", "[store_keeper]") {
    Busy kept;
    REQUIRE(kept.keeper->round(true, kNow));
    CHECK(kept.named() == kept.in_store());
    CHECK(!kept.store.files.contains(manifest_name(kept.first)));
    CHECK(kept.store.files.contains(pack_name(kept.first)));  // the newer ones refer to it
    CHECK(garbage_paths(kept.catalogue).empty());
    CHECK(kept.store.has(stored(kept.third, {pack_name(kept.first), pack_name(kept.second)})));
}

TEST_CASE("the keeper may be killed before and after each of its orders", "[store_keeper]") {
    for (const bool done_first : {false, true}) {
        for (int at = 1;; ++at) {
            Busy kept;
            REQUIRE(kept.catalogue.bad(kept.second.id, "a flipped bit"));
            kept.store.fail_at = at;
            kept.store.done_first = done_first;
            static_cast<void>(kept.keeper->round(true, kNow));
            INFO("order " << at << (done_first ? " done, answer lost" : " not done"));
            CHECK(kept.store.has(stored(kept.third, {pack_name(kept.first), pack_name(kept.second)})));
            CHECK(kept.state(kept.third) == CheckpointState::complete);
            const bool reached = kept.store.orders >= at;
            kept.store.fail_at = 0;
            kept.restart();
            REQUIRE(kept.keeper->round(true, kNow));
            CHECK(kept.named() == kept.in_store());
            CHECK(garbage_paths(kept.catalogue).empty());
            if (!reached) break;
            REQUIRE(at < 50);
        }
    }
}

TEST_CASE("the checkpoints of a job that has succeeded go at once, those of one that has failed later", "[store_keeper]") {
    Kept kept;
    const RowId good = add_job(kept.catalogue, 12), failed = add_job(kept.catalogue, 13);
    kept.make(good);
    const CheckpointRow of_failed = kept.make(failed);
    REQUIRE(kept.catalogue.set_job_ended(good, JobOutcome::succeeded, kNow));
    REQUIRE(kept.catalogue.set_job_ended(failed, JobOutcome::failed, kNow));
    REQUIRE(kept.keeper->round(false, kNow));
    CHECK(kept.catalogue.checkpoints(good)->empty());
    CHECK(kept.state(of_failed) == CheckpointState::complete);
    CHECK(kept.named() == kept.in_store());

    const std::int64_t later = kNow + kept.config.retention.keep_failed_seconds + 1;
    REQUIRE(kept.keeper->round(true, later));
    CHECK(kept.in_store().empty());
    CHECK(!*kept.catalogue.job(good));  // its history too
    CHECK(!*kept.catalogue.job(failed));
}

TEST_CASE("clean obeys the rules of the command line and tells what it does", "[store_keeper]") {
    Busy kept;
    rpc::RetentionRules rules;
    rules.set_keep(1);
    const auto report = kept.keeper->report(rules, kNow, never);
    REQUIRE(report);
    CHECK(report->removals_size() == 2);
    CHECK(report->store_free() == 400);
    CHECK(report->users(0).name() == "carol");
    CHECK(kept.state(kept.first) == CheckpointState::complete);  // a report changes nothing
    rpc::CleanProgress last;
    REQUIRE(kept.keeper->clean(
        rules, kNow, [&](const rpc::CleanProgress& progress) { last = progress; }, never));
    CHECK(last.done());
    CHECK(last.checkpoints_removed() == 2);
    CHECK(last.files_removed() == 2);  // manifests; the packs are the newest one's
}

TEST_CASE("a file that cannot be removed holds up no other, is told, and is tried again later", "[store_keeper]") {
    Busy kept;
    const std::string stuck = manifest_name(kept.first);
    kept.store.stuck = {stuck};
    REQUIRE(kept.keeper->round(true, kNow));
    CHECK(kept.in_store() == [&] {
        auto there = kept.named();
        there.push_back(stuck);
        std::ranges::sort(there);
        return there;
    }());
    CHECK(garbage_paths(kept.catalogue) == std::vector{stuck});
    CHECK_THAT(kept.keeper->unremoved_files(), ContainsSubstring(stuck + ": not permitted"));

    int tries = 0;
    kept.store.before = [&](const rpc::StoreOrder& order) {
        if (order.has_remove()) tries += static_cast<int>(std::ranges::count(order.remove().paths(), stuck));
    };
    std::int64_t now = kNow;
    for (const int pause : {60, 120, 240}) {
        REQUIRE(kept.keeper->round(true, now + pause - 1));
        CHECK(tries == 0);
        now += pause;
        REQUIRE(kept.keeper->round(true, now));
        CHECK(std::exchange(tries, 0) == 1);
    }
    const auto cleaned = kept.keeper->clean({}, now, {}, never);  // who asks for it gets it tried
    REQUIRE_FALSE(cleaned);
    CHECK_THAT(cleaned.error().text, ContainsSubstring(stuck));
    CHECK(tries == 1);
    kept.store.stuck.clear();
    REQUIRE(kept.keeper->clean({}, now, {}, never));
    CHECK(kept.keeper->unremoved_files().empty());
    CHECK(kept.named() == kept.in_store());
    CHECK(garbage_paths(kept.catalogue).empty());
}

TEST_CASE("the pauses between tries grow to an hour", "[store_keeper]") {
    UnremovedFiles files;
    std::int64_t now = kNow, pause = 60;
    for (int i = 0; i < 12; ++i, now += pause, pause = std::min<std::int64_t>(2 * pause, 3600)) {
        files.failed("a.pack", "remove a.pack: no", now);
        CHECK(files.is_put_off("a.pack", now + pause - 1));
        CHECK_FALSE(files.is_put_off("a.pack", now + pause));
    }
    CHECK(files.text() == "a file of the store cannot be removed, and is tried again later: remove a.pack: no");
    files.failed("b.pack", "no", now);
    CHECK(files.text().starts_with("2 files"));
    files.try_all_again();
    CHECK_FALSE(files.is_put_off("b.pack", now));
    files.removed("a.pack");
    files.removed("b.pack");
    CHECK(files.text().empty());
}

TEST_CASE("a store where nothing can be removed is told as that", "[store_keeper]") {
    Kept kept;
    std::vector<Catalogue::Garbage> garbage;
    for (std::size_t i = 0; i < 2 * UnremovedFiles::kMost; ++i) {
        garbage.push_back({std::format("job-12-1/ckpt-{}-batch-00ee.pack", 100 + i), 5});
        kept.store.files[garbage.back().path] = 5;
        kept.store.stuck.insert(garbage.back().path);
    }
    REQUIRE(kept.catalogue.add_garbage(garbage));
    const auto done = kept.keeper->round(false, kNow);
    REQUIRE_FALSE(done);
    CHECK_THAT(done.error().text, ContainsSubstring("1000 files of the store cannot be removed"));
    kept.store.stuck.clear();
    CHECK(kept.keeper->round(false, kNow + 60));
    CHECK(kept.in_store().empty());
}

namespace {

// A job whose second checkpoint uses little of what the first one has written, which goes by retention: its pack is worth rewriting.
struct DeadSpace : Kept {
    static constexpr std::uint64_t kMiB = 1u << 20;
    RowId job = add_job(catalogue);
    CheckpointRow first = begin(catalogue, job);
    CheckpointRow second;
    StoredImage small;
    DeadSpace() {
        StoredImage big = stored(first);
        big.packs[0].bytes = big.packs[0].used = 8 * kMiB;
        complete(catalogue, first, big);
        store.put(catalogue, first, big);
        second = begin(catalogue, job);
        small = stored(second);
        small.packs.push_back({pack_name(first), 8 * kMiB, 1000});
        complete(catalogue, second, small);
        store.put(catalogue, second, small);
        config.retention.keep = 1;
        restart();
    }
    bool was_rewritten() const { return !store.files.contains(pack_name(first)); }
    // What a new catalogue finds in the store.
    Catalogue rebuilt() {
        std::swap(catalogue, fresh_);
        REQUIRE(keeper->rebuild({}, never));
        std::swap(catalogue, fresh_);
        return std::move(fresh_);
    }

   private:
    Catalogue fresh_ = test::open_catalogue();
};

}  // namespace

TEST_CASE("packs with much dead space are rewritten, and a restore in between is not disturbed", "[store_keeper]") {
    const bool leased = GENERATE(false, true);
    DeadSpace kept;
    kept.store.before = [&](const rpc::StoreOrder& order) {
        if (leased && order.has_compact()) REQUIRE(kept.catalogue.lease(kept.second.id, kNow + 100));
    };
    static_cast<void>(kept.keeper->round(true, kNow));
    CHECK(kept.named() == kept.in_store());
    CHECK(kept.was_rewritten() == !leased);
    CHECK(kept.store.has(kept.small) == leased);
}

TEST_CASE("who asks for a run has packs rewritten, too", "[store_keeper]") {
    DeadSpace kept;
    rpc::CleanProgress last;
    REQUIRE(kept.keeper->clean(
        {}, kNow, [&](const rpc::CleanProgress& progress) { last = progress; }, never));
    CHECK(kept.was_rewritten());
    CHECK(last.bytes_freed() > 8 * DeadSpace::kMiB);
    CHECK(kept.named() == kept.in_store());
}

TEST_CASE("a checkpoint that turns bad while its packs are rewritten does not come back, whoever is killed", "[store_keeper]") {
    const bool killed = GENERATE(false, true);
    DeadSpace kept;
    const CheckpointRow third = kept.make(kept.job, {pack_name(kept.second)});
    kept.config.retention.keep = 2;
    kept.restart();
    kept.store.before = [&](const rpc::StoreOrder& order) {
        if (!order.has_compact()) return;
        REQUIRE(kept.catalogue.bad(kept.second.id, "a flipped bit", stored(kept.second).digest));
        if (killed) kept.store.fail_at = kept.store.orders;  // when the new files are there, and nobody has been told of them
    };
    kept.store.done_first = true;
    static_cast<void>(kept.keeper->round(true, kNow));
    CHECK(kept.state(kept.second) == CheckpointState::bad);
    CHECK(kept.store.files.contains(pack_name(kept.first)));
    kept.store.before = {};
    kept.restart();
    REQUIRE(kept.keeper->round(true, kNow + 1));
    CHECK(kept.state(third) == CheckpointState::complete);
    CHECK(kept.store.has(stored(third, {pack_name(kept.second)})));
    CHECK(kept.store.quarantined == std::vector{manifest_name(kept.second)});
    CHECK(kept.named() == kept.in_store());  // nothing of the rewriting is left
    CHECK(garbage_paths(kept.catalogue).empty());
    const Catalogue rebuilt = kept.rebuilt();
    CHECK(rebuilt.checkpoints(kept.job)->size() == 1);
    CHECK(row_of(rebuilt, third.id).state == CheckpointState::complete);
}

TEST_CASE("what was found bad and has been rewritten since is not called bad", "[store_keeper]") {
    DeadSpace kept;
    kept.store.faults[manifest_name(kept.second)] = "read error";
    kept.store.before = [&](const rpc::StoreOrder& order) {
        if (order.has_check() && !kept.was_rewritten()) REQUIRE(kept.keeper->round(true, kNow));
    };
    rpc::CheckRequest request;
    request.set_repair(true);
    std::size_t faults = 0;
    REQUIRE(kept.keeper->check(
        request, kNow, [&](const rpc::CheckProgress& progress) { faults += static_cast<std::size_t>(progress.faults_size()); }, never));
    CHECK(faults == 0);
    CHECK(kept.was_rewritten());
    CHECK(kept.state(kept.second) == CheckpointState::complete);
    CHECK(kept.store.quarantined.empty());
    CHECK(kept.all_named_are_there());
}

TEST_CASE("orphans: what nobody names goes, what may be somebody's stays", "[store_keeper]") {
    Busy kept;
    const CheckpointRow drained = bring_to(kept.catalogue, kept.job, CheckpointState::captured);
    kept.store.put(kept.catalogue, drained, stored(drained));  // on its way: stored, not yet told
    const CheckpointRow dropped = bring_to(kept.catalogue, add_job(kept.catalogue, 12), CheckpointState::failed);
    kept.store.put(kept.catalogue, dropped, stored(dropped));  // given up when it was stored already
    CheckpointRow lost = dropped;                              // whole, and of a row that the catalogue does not have
    lost.id = 4000;
    lost.number = 40;
    kept.store.put(kept.catalogue, lost, stored(lost));

    const auto report = kept.keeper->orphans(Orphans::report, kNow, never);
    REQUIRE(report);
    CHECK(kept.store.removed.empty());
    CHECK(of_kind(*report, rpc::Orphan::FILE).size() == 3);
    REQUIRE(of_kind(*report, rpc::Orphan::IMAGE).size() == 1);
    CHECK(of_kind(*report, rpc::Orphan::JOB).size() == 1);

    REQUIRE(kept.keeper->orphans(Orphans::remove, kNow, never));
    CHECK(kept.store.has(stored(drained)));
    CHECK(kept.store.has(stored(lost)));
    CHECK_FALSE(kept.store.files.contains(manifest_name(dropped)));
    CHECK_FALSE(kept.store.files.contains("job-12-1/ckpt-9-batch-00cc.pack"));
    CHECK(kept.all_named_are_there());
}

TEST_CASE("what is completed while the store is listed is no orphan", "[store_keeper]") {
    Busy kept;
    const CheckpointRow row = bring_to(kept.catalogue, kept.job, CheckpointState::captured);
    kept.store.put(kept.catalogue, row, stored(row));
    kept.store.before = [&](const rpc::StoreOrder& order) {
        if (order.has_scan() && kept.state(row) == CheckpointState::captured) REQUIRE(try_complete(kept.catalogue, row, stored(row), kNow));
    };
    REQUIRE(kept.keeper->orphans(Orphans::remove, kNow, never));
    CHECK(kept.state(row) == CheckpointState::complete);
    CHECK(kept.store.has(stored(row)));
}

TEST_CASE("rows whose files are missing are told, and marked bad when asked for; never when all is missing", "[store_keeper]") {
    Busy kept;
    kept.store.files.erase(pack_name(kept.second));
    const auto report = kept.keeper->orphans(Orphans::report, kNow, never);
    REQUIRE(report);
    CHECK(of_kind(*report, rpc::Orphan::ROW).size() == 2);
    CHECK(kept.state(kept.third) == CheckpointState::complete);
    REQUIRE(kept.keeper->orphans(Orphans::remove, kNow, never));
    CHECK(kept.state(kept.first) == CheckpointState::complete);
    CHECK(kept.state(kept.second) == CheckpointState::bad);
    CHECK(kept.state(kept.third) == CheckpointState::bad);
    CHECK(kept.store.quarantined.size() == 2);

    kept.store.files.clear();  // as when the file system is not mounted
    const auto refused = kept.keeper->orphans(Orphans::remove, kNow, never);
    REQUIRE(!refused);
    CHECK_THAT(refused.error().text, ContainsSubstring("mounted"));
    CHECK(kept.state(kept.first) == CheckpointState::complete);
}

TEST_CASE("a check tells every fault, and with repair puts aside what is bad", "[store_keeper]") {
    Busy kept;
    kept.store.faults[manifest_name(kept.first)] = "chunk 3 does not match its hash";
    kept.store.faults[manifest_name(kept.second)] = "it is being removed";
    kept.store.before = [&](const rpc::StoreOrder& order) {  // removed while it is read: no fault
        if (order.has_check()) static_cast<void>(kept.catalogue.remove_checkpoint(kept.second.id, kNow));
    };
    rpc::CheckRequest request;
    request.set_repair(true);
    std::vector<std::string> faults;
    rpc::CheckProgress last;
    REQUIRE(kept.keeper->check(
        request, kNow,
        [&](const rpc::CheckProgress& progress) {
            last = progress;
            faults.insert(faults.end(), progress.faults().begin(), progress.faults().end());
        },
        never));
    CHECK(last.done());
    CHECK(last.checked() == 3);
    CHECK(faults == std::vector<std::string>{"chunk 3 does not match its hash"});
    CHECK(kept.state(kept.first) == CheckpointState::bad);
    CHECK(kept.state(kept.third) == CheckpointState::complete);
    CHECK(kept.store.quarantined == std::vector<std::string>{manifest_name(kept.first)});
}

TEST_CASE("a new catalogue takes in what is whole in the store, before anything is removed", "[store_keeper]") {
    Busy kept;
    const CheckpointRow partial = kept.make(kept.job);
    kept.store.files.erase(pack_name(partial));
    kept.store.files["job-12-1/ckpt-7-batch-00dd.manifest"] = 5;
    kept.catalogue = test::open_catalogue();
    REQUIRE(kept.catalogue.needs_rebuild());
    CHECK(kept.keeper->orphans(Orphans::remove, kNow, never).error().code == Errc::busy);
    CHECK(kept.keeper->clean({}, kNow, {}, never).error().code == Errc::busy);

    kept.store.fail_at = kept.store.orders + 1;
    CHECK_FALSE(kept.keeper->round(true, kNow));
    CHECK(kept.catalogue.needs_rebuild());
    CHECK(kept.store.removed.empty());

    rpc::RebuildProgress last;
    REQUIRE(kept.keeper->rebuild([&](const rpc::RebuildProgress& progress) { last = progress; }, never));
    CHECK(last.found() == 5);
    CHECK(last.imported() == 3);
    CHECK(last.unusable() == 2);
    CHECK_FALSE(kept.catalogue.needs_rebuild());
    const auto job = kept.catalogue.newest_job(12);
    REQUIRE((job && *job));
    const auto newest = kept.catalogue.newest_complete((*job)->id);
    REQUIRE((newest && *newest));
    CHECK((*newest)->id == kept.third.id);
    CHECK(image_of(kept.catalogue, kept.third.id).digest == stored(kept.third).digest);
    REQUIRE(kept.keeper->rebuild({}, never));  // again: nothing is taken in twice
    CHECK(kept.catalogue.checkpoints((*job)->id)->size() == 3);
}

TEST_CASE("a new catalogue takes in checkpoints with all of their images, and no others", "[store_keeper]") {
    Kept kept;
    const RowId job = add_job(kept.catalogue);
    const std::vector<std::string> tasks{"0.0", "0.1", "batch"};
    const CheckpointRow whole = kept.make_tasks(job, tasks);
    const CheckpointRow no_manifest = kept.make_tasks(job, tasks), no_pack = kept.make_tasks(job, tasks), no_leader = kept.make_tasks(job, tasks);
    kept.store.files.erase(manifest_name(no_manifest, "0.1"));
    kept.store.files.erase(pack_name(no_pack, "0.0"));
    kept.store.files.erase(manifest_name(no_leader, "batch"));
    kept.store.put(kept.catalogue, whole, {.manifest = manifest_name(whole, "0.0") + ".again.manifest", .digest = "again", .plain_bytes = 1}, "0.0",
                   3);  // of a rewriting that was cut off
    kept.catalogue = test::open_catalogue();
    rpc::RebuildProgress last;
    REQUIRE(kept.keeper->rebuild([&](const rpc::RebuildProgress& progress) { last = progress; }, never));
    CHECK(last.found() == 3 + 1 + 2 + 3 + 2);
    CHECK(last.imported() == 3);
    CHECK(last.unusable() == 2 + 3 + 2);
    const auto rows = *kept.catalogue.checkpoints(job);
    REQUIRE(rows.size() == 1);
    CHECK(rows[0].id == whole.id);
    CHECK(rows[0].state == CheckpointState::complete);
    CHECK(kept.catalogue.images(whole.id)->size() == 3);
    REQUIRE(kept.keeper->rebuild([&](const rpc::RebuildProgress& progress) { last = progress; }, never));
    CHECK(last.imported() == 0);
}

TEST_CASE("a rebuild that the catalogue's disk ends is none", "[store_keeper]") {
    Busy kept;
    const std::string path = kept.directory / "full.sqlite";
    kept.catalogue = test::open_catalogue(path);
    Sql other(path);
    other.run("BEGIN IMMEDIATE");
    CHECK(kept.keeper->rebuild({}, never).error().code == Errc::busy);
    other.run("ROLLBACK");
    CHECK(kept.catalogue.needs_rebuild());
    REQUIRE(kept.keeper->rebuild({}, never));
    CHECK(kept.state(kept.third) == CheckpointState::complete);
}

TEST_CASE("images of a checkpoint that the catalogue has lost stay; those of one that is not whole for a day", "[store_keeper]") {
    Kept kept;
    const RowId job = add_job(kept.catalogue);
    const CheckpointRow known = kept.make_tasks(job, {"0.0", "batch"});
    CheckpointRow whole = known, partial = known;  // rows that this catalogue never gave
    whole.id = 4000;
    whole.number = 40;
    partial.id = 4001;
    partial.number = 41;
    for (const char* task : {"0.0", "batch"}) {
        kept.store.put(kept.catalogue, whole, stored_as(whole, task), task, 2);
        kept.store.put(kept.catalogue, partial, stored_as(partial, task), task, 3);
    }
    kept.store.modified[manifest_name(partial, "0.0")] = kNow - 100'000;
    kept.store.modified[manifest_name(partial, "batch")] = kNow;  // another may be on its way still
    REQUIRE(kept.keeper->orphans(Orphans::remove, kNow + 86'399, never));
    CHECK(kept.store.removed.empty());
    const auto report = kept.keeper->orphans(Orphans::report, kNow + 86'399, never);
    REQUIRE(report);
    const auto images = of_kind(*report, rpc::Orphan::IMAGE);
    REQUIRE(images.size() == 2);  // one line for each checkpoint
    CHECK_THAT(images[0].what(), ContainsSubstring("and 1 more of job 12"));
    CHECK_THAT(images[0].done(), ContainsSubstring("rebuild-catalogue"));
    CHECK(images[0].bytes() == 2020);
    CHECK_THAT(images[1].done(), ContainsSubstring("missing"));

    REQUIRE(kept.keeper->orphans(Orphans::remove, kNow + 86'400, never));
    CHECK(kept.store.removed.size() == 4);
    for (const char* task : {"0.0", "batch"}) {
        CHECK(kept.store.has(stored_as(whole, task)));
        CHECK_FALSE(kept.store.files.contains(manifest_name(partial, task)));
        CHECK_FALSE(kept.store.files.contains(pack_name(partial, task)));
    }
    CHECK(kept.all_named_are_there());
}

TEST_CASE("what is left of a checkpoint of several images that was dropped goes at once", "[store_keeper]") {
    Kept kept;
    const RowId job = add_job(kept.catalogue);
    const CheckpointRow row = begin(kept.catalogue, job);
    REQUIRE(kept.catalogue.captured(row.id, {{"0.0", "n1", 1, {}}, {"batch", "n1", 1, {}}}, {}));
    kept.store.put(kept.catalogue, row, stored(row), "batch", 2);
    kept.store.modified[manifest_name(row)] = kNow;
    REQUIRE(kept.keeper->orphans(Orphans::remove, kNow, never));
    CHECK(kept.store.has(stored(row)));  // its drain is under way
    REQUIRE(kept.catalogue.failed(row.id, "a node was lost"));
    REQUIRE(kept.keeper->orphans(Orphans::remove, kNow, never));
    CHECK(kept.in_store().empty());
}

TEST_CASE("packs are rewritten task by task", "[store_keeper]") {
    constexpr std::uint64_t kMiB = 1u << 20;
    Kept kept;
    kept.config.retention.keep = 1;
    kept.restart();
    const RowId job = add_job(kept.catalogue);
    const std::vector<std::string> tasks{"0.0", "0.1", "batch"};
    const auto sized = [&](const CheckpointRow& row, const std::string& task, const CheckpointRow* base) {
        StoredImage image = stored_as(row, task);
        if (base == nullptr && task != "batch") image.packs[0].bytes = image.packs[0].used = 8 * kMiB;
        if (base != nullptr && task != "batch") image.packs.push_back({pack_name(*base, task), 8 * kMiB, 1000});
        return image;
    };
    const auto make = [&](const CheckpointRow* base) {
        const CheckpointRow row = begin(kept.catalogue, job);
        std::vector<CapturedImage> dumped;
        std::vector<StoredTask> images;
        for (const std::string& task : tasks) {
            dumped.push_back({task, "n1", 1, {}});
            images.push_back({task, sized(row, task, base), 1});
            kept.store.put(kept.catalogue, row, images.back().image, task, 3);
        }
        REQUIRE(kept.catalogue.captured(row.id, dumped, {}));
        REQUIRE(kept.catalogue.complete(row.id, images, 1));
        return row;
    };
    const CheckpointRow first = make(nullptr), second = make(&first);
    std::vector<std::string> rewritten;
    kept.store.before = [&](const rpc::StoreOrder& order) {
        if (!order.has_compact()) return;
        for (const rpc::ManifestRef& manifest : order.compact().manifests()) rewritten.push_back(manifest.task());
        CHECK(order.compact().rewrite_size() == 1);
        CHECK(order.compact().rewrite(0) == pack_name(first, rewritten.back()));
    };
    REQUIRE(kept.keeper->round(true, kNow));
    CHECK(rewritten == std::vector<std::string>{"0.0", "0.1"});
    CHECK(kept.named() == kept.in_store());
    CHECK(image_of(kept.catalogue, second.id).digest == stored(second).digest);
    CHECK_FALSE(kept.store.files.contains(pack_name(first, "0.1")));
}

TEST_CASE("a checkpoint is bad with the first image of it that is, and all of its manifests are put aside", "[store_keeper]") {
    Kept kept;
    const RowId job = add_job(kept.catalogue);
    const CheckpointRow row = kept.make_tasks(job, {"0.0", "0.1", "batch"}), other = kept.make_tasks(job, {"0.0", "batch"});
    kept.store.faults[manifest_name(row, "0.0")] = "chunk 3 does not match its hash";
    kept.store.faults[manifest_name(row, "0.1")] = "chunk 4 does not match its hash";
    rpc::CheckRequest request;
    const bool repair = GENERATE(false, true);
    request.set_repair(repair);
    std::vector<std::string> faults;
    rpc::CheckProgress last;
    REQUIRE(kept.keeper->check(
        request, kNow,
        [&](const rpc::CheckProgress& progress) {
            last = progress;
            faults.insert(faults.end(), progress.faults().begin(), progress.faults().end());
        },
        never));
    CHECK(last.total() == 5);
    CHECK(last.checked() == 5);
    CHECK(last.bytes() == 5 * 5000);
    CHECK(faults.size() == (repair ? 1 : 2));
    CHECK(kept.state(row) == (repair ? CheckpointState::bad : CheckpointState::complete));
    CHECK(kept.state(other) == CheckpointState::complete);
    if (repair)
        CHECK(kept.store.quarantined == std::vector{manifest_name(row, "0.0"), manifest_name(row, "0.1"), manifest_name(row, "batch")});
}

TEST_CASE("a file that cannot be read holds up no rebuild, and is not forgotten", "[store_keeper]") {
    Busy kept;
    const std::string away = manifest_name(kept.third);
    kept.catalogue = test::open_catalogue();
    SECTION("by no node") {
        kept.store.unreadable[away] = 1000;
        rpc::RebuildProgress last;
        REQUIRE(kept.keeper->rebuild([&](const rpc::RebuildProgress& progress) { last = progress; }, never));
        CHECK(last.found() == 3);
        CHECK(last.imported() == 2);
        CHECK(last.unusable() == 1);
        CHECK_FALSE(kept.catalogue.needs_rebuild());
        CHECK((*kept.catalogue.newest_complete((*kept.catalogue.newest_job(12))->id))->id == kept.second.id);
        CHECK(kept.catalogue.unreadable_of(12)->value().path == away);  // such a job does not begin from the beginning
        CHECK_FALSE(kept.catalogue.unreadable_of(13)->has_value());

        kept.store.files.erase("job-12-1/ckpt-9-batch-00cc.pack");
        kept.store.files[directory_of(away) + "/ckpt-9-batch-00dd.pack"] = 5;  // it may be the one that it needs
        const auto found = kept.keeper->orphans(Orphans::remove, kNow, never);
        REQUIRE(found);
        CHECK(of_kind(*found, rpc::Orphan::FILE).empty());
        CHECK(of_kind(*found, rpc::Orphan::IMAGE).size() == 1);
        CHECK(kept.store.removed.empty());

        kept.store.unreadable.clear();
        REQUIRE(kept.keeper->rebuild({}, never));
        CHECK(kept.state(kept.third) == CheckpointState::complete);
        CHECK_FALSE(kept.catalogue.unreadable_of(12)->has_value());
    }
    SECTION("by one node") {
        kept.store.unreadable[away] = 1;
        REQUIRE(kept.keeper->rebuild({}, never));
        CHECK(kept.state(kept.third) == CheckpointState::complete);
        CHECK_FALSE(kept.catalogue.unreadable_of(12)->has_value());
    }
}

TEST_CASE("what one node finds bad is looked at by another one before it is marked", "[store_keeper]") {
    Busy kept;
    const auto events = [&] { return *kept.catalogue.events(kept.job); };
    SECTION("a restore that could not verify it: the node is bad") {
        kept.store.bad_node = "n1";
        kept.keeper->doubt(kept.third.id, "batch", "", "n1", "it is read wrongly here");
        CHECK(kept.keeper->doubts(kept.job));
        kept.keeper->settle_doubts(kNow);
        CHECK_FALSE(kept.keeper->doubts(kept.job));
        CHECK(kept.state(kept.third) == CheckpointState::complete);
        REQUIRE(events().size() == 1);
        CHECK_THAT(events()[0].text, ContainsSubstring("look at n1"));
    }
    SECTION("the image is bad") {
        kept.store.faults[manifest_name(kept.third)] = "chunk 3 does not match its hash";
        kept.keeper->doubt(kept.third.id, "batch", "", "n2", "what n2 said");
        kept.keeper->settle_doubts(kNow);
        CHECK(kept.state(kept.third) == CheckpointState::bad);
        CHECK(row_of(kept.catalogue, kept.third.id).reason == "what n2 said");
        REQUIRE(kept.keeper->round(false, kNow));
        CHECK(kept.store.quarantined == std::vector<std::string>{manifest_name(kept.third)});
    }
    SECTION("no other node can tell: the one is believed") {
        kept.store.fail_at = 1;
        kept.keeper->doubt(kept.third.id, "batch", "", "n1", "what n1 said");
        kept.keeper->settle_doubts(kNow);
        CHECK(kept.state(kept.third) == CheckpointState::bad);
    }
    SECTION("it was rewritten since") {
        kept.keeper->doubt(kept.third.id, "batch", "another digest", "n1", "what n1 said");
        CHECK_FALSE(kept.keeper->doubts(kept.job));
    }
    SECTION("a check with repair, on a bad node") {
        kept.store.bad_node = "n1";
        rpc::CheckRequest request;
        request.set_repair(true);
        std::vector<std::string> repaired;
        const auto tell = [&](const rpc::CheckProgress& progress) {
            if (!progress.faults().empty()) repaired.push_back(progress.repaired());
        };
        REQUIRE(kept.keeper->check(request, kNow, tell, never));
        REQUIRE(repaired.size() == 3);
        for (const std::string& text : repaired) CHECK_THAT(text, ContainsSubstring("another node than n1 finds it whole"));
        for (const CheckpointRow& row : {kept.first, kept.second, kept.third}) CHECK(kept.state(row) == CheckpointState::complete);
    }
}

TEST_CASE("each order says in which store it is meant", "[store_keeper]") {
    Busy kept;
    REQUIRE(kept.catalogue.set_store_id("this one"));
    std::size_t orders = 0;
    kept.store.before = [&](const rpc::StoreOrder& order) {
        CHECK(order.store_id() == "this one");
        ++orders;
    };
    REQUIRE(kept.keeper->round(true, kNow));
    CHECK(orders >= 2);
}

TEST_CASE("one scan runs at a time, and a report does not wait for it", "[store_keeper]") {
    Busy kept;
    std::mutex mutex;
    std::condition_variable changed;
    int scans = 0;
    bool go_on = false;
    kept.store.before = [&](const rpc::StoreOrder& order) {
        if (!order.has_scan()) return;
        std::unique_lock lock(mutex);
        ++scans;
        changed.notify_all();
        changed.wait_for(lock, std::chrono::seconds(60), [&] { return go_on; });
    };
    std::jthread orphans([&] { CHECK(kept.keeper->orphans(Orphans::report, kNow, never)); });
    {
        std::unique_lock lock(mutex);
        REQUIRE(changed.wait_for(lock, std::chrono::seconds(20), [&] { return scans == 1; }));
    }
    const auto report = kept.keeper->report({}, kNow, [] { return true; });
    CHECK(report.has_value());  // with the figures of before
    const std::lock_guard lock(mutex);
    CHECK(scans == 1);
    go_on = true;
    changed.notify_all();
}

TEST_CASE("a check goes on past what cannot be read, and marks nothing bad for that", "[store_keeper]") {
    Busy kept;
    kept.store.unreadable[manifest_name(kept.first)] = 1000;
    kept.store.faults[manifest_name(kept.second)] = "chunk 3 does not match its hash";
    rpc::CheckRequest request;
    request.set_repair(true);
    std::vector<std::string> unreadable;
    std::uint32_t checked = 0;
    REQUIRE(kept.keeper->check(
        request, kNow,
        [&](const rpc::CheckProgress& progress) {
            checked = progress.checked();
            if (!progress.unreadable().empty()) unreadable.push_back(progress.unreadable());
        },
        never));
    CHECK(checked == 3);
    CHECK(unreadable == std::vector<std::string>{"input/output error"});
    CHECK(kept.state(kept.first) == CheckpointState::complete);
    CHECK(kept.state(kept.second) == CheckpointState::bad);
    CHECK(kept.state(kept.third) == CheckpointState::complete);
}

TEST_CASE("a catalogue that cannot take an image in is not called rebuilt", "[store_keeper]") {
    bool failed = true;
    for (std::uint64_t at = 1; failed; ++at) {
        INFO("write " << at);
        FaultyDatabase faults;
        Busy kept;
        kept.catalogue = test::open_catalogue(kept.directory / "new.sqlite");
        faults.set({.calls = FaultyDatabase::kWrite, .at = at, .full = true});
        const auto full = kept.keeper->rebuild({}, never);
        failed = faults.count() >= at;
        CHECK(full.has_value() == !failed);
        CHECK(kept.catalogue.needs_rebuild() == failed);
        if (failed) REQUIRE(kept.keeper->rebuild({}, never));
        CHECK_FALSE(kept.catalogue.needs_rebuild());
        CHECK(kept.catalogue.checkpoints_in(CheckpointState::complete)->size() == 3);
    }
}

TEST_CASE("the catalogue is copied to the store, and its copy goes when that is done", "[store_keeper]") {
    Busy kept;
    kept.config.retention.backup_interval_seconds = 60;
    kept.restart();
    std::string name;
    std::uint64_t bytes = 0;
    kept.store.before = [&](const rpc::StoreOrder& order) {
        if (!order.has_backup()) return;
        name = order.backup().name();
        const auto file = kept.keeper->open_backup();
        REQUIRE(file);
        bytes = read_all(file->get(), "backup")->size();
    };
    REQUIRE(kept.keeper->round(true, kNow));
    CHECK(name == "catalogue-19700112T134640Z.sqlite");
    CHECK(bytes > 0);
    CHECK_FALSE(kept.keeper->open_backup());
    name.clear();
    REQUIRE(kept.keeper->round(true, kNow + 59));
    CHECK(name.empty());
    REQUIRE(kept.keeper->round(true, kNow + 60));
    CHECK_FALSE(name.empty());
}

TEST_CASE("a damaged catalogue is put aside and a new one begun", "[catalogue_file]") {
    const TempDir directory;
    const std::string path = directory / "catalogue.sqlite";
    const auto first = sckpt::open_catalogue(path, 5);
    REQUIRE(first);
    CHECK(first->note.empty());
    const TempDir other;
    const std::string damaged = other / "catalogue.sqlite";
    write_text(damaged, noise(8192, 1));
    const auto second = sckpt::open_catalogue(damaged, 77);
    REQUIRE(second);
    CHECK_THAT(second->note, ContainsSubstring("damaged-77"));
    CHECK(second->catalogue.needs_rebuild());
    CHECK(read_text(damaged + ".damaged-77") == noise(8192, 1));
}
