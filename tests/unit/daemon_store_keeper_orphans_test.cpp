// SPDX-License-Identifier: GPL-3.0-or-later
//
// The keeper of the store: files and rows that do not belong together.
#include <condition_variable>
#include <mutex>
#include <thread>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "tests/unit/store_keeper_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using Catch::Matchers::ContainsSubstring;
using Orphans = StoreKeeper::Orphans;

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
