// SPDX-License-Identifier: GPL-3.0-or-later
//
// The keeper of the store: what it removes, what it never removes, and that it may be killed at every step.
#include <algorithm>
#include <format>
#include <utility>

#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "tests/unit/store_keeper_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using Catch::Matchers::ContainsSubstring;

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
