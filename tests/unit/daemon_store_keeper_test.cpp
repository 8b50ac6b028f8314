// SPDX-License-Identifier: GPL-3.0-or-later
//
// The keeper of the store: what it removes, what it never removes, and that it may be killed at every step.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "daemon/catalogue_file.h"
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

TEST_CASE("packs with much dead space are rewritten, and a restore in between is not disturbed", "[store_keeper]") {
    constexpr std::uint64_t kMiB = 1u << 20;
    const bool leased = GENERATE(false, true);
    Kept kept;
    const RowId job = add_job(kept.catalogue);
    const CheckpointRow first = begin(kept.catalogue, job);
    StoredImage big = stored(first);
    big.packs[0].bytes = 8 * kMiB;
    big.packs[0].used = 8 * kMiB;
    complete(kept.catalogue, first, big);
    kept.store.put(kept.catalogue, first, big);
    const CheckpointRow second = begin(kept.catalogue, job);
    StoredImage small = stored(second);
    small.packs.push_back({pack_name(first), 8 * kMiB, 1000});
    complete(kept.catalogue, second, small);
    kept.store.put(kept.catalogue, second, small);
    kept.config.retention.keep = 1;
    kept.restart();
    kept.store.before = [&](const rpc::StoreOrder& order) {
        if (leased && order.has_compact()) REQUIRE(kept.catalogue.lease(second.id, kNow + 100));
    };
    static_cast<void>(kept.keeper->round(true, kNow));
    CHECK(kept.named() == kept.in_store());
    CHECK(kept.store.files.contains(pack_name(first)) == leased);
    CHECK(kept.store.has(small) == leased);
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
        if (order.has_scan() && kept.state(row) == CheckpointState::captured) REQUIRE(kept.catalogue.complete(row.id, stored(row), kNow));
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
    CHECK(kept.catalogue.image(kept.third.id).value()->digest == stored(kept.third).digest);
    REQUIRE(kept.keeper->rebuild({}, never));  // again: nothing is taken in twice
    CHECK(kept.catalogue.checkpoints((*job)->id)->size() == 3);
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
