// SPDX-License-Identifier: GPL-3.0-or-later
//
// The keeper of the store: a catalogue that was lost is made again from the store, and copied there.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "daemon/catalogue_file.h"
#include "image_store/faulty_database.h"
#include "tests/unit/store_keeper_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using Catch::Matchers::ContainsSubstring;
using Orphans = StoreKeeper::Orphans;

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
