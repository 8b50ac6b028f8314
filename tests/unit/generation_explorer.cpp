// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/unit/generation_explorer.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>

namespace sckpt::test {
namespace {

struct Fingerprint {
    std::uint64_t high = 0, low = 0;
    bool operator==(const Fingerprint&) const = default;
};
struct Hash {
    std::size_t operator()(const Fingerprint& print) const { return print.low; }
};

std::uint64_t mix(std::uint64_t value) {
    value = (value ^ (value >> 32)) * 0xd6e8feb86659fd93u;
    value = (value ^ (value >> 32)) * 0xd6e8feb86659fd93u;
    return value ^ (value >> 32);
}

Fingerprint fingerprint(const World& world) {
    std::array<std::uint64_t, (sizeof(World) + 7) / 8> words{};
    std::memcpy(words.data(), &world, sizeof(World));
    Fingerprint print{1, 2};
    for (const std::uint64_t word : words) {
        print.high = mix(print.high ^ word) + 0x9e3779b97f4a7c15u;
        print.low = mix(print.low + word * 0xff51afd7ed558ccdu) ^ 0xc4ceb9fe1a85ec53u;
    }
    return print;
}

class Explorer {
   public:
    Explorer(const Scenario& scenario, const GenerationTable& table, std::size_t most) : scenario_(scenario), pool_(table), most_(most) {}

    Exploration run() {
        enter(first_world(scenario_));
        while (!path_.empty() && found_.wrong.empty()) step();
        found_.generation_states = pool_.size();
        return std::move(found_);
    }

   private:
    struct Place {
        Fingerprint print;
        std::vector<Successor> next;
        std::size_t taken = 0;
    };

    void enter(const World& world) {
        const Fingerprint print = fingerprint(world);
        const auto [known, is_new] = on_path_.try_emplace(print, true);
        if (!is_new) {
            if (known->second) wrong("a history turns in a circle: it need not end");
            return;
        }
        if (++found_.worlds > most_) {
            found_.is_whole = false;
            path_.clear();
            return;
        }
        Place place{print, successors(world, scenario_, pool_)};
        found_.transitions += place.next.size();
        if (std::ranges::all_of(place.next, [](const Successor& next) { return next.kind == Kind::fault; })) end(world);
        path_.push_back(std::move(place));
    }

    void step() {
        Place& place = path_.back();
        if (place.taken == place.next.size()) {
            on_path_[place.print] = false;
            path_.pop_back();
            return;
        }
        const Successor& next = place.next[place.taken++];
        if (next.wrong != nullptr) return wrong(next.wrong);
        enter(World(next.world));
    }

    void end(const World& world) {
        ++found_.ends;
        if (world.created == scenario_.checkpoints &&
            std::all_of(world.rows.begin(), world.rows.begin() + world.created, [](Row row) { return row == Row::complete; }))
            ++found_.completed;
        if (const char* rule = end_is_wrong(world, scenario_)) wrong(rule);
    }

    void wrong(const char* rule) {
        found_.wrong = rule;
        for (const Place& place : path_)
            if (place.taken != 0) found_.history += describe(place.next[place.taken - 1]) + "\n";
    }

    const Scenario& scenario_;
    GenerationPool pool_;
    const std::size_t most_;
    Exploration found_;
    std::unordered_map<Fingerprint, bool, Hash> on_path_;  // every world that was met
    std::vector<Place> path_;
};

}  // namespace

Exploration explore(const Scenario& scenario, const GenerationTable& table, std::size_t most_worlds) {
    return Explorer(scenario, table, most_worlds).run();
}

}  // namespace sckpt::test
