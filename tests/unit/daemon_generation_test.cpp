// SPDX-License-Identifier: GPL-3.0-or-later
//
// A checkpoint under way: what each input leads to in each phase, for a job whose script runs on n1 with ranks 0.0 and 0.1, and whose rank
// 0.2 runs on n2; for a script without steps; for a step alone; and what nodes may not say.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <functional>
#include <map>
#include <sstream>

#include "daemon/generation.h"
#include "daemon/generation_limits.h"

using namespace sckpt;
using Catch::Matchers::ContainsSubstring;
using P = GenerationPhase;
using What = GenerationOrder::What;

namespace {

constexpr std::chrono::seconds kDumpTimeout{300};
const std::vector<LiveStep> kStep{{0, 3}};
const std::vector<StepRank> kRanks{{0, 0, "n1", {}}, {0, 1, "n1", {}}, {0, 2, "n2", {}}};

GenerationImage image(const std::string& task) { return {task, "", 100, 0, {}}; }
GenerationStored stored(const std::string& task) { return {task, {"job-1/" + task, "digest", 100, 10, {}}, 5}; }

std::string text(const GenerationOrder& order) {
    static const std::map<What, std::string> words{{What::hold_script, "hold"},   {What::ask_ranks, "ranks"}, {What::dump_tasks, "dump"},
                                                   {What::dump_script, "script"}, {What::capture, "capture"}, {What::release, "release"},
                                                   {What::complete, "complete"},  {What::stored, "stored"},   {What::fail, "fail"},
                                                   {What::drop, "drop"}};
    std::string text = words.at(order.what);
    if (!order.node.empty()) text += ":" + order.node;
    for (const std::string& task : order.tasks) text += "," + task;
    return text;
}

std::string text(const GenerationOrders& orders) {
    std::string all;
    for (const GenerationOrder& order : orders) all += (all.empty() ? "" : " ") + text(order);
    return all;
}

// The job's checkpoint in each of its phases, by inputs alone. `freezing` is with n1's tasks dumped and n2's not, `storing` with n2's part
// stored and n1's not: so that in both what is first, last and twice can be told apart.
Generation in_phase(P phase) {
    Generation generation = Generation::of_job("n1", kDumpTimeout);
    (void)generation.begin();
    if (phase == P::asked) return generation;
    (void)generation.steps_found("n1", kStep);
    if (phase == P::gathering) return generation;
    (void)generation.ranks_known(kRanks);
    if (phase == P::dropped) {
        (void)generation.cancelled("the job ended");
        return generation;
    }
    (void)generation.tasks_dumped("n1", {image("0.0"), image("0.1")}, {});
    if (phase == P::freezing) return generation;
    (void)generation.tasks_dumped("n2", {image("0.2")}, {});
    if (phase == P::scripting) return generation;
    (void)generation.script_dumped("n1", image("batch"));
    if (phase == P::capturing) return generation;
    (void)generation.captured();
    (void)generation.part_stored("n2", {stored("0.2")});
    if (phase == P::storing) return generation;
    (void)generation.part_stored("n1", {stored("0.0"), stored("0.1"), stored("batch")});
    if (phase == P::completing) return generation;
    (void)generation.completed();
    return generation;
}

using Feed = std::function<GenerationOrders(Generation&)>;
const std::map<std::string, Feed> kInputs{
    {"steps_found", [](Generation& g) { return g.steps_found("n1", kStep); }},
    {"steps_found_n9", [](Generation& g) { return g.steps_found("n9", kStep); }},
    {"some_ranks", [](Generation& g) { return g.ranks_known(std::span(kRanks).first(2)); }},
    {"all_ranks", [](Generation& g) { return g.ranks_known(kRanks); }},
    {"all_ranks_ended",
     [](Generation& g) {
         return g.ranks_known(std::vector<StepRank>{{0, 0, "n1", 0}, {0, 1, "n1", 256}, {0, 2, "n2", 9}});
     }},
    {"ranks_that_cannot_be",
     [](Generation& g) {
         return g.ranks_known(std::vector<StepRank>{{0, 3, "n2", {}}});
     }},
    {"tasks_dumped_n1",
     [](Generation& g) {
         return g.tasks_dumped("n1", {image("0.0"), image("0.1")}, {});
     }},
    {"tasks_dumped_n2", [](Generation& g) { return g.tasks_dumped("n2", {image("0.2")}, {}); }},
    {"other_tasks_dumped_n2", [](Generation& g) { return g.tasks_dumped("n2", {image("0.1")}, {}); }},
    {"tasks_dumped_n9", [](Generation& g) { return g.tasks_dumped("n9", {image("0.2")}, {}); }},
    {"script_dumped", [](Generation& g) { return g.script_dumped("n1", image("batch")); }},
    {"other_than_script_dumped", [](Generation& g) { return g.script_dumped("n1", image("0.0")); }},
    {"script_dumped_by_n2", [](Generation& g) { return g.script_dumped("n2", image("batch")); }},
    {"captured", [](Generation& g) { return g.captured(); }},
    {"capture_failed", [](Generation& g) { return g.capture_failed("disk full"); }},
    {"part_stored_n1",
     [](Generation& g) {
         return g.part_stored("n1", {stored("batch"), stored("0.0"), stored("0.1")});
     }},
    {"part_stored_n2", [](Generation& g) { return g.part_stored("n2", {stored("0.2")}); }},
    {"other_part_stored_n1",
     [](Generation& g) {
         return g.part_stored("n1", {stored("batch"), stored("0.0")});
     }},
    {"part_stored_n9", [](Generation& g) { return g.part_stored("n9", {stored("0.2")}); }},
    {"completed", [](Generation& g) { return g.completed(); }},
    {"complete_failed", [](Generation& g) { return g.complete_failed("disk full"); }},
    {"failed_n1", [](Generation& g) { return g.failed("n1", "no space"); }},
    {"failed_n2", [](Generation& g) { return g.failed("n2", "no space"); }},
    {"failed_n9", [](Generation& g) { return g.failed("n9", "no space"); }},
    {"detached_n1", [](Generation& g) { return g.detached("n1"); }},
    {"detached_n2", [](Generation& g) { return g.detached("n2"); }},
    {"detached_n9", [](Generation& g) { return g.detached("n9"); }},
    {"attached_with_n1", [](Generation& g) { return g.attached("n1", true); }},
    {"attached_with_n2", [](Generation& g) { return g.attached("n2", true); }},
    {"attached_with_n9", [](Generation& g) { return g.attached("n9", true); }},
    {"attached_without_n1", [](Generation& g) { return g.attached("n1", false); }},
    {"attached_without_n2", [](Generation& g) { return g.attached("n2", false); }},
    {"attached_without_n9", [](Generation& g) { return g.attached("n9", false); }},
    {"deadline", [](Generation& g) { return g.deadline(); }},
    {"cancelled", [](Generation& g) { return g.cancelled("the job ended"); }},
};

// .      nothing happens
// DROP   dropped: the catalogue is told, and every node with a part
// drop:n9, release:n1, stored:n1   this order, and no change of phase
constexpr const char* kExpected = R"(
input                     asked    gathering  freezing  scripting  capturing  storing     completing  complete   dropped
steps_found               GATHER   .          .         .          .          .           .           .          drop:n1
steps_found_n9            drop:n9  drop:n9    drop:n9   drop:n9    drop:n9    drop:n9     drop:n9     drop:n9    drop:n9
some_ranks                .        .          .         .          .          .           .           .          .
all_ranks                 .        FREEZE     .         .          .          .           .           .          .
all_ranks_ended           .        SCRIPT     .         .          .          .           .           .          .
ranks_that_cannot_be      .        DROP       .         .          .          .           .           .          .
tasks_dumped_n1           .        .          .         .          .          .           .           stored:n1  drop:n1
tasks_dumped_n2           drop:n2  drop:n2    SCRIPT    .          .          .           .           stored:n2  drop:n2
other_tasks_dumped_n2     drop:n2  drop:n2    DROP      .          .          .           .           stored:n2  drop:n2
tasks_dumped_n9           drop:n9  drop:n9    drop:n9   drop:n9    drop:n9    drop:n9     drop:n9     drop:n9    drop:n9
script_dumped             CAPTURE  .          .         CAPTURE    .          .           .           .          drop:n1
other_than_script_dumped  DROP     .          .         DROP       .          .           .           .          drop:n1
script_dumped_by_n2       drop:n2  drop:n2    drop:n2   drop:n2    drop:n2    drop:n2     drop:n2     drop:n2    drop:n2
captured                  .        .          .         .          RELEASE    .           .           .          .
capture_failed            .        .          .         .          DROP       .           .           .          .
part_stored_n1            .        .          .         .          .          COMPLETE    .           stored:n1  drop:n1
part_stored_n2            drop:n2  drop:n2    .         .          .          .           .           stored:n2  drop:n2
other_part_stored_n1      .        .          .         .          .          DROP        .           stored:n1  drop:n1
part_stored_n9            drop:n9  drop:n9    drop:n9   drop:n9    drop:n9    drop:n9     drop:n9     drop:n9    drop:n9
completed                 .        .          .         .          .          .           FINISH      .          .
complete_failed           .        .          .         .          .          .           DROP        .          .
failed_n1                 DROP     DROP       DROP      DROP       DROP       DROP        .           .          .
failed_n2                 drop:n2  drop:n2    DROP      DROP       DROP       DROP        .           .          .
failed_n9                 drop:n9  drop:n9    drop:n9   drop:n9    drop:n9    drop:n9     drop:n9     drop:n9    drop:n9
detached_n1               DROP     DROP       DROP      DROP       DROP       .           .           .          .
detached_n2               .        .          DROP      DROP       DROP       .           .           .          .
detached_n9               .        .          .         .          .          .           .           .          .
attached_with_n1          DROP     DROP       DROP      DROP       DROP       release:n1  .           stored:n1  drop:n1
attached_with_n2          drop:n2  drop:n2    DROP      DROP       DROP       .           .           stored:n2  drop:n2
attached_with_n9          drop:n9  drop:n9    drop:n9   drop:n9    drop:n9    drop:n9     drop:n9     drop:n9    drop:n9
attached_without_n1       DROP     DROP       DROP      DROP       DROP       DROP        .           stored:n1  .
attached_without_n2       .        .          DROP      DROP       DROP       .           .           stored:n2  .
attached_without_n9       .        .          .         .          .          .           .           .          .
deadline                  DROP     DROP       DROP      DROP       .          DROP         .           .          .
cancelled                 DROP     DROP       DROP      DROP       DROP       DROP        .           .          .
)";

const std::map<std::string, std::string> kSteps{
    {">gathering/ranks", "GATHER"},
    {">freezing/dump:n1,0.0,0.1/dump:n2,0.2", "FREEZE"},
    {">scripting/script:n1", "SCRIPT"},
    {">capturing/capture", "CAPTURE"},
    {">storing/release:n1/release:n2", "RELEASE"},
    {">completing/complete", "COMPLETE"},
    {">complete/stored:n1/stored:n2", "FINISH"},
};

std::string outcome(P phase, const Feed& feed) {
    Generation generation = in_phase(phase);
    std::string drop = "fail";
    for (const std::string& node : generation.nodes()) drop += " drop:" + node;
    std::string orders = text(feed(generation));
    if (generation.phase() == P::dropped && phase != P::dropped && orders == drop) {
        CHECK_FALSE(generation.why().empty());
        return "DROP";
    }
    std::ranges::replace(orders, ' ', '/');
    if (generation.phase() == phase) return orders.empty() ? "." : orders;
    const std::string told = ">" + std::string(generation_name(generation.phase())) + "/" + orders;
    const auto known = kSteps.find(told);
    return known == kSteps.end() ? told : known->second;
}

}  // namespace

TEST_CASE("what each input leads to in each phase", "[generation]") {
    std::istringstream lines(kExpected);
    std::string line;
    std::getline(lines, line);  // empty
    std::getline(lines, line);
    std::size_t rows = 0;
    while (std::getline(lines, line)) {
        std::istringstream cells(line);
        std::string input, expected;
        cells >> input;
        for (std::size_t phase = 0; phase < kGenerationPhases; ++phase) {
            REQUIRE(cells >> expected);
            const P in = static_cast<P>(phase);
            INFO(input << " in the phase " << generation_name(in));
            REQUIRE(in_phase(in).phase() == in);
            CHECK(outcome(in, kInputs.at(input)) == expected);
        }
        ++rows;
    }
    CHECK(rows == kInputs.size());
}

TEST_CASE("a checkpoint begins with the script, and one of a step alone with its tasks", "[generation]") {
    Generation job = Generation::of_job("n1", kDumpTimeout);
    CHECK(text(job.begin()) == "hold:n1");
    auto step = Generation::of_steps(kStep, kRanks, kDumpTimeout);
    REQUIRE(step);
    CHECK(text(step->begin()) == "dump:n1,0.0,0.1 dump:n2,0.2");
}

TEST_CASE("a script without live steps is captured by its one image", "[generation]") {
    Generation generation = Generation::of_job("n1", kDumpTimeout);
    (void)generation.begin();
    CHECK(text(generation.script_dumped("n1", image("batch"))) == "capture");
    CHECK(generation.images().size() == 1);
    CHECK(generation.leader() == "batch");
    CHECK(text(generation.captured()) == "release:n1");
    CHECK(text(generation.part_stored("n1", {stored("batch")})) == "complete");
    CHECK(generation.stored().at("batch").image.manifest == "job-1/batch");
    CHECK(text(generation.completed()) == "stored:n1");
    CHECK(generation.is_over());
}

TEST_CASE("a step alone is captured when its last tasks are frozen", "[generation]") {
    Generation generation = *Generation::of_steps(kStep, kRanks, kDumpTimeout);
    (void)generation.begin();
    CHECK(text(generation.tasks_dumped("n2", {image("0.2")}, {})).empty());
    CHECK(text(generation.tasks_dumped("n1", {image("0.1"), image("0.0")}, {})) == "capture");
    CHECK(generation.leader() == "0.0");
    CHECK(text(generation.captured()) == "release:n1 release:n2");
}

TEST_CASE("ranks that have ended have a wait status and no image", "[generation]") {
    Generation generation = Generation::of_job("n1", kDumpTimeout);
    (void)generation.begin();
    (void)generation.steps_found("n1", kStep);
    (void)generation.ranks_known(std::vector<StepRank>{{0, 0, "n1", 256}, {0, 1, "n1", {}}, {0, 2, "n2", {}}});

    SECTION("one that was known to have ended is not ordered") {
        CHECK(text(generation.tasks_dumped("n1", {image("0.1")}, {})).empty());
        CHECK(text(generation.tasks_dumped("n2", {image("0.2")}, {})) == "script:n1");
        REQUIRE(generation.ended().size() == 1);
        CHECK(generation.ended()[0].task == "0.0");
        CHECK(generation.ended()[0].wait_status == 256);
    }
    SECTION("a node whose last task has ended before its dump has no part any more") {
        (void)generation.tasks_dumped("n1", {image("0.1")}, {});
        CHECK(text(generation.tasks_dumped("n2", {}, {{"0.2", 9}})) == "drop:n2 script:n1");
        CHECK(generation.ended().size() == 2);
        CHECK(generation.detached("n2").empty());
        (void)generation.script_dumped("n1", image("batch"));
        CHECK(text(generation.captured()) == "release:n1");
    }
    SECTION("the script's node has a part even then") {
        CHECK(text(generation.tasks_dumped("n1", {}, {{"0.1", 0}})).empty());
        CHECK(text(generation.tasks_dumped("n2", {image("0.2")}, {})) == "script:n1");
        (void)generation.script_dumped("n1", image("batch"));
        CHECK(text(generation.captured()) == "release:n1 release:n2");
        CHECK(text(generation.part_stored("n1", {stored("batch")})).empty());
    }
}

TEST_CASE("a step whose tasks all end before they are dumped has no checkpoint", "[generation]") {
    Generation generation =
        *Generation::of_steps(std::vector<LiveStep>{{0, 2}}, std::vector<StepRank>{{0, 0, "n1", {}}, {0, 1, "n2", 0}}, kDumpTimeout);
    (void)generation.begin();
    CHECK(text(generation.tasks_dumped("n1", {}, {{"0.0", 0}})) == "drop:n1 fail");
    CHECK(generation.phase() == P::dropped);
    CHECK_THAT(generation.why(), ContainsSubstring("ended"));
}

TEST_CASE("ranks become known one by one", "[generation]") {
    Generation generation = Generation::of_job("n1", kDumpTimeout);
    (void)generation.begin();
    (void)generation.steps_found("n1", kStep);
    CHECK(generation.ranks_known(std::vector<StepRank>{{0, 0, "n1", {}}, {7, 0, "n3", {}}}).empty());  // of a step that is not the script's
    CHECK(generation.ranks_known(std::vector<StepRank>{{0, 0, "n1", {}}}).empty());
    CHECK(generation.ranks_known(std::vector<StepRank>{{0, 0, "n1", 0}, {0, 1, "n1", {}}}).empty());
    CHECK(generation.phase() == P::gathering);
    CHECK(text(generation.ranks_known(std::vector<StepRank>{{0, 2, "n2", {}}})) == "dump:n1,0.1 dump:n2,0.2");
}

TEST_CASE("ranks and steps that do not add up are refused with a sentence", "[generation]") {
    const auto refusal = [](const std::vector<LiveStep>& steps, const std::vector<StepRank>& ranks) {
        const auto generation = Generation::of_steps(steps, ranks, kDumpTimeout);
        return generation ? Error{Errc::internal, "accepted"} : generation.error();
    };
    CHECK_THAT(refusal({}, {}).text, ContainsSubstring("no live step"));
    CHECK_THAT(refusal({{0, 0}}, {}).text, ContainsSubstring("no tasks"));
    CHECK_THAT(refusal({{0, 1}, {0, 2}}, {}).text, ContainsSubstring("twice"));
    CHECK_THAT(refusal({{0, 1}}, {{0, 0, "n1", {}}, {0, 1, "n2", {}}}).text, ContainsSubstring("task 0.1") && ContainsSubstring("n2"));
    CHECK_THAT(refusal({{0, 1}}, {{0, 0, "n1", {}}, {0, 0, "n2", {}}}).text, ContainsSubstring("running on n1 and as running on n2"));
    CHECK_THAT(refusal({{0, 1}}, {{0, 0, "n1", {}}, {0, 0, "n1", 0}}).text, ContainsSubstring("running on n1 and as ended on n1"));
    CHECK_THAT(refusal({{0, 1}}, {{0, 0, "n1", 0}, {0, 0, "n1", {}}}).text, ContainsSubstring("contradict"));
    const Error missing = refusal(kStep, {{0, 0, "n1", {}}});
    CHECK(missing.code == Errc::busy);
    CHECK_THAT(missing.text, ContainsSubstring("2 of 3 tasks") && ContainsSubstring("0.1"));
    CHECK(refusal({{0, 1}}, {{0, 0, "n1", 0}}).code == Errc::busy);
}

TEST_CASE("a rank that has ended does not run again, but is not on two nodes either", "[generation]") {
    Generation generation = in_phase(P::gathering);
    (void)generation.ranks_known(std::vector<StepRank>{{0, 0, "n1", 0}});
    CHECK(generation.ranks_known(std::vector<StepRank>{{0, 0, "n1", {}}}).empty());  // it has come late
    CHECK(text(generation.ranks_known(std::span(kRanks).subspan(1))) == "dump:n1,0.1 dump:n2,0.2");
    Generation other = in_phase(P::gathering);
    (void)other.ranks_known(std::vector<StepRank>{{0, 0, "n1", 0}});
    (void)other.ranks_known(std::vector<StepRank>{{0, 0, "n2", {}}});
    CHECK_THAT(other.why(), ContainsSubstring("contradict"));
}

TEST_CASE("a captured checkpoint is taken up again, and its nodes are told once more", "[generation]") {
    GenerationImage batch = image("batch"), first = image("0.0"), second = image("0.1");
    batch.node = first.node = "n1";
    second.node = "n2";
    Generation generation = Generation::captured_before({batch, first, second}, {{"0.2", 0}});
    CHECK(generation.phase() == P::storing);
    CHECK(generation.leader() == "batch");
    CHECK(generation.nodes() == std::vector<std::string>{"n1", "n2"});
    CHECK(generation.limit() == kAwayLimit);  // until all are there
    CHECK(text(generation.attached("n1", true)) == "release:n1");
    CHECK(generation.part_stored("n1", {stored("0.0"), stored("batch")}).empty());
    SECTION("and completed") {
        CHECK(text(generation.part_stored("n2", {stored("0.1")})) == "complete");
        CHECK(text(generation.completed()) == "stored:n1 stored:n2");
    }
    SECTION("or dropped, when a node comes without its part") {
        CHECK(text(generation.attached("n2", false)) == "fail drop:n1 drop:n2");
        CHECK_THAT(generation.why(), ContainsSubstring("n2 has lost its part"));
    }
    SECTION("a node whose part is stored may come back without it") { CHECK(generation.attached("n1", false).empty()); }
}

TEST_CASE("each phase that waits for an answer has a limit, and its end is explained", "[generation]") {
    const auto late = [](P phase) {
        Generation generation = in_phase(phase);
        (void)generation.deadline();
        return generation.why();
    };
    CHECK(in_phase(P::asked).limit() == dump_answer_limit(kDumpTimeout));
    CHECK(in_phase(P::gathering).limit() == kGatherLimit);
    CHECK(in_phase(P::freezing).limit() == dump_answer_limit(kDumpTimeout));
    CHECK(in_phase(P::scripting).limit() == script_answer_limit(kDumpTimeout));
    for (const P phase : {P::capturing, P::storing, P::completing, P::complete, P::dropped}) CHECK_FALSE(in_phase(phase).limit());
    CHECK_THAT(late(P::asked), ContainsSubstring("n1"));
    CHECK_THAT(late(P::gathering), ContainsSubstring("3 of 3 tasks"));
    CHECK_THAT(late(P::freezing), ContainsSubstring(": 1 (") && ContainsSubstring("n2"));
    CHECK_THAT(late(P::scripting), ContainsSubstring("360 s"));
}

TEST_CASE("a node that goes with a captured part is waited for, but not for ever", "[generation]") {
    Generation generation = in_phase(P::storing);  // n2's part is stored, n1's is not
    (void)generation.detached("n2");
    CHECK_FALSE(generation.limit());
    (void)generation.detached("n1");
    CHECK(generation.limit() == kAwayLimit);
    SECTION("it returns") {
        (void)generation.attached("n1", true);
        CHECK_FALSE(generation.limit());
    }
    SECTION("it does not") {
        CHECK(text(generation.deadline()) == "fail drop:n1 drop:n2");
        CHECK_THAT(generation.why(), ContainsSubstring("n1 has had no connection"));
    }
}
