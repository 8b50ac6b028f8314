// SPDX-License-Identifier: GPL-3.0-or-later
//
// The protocol of a checkpoint against every order of events: messages that are lost with a connection, late, or twice; nodes, sckptd and
// sckptctld that die at any point; dumps, drains and the catalogue that fail; deadlines at any moment. What is explored is in
// generation_world.h; how many faults one history may have stands with each scenario, and SCKPT_EXPLORE_FAULTS=N in the environment adds N
// to each; `unit_tests -s "[generation_explorer]"` tells how many worlds there are. And the other way round: a wrong cell in the table, and
// a node that does not keep its side, are found.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <format>

#include "tests/unit/generation_explorer.h"

using namespace sckpt;
using namespace sckpt::test;
using P = GenerationPhase;
using E = GenerationEvent;
using A = GenerationAction;

namespace {

std::uint8_t faults(std::uint8_t number) {
    const char* more = std::getenv("SCKPT_EXPLORE_FAULTS");
    std::uint8_t added = 0;
    if (more != nullptr) std::from_chars(more, more + std::strlen(more), added);
    return static_cast<std::uint8_t>(number + added);
}

void check(const char* name, Scenario scenario, std::uint8_t at_any_moment, std::uint8_t in_patience) {
    for (const bool time_waits : {false, true}) {
        scenario.time_waits = time_waits;
        scenario.faults = faults(time_waits ? in_patience : at_any_moment);
        const Exploration found = explore(scenario);
        INFO(found.wrong << ":\n" << found.history);
        CHECK(found.wrong.empty());
        CHECK(found.is_whole);
        if (scenario.all_return) CHECK(found.completed > 0);
        SUCCEED(std::format("{}, up to {} faults, deadlines {}: {} worlds, {} transitions, {} ends ({} with all checkpoints complete)",
                            name, scenario.faults, time_waits ? "when nothing else happens" : "at any moment", found.worlds,
                            found.transitions, found.ends, found.completed));
    }
}

GenerationTransition& cell(GenerationTable& table, E event, P phase) {
    return table[static_cast<std::size_t>(event)][static_cast<std::size_t>(phase)];
}

// Small ones, one of which shows what is wrong.
std::vector<Scenario> small_scenarios() {
    Scenario job, late, script, step, alone, impatient;
    for (Scenario* scenario : {&job, &late, &script, &step, &alone}) {
        scenario->faults = 1;
        scenario->time_waits = true;
    }
    late.ranks_told = false;
    late.may_end = 2;
    impatient.ranks_told = false;
    script.step = false;
    step.script = false;
    alone.all_return = false;
    return {script, step, job, alone, impatient, late};
}

std::string first_wrong(const GenerationTable& table) {
    for (const Scenario& scenario : small_scenarios()) {
        const Exploration found = explore(scenario, table);
        if (!found.wrong.empty()) return found.wrong;
    }
    return "";
}

}  // namespace

TEST_CASE("a checkpoint of a job with a step keeps the rules whatever happens", "[generation_explorer]") {
    check("job with a step", {}, 2, 3);
}

TEST_CASE("so it does while ranks begin and end", "[generation_explorer]") {
    Scenario scenario;
    scenario.ranks_told = false;
    scenario.may_end = 1;
    check("ranks that begin and end", scenario, 1, 2);
    scenario.may_end = 2;
    check("a step that ends", scenario, 1, 1);
}

TEST_CASE("so does a checkpoint of a script without steps", "[generation_explorer]") {
    Scenario scenario;
    scenario.step = false;
    check("script alone", scenario, 3, 3);
}

TEST_CASE("so does a checkpoint of a step alone", "[generation_explorer]") {
    Scenario scenario;
    scenario.script = false;
    scenario.may_end = 1;
    check("step alone", scenario, 2, 2);
}

TEST_CASE("so does the checkpoint after it", "[generation_explorer]") {
    Scenario scenario;
    scenario.checkpoints = 2;
    check("two checkpoints", scenario, 1, 2);
}

TEST_CASE("nothing stays frozen though nobody returns", "[generation_explorer]") {
    Scenario scenario;
    scenario.all_return = false;
    check("nobody returns", scenario, 2, 2);
}

TEST_CASE("wrong tables are found", "[generation_explorer]") {
    GenerationTable table = kGenerationTable;
    SECTION("the script is dumped before all are frozen") { cell(table, E::part_frozen, P::freezing) = {P::scripting, A::dump_script}; }
    SECTION("captured, and trees let go, before all are frozen") { cell(table, E::part_frozen, P::freezing) = {P::capturing, A::capture}; }
    SECTION("captured without the script") { cell(table, E::all_frozen, P::freezing) = {P::capturing, A::capture}; }
    SECTION("the script is not asked for its steps") { cell(table, E::steps_found, P::asked) = {P::scripting, A::dump_script}; }
    SECTION("trees let go before the catalogue has it") { cell(table, E::script_dumped, P::scripting) = {P::storing, A::release_all}; }
    SECTION("complete without the last part") { cell(table, E::part_stored, P::storing) = {P::completing, A::complete}; }
    SECTION("complete although the catalogue fails") { cell(table, E::complete_failed, P::completing) = {P::complete, A::stored_all}; }
    SECTION("a lost node is passed over while others freeze") {
        for (const E event : {E::detached, E::attached_with, E::attached_without})
            cell(table, event, P::freezing) = {P::freezing, A::ignore};
    }
    SECTION("a captured checkpoint is dropped for a broken connection") {
        cell(table, E::detached, P::storing) = {P::dropped, A::drop_all};
    }
    SECTION("dropped, and the nodes and the catalogue are not told") { cell(table, E::failed, P::storing) = {P::dropped, A::note}; }
    SECTION("what is dropped goes on") { cell(table, E::deadline, P::freezing) = {P::scripting, A::drop_all}; }
    CHECK_FALSE(first_wrong(table).empty());
}

// The answers for a checkpoint that is over come from the catalogue alone, as sckptctld forgets it; `capturing` and `completing` end in the
// same call in which they begin; and what is said twice or by strangers does no harm in the phases of before. These are tried in
// daemon_generation_test.cpp.
TEST_CASE("no cell of the table could be left out", "[generation_explorer]") {
    std::size_t tried = 0;
    for (std::size_t event = 0; event < kGenerationEvents; ++event)
        for (const P phase : {P::asked, P::gathering, P::freezing, P::scripting, P::capturing, P::storing, P::completing}) {
            const E what = static_cast<E>(event);
            const bool is_answer = what == E::captured || what == E::capture_failed || what == E::completed || what == E::complete_failed;
            if (what == E::stray || what == E::repeated || (phase == P::capturing && !is_answer)) continue;
            GenerationTable table = kGenerationTable;
            if (cell(table, what, phase).action == A::ignore) continue;
            cell(table, what, phase) = {phase, A::ignore};
            INFO(generation_name(what) << " in the phase " << generation_name(phase));
            CHECK_FALSE(first_wrong(table).empty());
            ++tried;
        }
    CHECK(tried == 47);
}

TEST_CASE("a node that does not keep its side is found", "[generation_explorer]") {
    Scenario scenario;
    scenario.faults = 1;
    SECTION("it waits for ever for a word") {
        scenario.all_return = false;
        scenario.defect = Defect::waits_for_ever;
        CHECK(explore(scenario).wrong == "a tree stays frozen for ever");
    }
    SECTION("it lets a tree go, and keeps the image") {
        scenario.defect = Defect::keeps_part_of_running_tree;
        CHECK(explore(scenario).wrong == "a checkpoint is completed, and a rank ran on while the others were dumped");
    }
}
