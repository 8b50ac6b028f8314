// SPDX-License-Identifier: GPL-3.0-or-later
//
// The keeper of the store: packs are rewritten, whoever reads them, finds them bad or is killed meanwhile.
#include <utility>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "tests/unit/store_keeper_tools.h"

using namespace sckpt;
using namespace sckpt::test;

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
