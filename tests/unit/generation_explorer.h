// SPDX-License-Identifier: GPL-3.0-or-later
//
// Goes through every history of a small world (generation_world.h), and tells of the first that breaks a rule: one of those that hold at
// every step; or that of the end: without further faults every history comes to an end (it never turns in a circle), and there every tree
// runs, and every checkpoint is complete or dropped. Worlds are told apart by 128 bits of hash.
#pragma once

#include <cstddef>
#include <string>

#include "tests/unit/generation_world.h"

namespace sckpt::test {

struct Exploration {
    std::size_t worlds = 0, transitions = 0, ends = 0, generation_states = 0;
    std::size_t completed = 0;   // ends with every checkpoint complete
    std::string wrong, history;  // "": no rule is broken
    bool is_whole = true;        // false: it was given up at the limit
};

Exploration explore(const Scenario& scenario, const GenerationTable& table = kGenerationTable, std::size_t most_worlds = 20'000'000);

}  // namespace sckpt::test
