// SPDX-License-Identifier: GPL-3.0-or-later
//
// The states of class Generation that an exploration meets, each made once by the real class, and what each input leads to from there. So a
// state is a number, and most transitions of a world cost a look.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "daemon/generation.h"

namespace sckpt::test {

enum class Rank : std::uint8_t { unknown, running, ended };

std::string node_name(std::size_t node);
std::string tree_name(std::size_t tree);  // task name

class GenerationPool {
   public:
    explicit GenerationPool(const GenerationTable& table) : table_(table) {}

    enum class What : std::uint8_t {
        begin,
        steps_found,
        ranks,
        script_dumped,
        tasks_dumped,
        part_stored,
        failed,
        attached,
        detached,
        captured,
        capture_failed,
        completed,
        complete_failed,
        deadline,
        cancelled,
    };
    struct Input {
        What what{};
        std::uint8_t node = 0;
        std::uint8_t about =
            0;  // ranks: of node 0, and of node 1 times 4; tasks_dumped: 1 when ended; part_stored: trees; attached: has its part
        auto operator<=>(const Input&) const = default;
    };
    struct Order {
        GenerationOrder::What what{};
        std::uint8_t node = 0;
    };
    struct Reply {
        std::uint16_t state = 0;
        std::vector<Order> orders;
    };

    std::uint16_t of_job();
    std::uint16_t of_step(std::array<Rank, 2> ranks);                        // as of_steps(); 0: refused
    std::uint16_t captured_before(std::uint8_t images, std::uint8_t ended);  // sets of trees
    const Reply& feed(std::uint16_t state, Input input);

    GenerationPhase phase(std::uint16_t state) const { return at(state).generation.phase(); }
    bool is_over(std::uint16_t state) const { return at(state).generation.is_over(); }
    bool has_limit(std::uint16_t state) const { return at(state).generation.limit().has_value(); }
    std::uint8_t images(std::uint16_t state) const { return at(state).images; }
    std::uint8_t ended(std::uint16_t state) const { return at(state).ended; }
    bool awaits_part(std::uint16_t state, std::size_t node) const;  // it has one, which is not stored
    std::size_t size() const { return states_.size(); }

   private:
    struct Hidden {                    // what is not to be seen of a Generation from outside
        std::array<Rank, 2> learnt{};  // while it gathers
        std::array<bool, 2> away{};    // nodes, while it stores
    };
    struct State {
        Generation generation;
        Hidden hidden;
        std::uint8_t images = 0, ended = 0;  // sets of trees
    };
    const State& at(std::uint16_t state) const { return states_[state - 1u]; }
    std::uint16_t intern(Generation generation, Hidden hidden);

    const GenerationTable& table_;
    std::vector<State> states_;
    std::map<std::string, std::uint16_t> numbers_;  // by all that makes up a state
    std::map<std::pair<std::uint16_t, Input>, Reply> replies_;
};

}  // namespace sckpt::test
