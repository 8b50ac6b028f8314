// SPDX-License-Identifier: GPL-3.0-or-later
//
// The keeper of the store: what is found bad, by whom, and what then becomes of it.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "tests/unit/store_keeper_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using Catch::Matchers::ContainsSubstring;

namespace {

struct Told {
    rpc::CheckProgress last;
    std::vector<std::string> faults;  // of all that was told
};

Told check(StoreKeeper& keeper, const rpc::CheckRequest& request) {
    Told told;
    REQUIRE(keeper.check(
        request, kNow,
        [&](const rpc::CheckProgress& progress) {
            told.last = progress;
            told.faults.insert(told.faults.end(), progress.faults().begin(), progress.faults().end());
        },
        never));
    return told;
}

}  // namespace

TEST_CASE("a check tells every fault, and with repair puts aside what is bad", "[store_keeper]") {
    Busy kept;
    kept.store.faults[manifest_name(kept.first)] = "chunk 3 does not match its hash";
    kept.store.faults[manifest_name(kept.second)] = "it is being removed";
    kept.store.before = [&](const rpc::StoreOrder& order) {  // removed while it is read: no fault
        if (order.has_check()) static_cast<void>(kept.catalogue.remove_checkpoint(kept.second.id, kNow));
    };
    rpc::CheckRequest request;
    request.set_repair(true);
    const auto [last, faults] = check(*kept.keeper, request);
    CHECK(last.done());
    CHECK(last.checked() == 3);
    CHECK(faults == std::vector<std::string>{"chunk 3 does not match its hash"});
    CHECK(kept.state(kept.first) == CheckpointState::bad);
    CHECK(kept.state(kept.third) == CheckpointState::complete);
    CHECK(kept.store.quarantined == std::vector<std::string>{manifest_name(kept.first)});
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
    const auto [last, faults] = check(*kept.keeper, request);
    CHECK(last.total() == 5);
    CHECK(last.checked() == 5);
    CHECK(last.bytes() == 5 * 5000);
    CHECK(faults.size() == (repair ? 1 : 2));
    CHECK(kept.state(row) == (repair ? CheckpointState::bad : CheckpointState::complete));
    CHECK(kept.state(other) == CheckpointState::complete);
    if (repair)
        CHECK(kept.store.quarantined == std::vector{manifest_name(row, "0.0"), manifest_name(row, "0.1"), manifest_name(row, "batch")});
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
