// SPDX-License-Identifier: GPL-3.0-or-later
//
// Retention: each rule, their combinations, and that whatever comes in, nothing is planned that the catalogue refuses.
#include "image_store/retention.h"

#include <algorithm>
#include <random>

#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "tests/unit/catalogue_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using Catch::Matchers::ContainsSubstring;
using State = CheckpointState;
using Ids = std::vector<RowId>;

namespace {

constexpr std::int64_t kNow = 1'000'000, kHour = 3600;
constexpr RetentionRules kKeepAll{.keep = 100, .keep_success_seconds = 1LL << 40, .keep_failed_seconds = 1LL << 40};

JobRow job(RowId id, JobOutcome outcome = JobOutcome::live, std::int64_t ended_ago = 0, const char* user = "carol") {
    return {.id = id, .job_id = static_cast<std::uint32_t>(id), .uid = 1000, .user = user, .account = std::string("of ") + user,
            .outcome = outcome, .ended = outcome == JobOutcome::live ? 0 : kNow - ended_ago};
}

KeptCheckpoint kept(RowId id, const JobRow& of, std::int64_t age = 0, std::uint64_t freed = 100) {
    return {.row = {.id = id,
                    .job = of.id,
                    .number = static_cast<std::uint32_t>(id),
                    .state = State::complete,
                    .created = kNow - age - 10,
                    .completed = kNow - age},
            .job = of,
            .freed = freed};
}

KeptCheckpoint newest(KeptCheckpoint each) {
    each.newest_complete = true;
    return each;
}

KeptCheckpoint in_state(State state, KeptCheckpoint each) {
    each.row.state = state;
    if (state == State::failed) each.row.completed = 0;
    return each;
}

Ids removed(const RetentionPlan& plan) {
    Ids ids;
    for (const Removal& removal : plan.removals) ids.push_back(removal.checkpoint);
    return ids;
}

Ids removed(const std::vector<KeptCheckpoint>& all, const RetentionRules& rules) {
    return removed(plan_retention(all, rules, kNow));
}

RetentionRules with(auto RetentionRules::*member, std::int64_t value) {
    RetentionRules rules = kKeepAll;
    rules.*member = static_cast<std::remove_reference_t<decltype(rules.*member)>>(value);
    return rules;
}

}  // namespace

TEST_CASE("what a live job has passed goes when it is not pinned, and does not count", "[retention]") {
    const JobRow live = job(1);
    KeptCheckpoint passed = kept(3, live);
    passed.row.passed = true;
    passed.row.reason = "the job went on from checkpoint 2";
    RetentionRules rules = kKeepAll;
    rules.keep = 2;
    const auto plan = plan_retention({kept(1, live), newest(kept(2, live)), passed}, rules, kNow);
    CHECK(removed(plan) == Ids{3});
    CHECK_THAT(plan.removals[0].why, ContainsSubstring("went on from checkpoint 2"));
    passed.row.pinned = true;
    CHECK(removed({kept(1, live), newest(kept(2, live)), passed}, rules).empty());
}

TEST_CASE("nothing kept, nothing planned", "[retention]") {
    const RetentionPlan plan = plan_retention({}, {.max_bytes = 1}, kNow);
    CHECK(plan.removals.empty());
    CHECK(plan.over.empty());
    CHECK(plan.total.checkpoints == 0);
}

TEST_CASE("a live job keeps its newest complete checkpoints", "[retention]") {
    const std::vector all{kept(1, job(7)), kept(2, job(7)), kept(3, job(7)), newest(kept(4, job(7))), newest(kept(5, job(8)))};
    CHECK(removed(all, with(&RetentionRules::keep, 2)) == Ids{1, 2});
    CHECK(removed(all, with(&RetentionRules::keep, 1)) == Ids{1, 2, 3});
    CHECK(removed(all, with(&RetentionRules::keep, 0)) == Ids{1, 2, 3});  // never the newest
    CHECK(removed(all, with(&RetentionRules::keep, 4)).empty());
    const auto plan = plan_retention(all, with(&RetentionRules::keep, 2), kNow);
    CHECK(plan.removals[0].why == "job 7 has 3 newer complete ones (retention.keep)");
    CHECK(plan.removals[0].freed == 100);
    auto shuffled = all;
    std::ranges::reverse(shuffled);
    CHECK(removed(shuffled, with(&RetentionRules::keep, 2)) == Ids{1, 2});
}

TEST_CASE("checkpoints of a step alone and those of the job do not count for each other", "[retention]") {
    const auto alone = [](KeptCheckpoint each) {
        each.row.step = "0";
        return each;
    };
    const std::vector all{kept(1, job(7)), newest(kept(2, job(7))), alone(kept(3, job(7))), alone(kept(4, job(7))),
                          in_state(State::failed, kept(5, job(7))), newest(alone(kept(6, job(7))))};
    CHECK(removed(all, with(&RetentionRules::keep, 1)) == Ids{1, 3, 4});  // the failed one is newer than the job's newest
    CHECK(removed(all, with(&RetentionRules::keep, 2)) == Ids{3});
}

TEST_CASE("pinned and used ones stay, and count", "[retention]") {
    std::vector all{kept(1, job(7)), kept(2, job(7)), kept(3, job(7)), newest(kept(4, job(7)))};
    SECTION("pinned") { all[0].row.pinned = true; }
    SECTION("in use") { all[0].in_use = true; }
    CHECK(removed(all, with(&RetentionRules::keep, 2)) == Ids{2});
    for (auto& each : all) each.job = job(7, JobOutcome::succeeded, kHour);
    CHECK(removed(all, with(&RetentionRules::keep_success_seconds, 0)) == Ids{2, 3, 4});
    CHECK(removed(all, with(&RetentionRules::max_bytes, 1)) == Ids{2, 3, 4});
}

TEST_CASE("an ended job's checkpoints go when the time of its outcome is over, all of them", "[retention]") {
    const auto [outcome, member, key] = GENERATE(table<JobOutcome, std::int64_t RetentionRules::*, const char*>(
        {{JobOutcome::succeeded, &RetentionRules::keep_success_seconds, "keep_success"},
         {JobOutcome::cancelled, &RetentionRules::keep_success_seconds, "keep_success"},
         {JobOutcome::failed, &RetentionRules::keep_failed_seconds, "keep_failed"},
         {JobOutcome::unknown, &RetentionRules::keep_failed_seconds, "keep_failed"}}));
    const JobRow of = job(7, outcome, 2 * kHour);
    const std::vector all{kept(1, of), in_state(State::bad, kept(2, of)), in_state(State::failed, kept(3, of)),
                          newest(kept(4, of)), newest(kept(5, job(8)))};
    CHECK(removed(all, with(member, 2 * kHour + 1)).empty());
    CHECK(removed(all, with(member, 2 * kHour)) == Ids{1, 2, 3, 4});
    CHECK(removed(all, with(member, 0)) == Ids{1, 2, 3, 4});
    CHECK(removed(all, with(&RetentionRules::keep, 1)).empty());  // that is for live jobs
    CHECK_THAT(plan_retention(all, with(member, 0), kNow).removals[0].why,
               ContainsSubstring("job 7 ") && ContainsSubstring("2h ago") && ContainsSubstring(std::string("retention.") + key));
}

TEST_CASE("old ones go, but the newest of a live job does not", "[retention]") {
    const JobRow ended = job(8, JobOutcome::failed, kHour);
    const std::vector all{kept(1, job(7), 4 * kHour), newest(kept(2, job(7), 3 * kHour)), kept(3, ended, 3 * kHour),
                          newest(kept(4, ended, 2 * kHour))};
    CHECK(removed(all, with(&RetentionRules::max_age_seconds, 2 * kHour)) == Ids{1, 3});
    CHECK(removed(all, with(&RetentionRules::max_age_seconds, 0)).empty());
    CHECK_THAT(plan_retention(all, with(&RetentionRules::max_age_seconds, 2 * kHour), kNow).removals[0].why,
               ContainsSubstring("4h old (retention.max_age)"));
}

TEST_CASE("failed and bad ones of a live job go once a newer one is complete, and never pile up", "[retention]") {
    std::vector all{in_state(State::failed, kept(1, job(7))), in_state(State::bad, kept(2, job(7))), newest(kept(3, job(7))),
                    in_state(State::failed, kept(4, job(7))), in_state(State::bad, kept(5, job(7)))};
    CHECK(removed(all, kKeepAll) == Ids{1, 2});
    all.clear();
    for (RowId id = 1; id <= 12; ++id) all.push_back(in_state(State::failed, kept(id, job(7))));
    CHECK(removed(all, kKeepAll) == Ids{1, 2});
}

TEST_CASE("a limit of space takes the oldest first, ended jobs before live ones, and no more than needed", "[retention]") {
    const JobRow ended = job(9, JobOutcome::failed, kHour);
    const std::vector all{kept(1, job(7), 50), newest(kept(2, job(7), 10)), kept(3, job(8), 60), newest(kept(4, job(8), 20)),
                          kept(5, ended, 40), newest(kept(6, ended, 30))};
    CHECK(removed(all, with(&RetentionRules::max_bytes, 600)).empty());
    CHECK(removed(all, with(&RetentionRules::max_bytes, 599)) == Ids{5});
    CHECK(removed(all, with(&RetentionRules::max_bytes, 400)) == Ids{5, 6});
    CHECK(removed(all, with(&RetentionRules::max_bytes, 350)) == Ids{5, 6, 3});
    const auto plan = plan_retention(all, with(&RetentionRules::max_bytes, 150), kNow);
    CHECK(removed(plan) == Ids{5, 6, 3, 1});
    REQUIRE(plan.over.size() == 1);
    CHECK_THAT(plan.over[0], ContainsSubstring("the store: 200 B of 150 B even then"));
    CHECK(plan.total.bytes == 600);  // as it is now
    CHECK(plan.removals[0].why == "the store has 600 B of 150 B (retention.max_size)");
}

TEST_CASE("quotas take from whom they are exceeded by", "[retention]") {
    std::vector all{kept(1, job(7), 50), newest(kept(2, job(7), 40)),
                    kept(3, job(8, JobOutcome::live, 0, "dave"), 60), newest(kept(4, job(8, JobOutcome::live, 0, "dave"), 20)),
                    newest(kept(5, job(9, JobOutcome::live, 0, "dave"), 70))};
    SECTION("users") {
        const auto plan = plan_retention(all, with(&RetentionRules::user_bytes, 200), kNow);
        CHECK(removed(plan) == Ids{3});
        CHECK(plan.removals[0].why == "user dave has 300 B of 200 B (retention.user_quota)");
        CHECK(plan.users.at("dave").bytes == 300);
        CHECK(plan.users.at("dave").checkpoints == 3);
        CHECK(plan.over.empty());
    }
    SECTION("users, and it does not suffice") {
        const auto plan = plan_retention(all, with(&RetentionRules::user_bytes, 150), kNow);
        CHECK(removed(plan) == Ids{1, 3});
        REQUIRE(plan.over.size() == 1);
        CHECK_THAT(plan.over[0], ContainsSubstring("user dave: 200 B of 150 B even then"));
    }
    SECTION("accounts") {
        CHECK(removed(all, with(&RetentionRules::account_bytes, 200)) == Ids{3});
        CHECK(plan_retention(all, kKeepAll, kNow).accounts.at("of carol").bytes == 200);
    }
    SECTION("a user without a name is a number") {
        for (auto& each : all) each.job.user = each.job.account = "";
        const auto plan = plan_retention(all, kKeepAll, kNow);
        CHECK(plan.users.at("uid 1000").bytes == 500);
        CHECK(plan.accounts.at("(none)").bytes == 500);
    }
}

TEST_CASE("what one rule takes counts for the others", "[retention]") {
    const JobRow ended = job(9, JobOutcome::succeeded, kHour);
    const std::vector all{kept(1, job(7), 50), kept(2, job(7), 40), newest(kept(3, job(7), 30)), newest(kept(4, ended, 20))};
    RetentionRules rules{.keep = 2, .keep_success_seconds = 0, .max_bytes = 200, .user_bytes = 200, .account_bytes = 200};
    CHECK(removed(all, rules) == Ids{1, 4});
    rules.max_bytes = 150;
    CHECK(removed(all, rules) == Ids{1, 4, 2});
    CHECK(plan_retention(all, rules, kNow).over.empty());
}

namespace {

// Random jobs with checkpoints in a real catalogue, each drain with chunks of its base.
class World {
   public:
    explicit World(unsigned seed) : random_(seed), catalogue_(open_catalogue()) {
        for (std::uint32_t id = 1; id <= 6; ++id) add(id);
    }
    Catalogue& catalogue() { return catalogue_; }
    std::uint64_t below(std::uint64_t limit) { return random_() % limit; }

    RetentionRules rules() {
        const auto maybe = [&](std::uint64_t value) { return below(2) == 0 ? 0 : value; };
        return {.keep = static_cast<std::int64_t>(below(4)),
                .keep_success_seconds = static_cast<std::int64_t>(below(2000)),
                .keep_failed_seconds = static_cast<std::int64_t>(below(2000)),
                .max_age_seconds = static_cast<std::int64_t>(maybe(below(2000))),
                .max_bytes = maybe(below(40'000)),
                .user_bytes = maybe(below(20'000)),
                .account_bytes = maybe(below(30'000))};
    }

   private:
    void add(std::uint32_t id) {
        const RowId row = add_job(catalogue_, id, below(2) == 0 ? "carol" : "dave");
        for (std::uint64_t i = below(9); i > 0; --i) add_checkpoint(row);
        if (below(2) == 0) REQUIRE(catalogue_.set_job_ended(row, static_cast<JobOutcome>(1 + below(4)), kNow - time(2000)));
    }
    std::int64_t time(std::uint64_t limit) { return static_cast<std::int64_t>(below(limit)); }

    void add_checkpoint(RowId job_row) {
        const CheckpointRow row = *catalogue_.begin_checkpoint(job_row, false, 100, below(5) == 0 ? "0" : "");
        switch (below(8)) {
            case 0: REQUIRE(catalogue_.failed(row.id, "no")); return;
            case 1: return;  // a drain under way; its base is in use
            default: break;
        }
        std::vector<CapturedImage> dumped;
        std::vector<StoredTask> images;
        for (const char* task : {"batch", "0.0", "0.1"}) {
            if (below(2) == 0 && (!dumped.empty() || std::string(task) != "0.1")) continue;
            std::vector<std::string> of_base;
            if (row.base != 0 && *catalogue_.image(row.base, task)) of_base.push_back(pack_name(row_of(catalogue_, row.base), task));
            dumped.push_back({task, "n1", 10, {}});
            images.push_back({task, stored_as(row, task, of_base), 1});
        }
        REQUIRE(catalogue_.captured(row.id, dumped, {}));
        REQUIRE(catalogue_.complete(row.id, images, kNow - time(2000)));
        if (below(6) == 0) REQUIRE(catalogue_.bad(row.id, "no"));
        if (below(6) == 0) REQUIRE(catalogue_.set_pinned(row.id, true));
        if (below(6) == 0) REQUIRE(catalogue_.lease(row.id, kNow - 100 + time(200)));
    }

    std::mt19937 random_;
    Catalogue catalogue_;
};

std::uint64_t bytes_of(const std::vector<KeptCheckpoint>& all) {
    std::uint64_t bytes = 0;
    for (const KeptCheckpoint& each : all) bytes += each.freed;
    return bytes;
}

std::uint64_t garbage_bytes(const Catalogue& catalogue) {
    std::uint64_t bytes = 0;
    const auto garbage = *catalogue.garbage(100'000);
    for (const auto& file : garbage) bytes += file.bytes;
    return bytes;
}

}  // namespace

TEST_CASE("whatever there is, the catalogue carries out the whole plan, and soon there is nothing more to do", "[retention]") {
    for (unsigned seed = 0; seed < 200; ++seed) {
        INFO("seed " << seed);
        World world(seed);
        Catalogue& catalogue = world.catalogue();
        const RetentionRules rules = world.rules();
        std::vector<std::pair<RowId, RowId>> newest, newest_alone;  // of live jobs
        const auto live = *catalogue.jobs(false);
        for (const JobRow& each : live) {
            if (const auto row = *catalogue.newest_complete(each.id)) newest.emplace_back(each.id, row->id);
            if (const auto row = *catalogue.newest_complete_step(each.id, "0")) newest_alone.emplace_back(each.id, row->id);
        }
        const std::uint64_t at_first = bytes_of(*catalogue.kept(kNow));

        RetentionPlan plan = plan_retention(*catalogue.kept(kNow), rules, kNow);
        for (int round = 0; !plan.removals.empty(); ++round) {
            REQUIRE(round < 10);
            for (const Removal& removal : plan.removals) {
                INFO(removal.why);
                const auto done = catalogue.remove_checkpoint(removal.checkpoint, kNow);
                if (!done) FAIL(done.error().text);
                REQUIRE_FALSE(removal.why.empty());
            }
            const auto left = *catalogue.kept(kNow);
            REQUIRE(bytes_of(left) + garbage_bytes(catalogue) == at_first);
            plan = plan_retention(left, rules, kNow);
        }
        if (rules.max_bytes != 0 && plan.over.empty()) REQUIRE(plan.total.bytes <= rules.max_bytes);
        if (rules.user_bytes != 0 && plan.over.empty())
            for (const auto& [user, usage] : plan.users) REQUIRE(usage.bytes <= rules.user_bytes);
        for (const auto& [job_row, checkpoint] : newest) REQUIRE((*catalogue.newest_complete(job_row))->id == checkpoint);
        for (const auto& [job_row, checkpoint] : newest_alone) REQUIRE((*catalogue.newest_complete_step(job_row, "0"))->id == checkpoint);
    }
}
