// SPDX-License-Identifier: GPL-3.0-or-later
//
// The store under faults, with the keeper and the store's operations as they are: each call of a whole life fails once, or is the last
// one before a power failure; the controller is killed before and after each change of its catalogue, and each call of the catalogue's
// disk fails once. No complete checkpoint is lost, none is called complete that is not whole, and no space stays lost.
#include <cerrno>
#include <functional>

#include <malloc.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "tests/unit/store_life.h"

using namespace sckpt;
using namespace sckpt::test;
using Survival = MemoryFileSystem::Survival;

namespace {

constexpr unsigned kTakesSpace = kCreate | kWrite | kSync | kMakeDirectory | kRename;
constexpr unsigned kLooks = unsigned{kAllCalls} & ~unsigned{kChanges};  // most of them are alike: one read after the other
using Database = FaultyDatabase;

// Thousands of short lives: what one frees is kept for the next, or most of the time goes into giving memory back and forth.
class KeptMemory {
   public:
    KeptMemory() { set(1 << 30, 1 << 30); }
    KeptMemory(const KeptMemory&) = delete;
    KeptMemory& operator=(const KeptMemory&) = delete;
    ~KeptMemory() { set(128 << 10, 128 << 10); }

   private:
    static void set(int mmap, int trim) {
        ::mallopt(M_MMAP_THRESHOLD, mmap);
        ::mallopt(M_TRIM_THRESHOLD, trim);
        ::mallopt(M_ARENA_MAX, 1);
    }
};

struct Length {
    std::uint64_t calls = 0, database_calls = 0;
};

// Of a life without faults, which must be what the faults are compared with.
Length length_of_life(unsigned calls, unsigned database_calls = Database::kSync) {
    StoreLife life;
    life.files.set({.calls = calls});
    life.database.set({.calls = database_calls});
    if (const auto lived = life.live(); !lived) FAIL(lived.error().text);
    const Length length{life.files.count(), life.database.count()};
    CHECK(life.promised == StoreLife::Numbers{5, 6});
    CHECK(life.damaged == StoreLife::Numbers{4});
    life.expect_nothing_lost();
    life.expect_no_file_but_named();
    life.expect_space_given_back();
    return length;
}

void expect_all_well_after(StoreLife& life, bool node_lost) {
    life.expect_nothing_lost();
    const auto recovered = life.recover(node_lost);
    if (!recovered) FAIL(recovered.error().text);
    life.expect_nothing_lost();
    life.expect_no_file_but_named();
    life.expect_space_given_back();
}

// One call has failed, and what it was part of was done at the second try.
void expect_done_all_the_same(StoreLife& life) {
    const auto lived = life.live();
    if (!lived) FAIL(lived.error().text);
    expect_all_well_after(life, false);
}

}  // namespace

TEST_CASE("any one call of the store may fail, and its work is done at the second try", "[store_life]") {
    const KeptMemory kept;
    const auto [error, kinds, stride] =
        GENERATE(table<int, unsigned, std::uint64_t>({{ENOSPC, kTakesSpace, 1}, {EIO, unsigned{kChanges}, 1}, {EIO, kLooks, 11}}));
    const std::uint64_t calls = length_of_life(kinds).calls;
    CHECK(calls > 90);
    for (std::uint64_t at = 1; at <= calls; at += stride) {
        INFO("call " << at << " of " << calls << ", errno " << error);
        StoreLife life;
        life.files.set({.calls = kinds, .at = at, .error = error});
        expect_done_all_the_same(life);
    }
}

TEST_CASE("the power of the store may fail at any call, and the controller's with it", "[store_life]") {
    const KeptMemory kept;
    const auto survival = GENERATE(Survival::none, Survival::all, Survival::some);
    const std::uint64_t stride = survival == Survival::all ? 5 : 1;  // what a mere death of the process leaves is the easiest
    // Before a call that changes nothing the disk is as it is before the next one that does.
    const std::uint64_t calls = length_of_life(kChanges).calls;
    for (std::uint64_t at = 1; at <= calls; at += stride) {
        const bool everywhere = at % 3 != 0;
        INFO("call " << at << " of " << calls << ", survival " << static_cast<int>(survival) << (everywhere ? ", everywhere" : ""));
        StoreLife life;
        life.files.set({.calls = kChanges, .at = at, .error = EIO, .crash = true});
        if (everywhere) life.database.die_with([&life] { return life.files.crashed(); });
        CHECK_FALSE(life.live());
        life.disk.power_failure(survival, at);
        life.database.die_with({});
        if (everywhere) life.restart_controller(survival, at);
        expect_all_well_after(life, at % 2 == 0);
    }
}

TEST_CASE("the controller may be killed before and after any change of the catalogue", "[store_life]") {
    const KeptMemory kept;
    const auto survival = GENERATE(Survival::none, Survival::all);
    const std::uint64_t changes = length_of_life(kAllCalls).database_calls;
    CHECK(changes > 40);
    for (std::uint64_t at = 1; at <= changes; ++at) {
        for (const bool node_lost : {false, true}) {
            INFO("change " << at << " of " << changes << ", survival " << static_cast<int>(survival));
            StoreLife life;
            life.database.set({.calls = Database::kSync, .at = at, .crash = true});
            CHECK_FALSE(life.live());
            if (node_lost) life.disk.power_failure(Survival::none);
            life.restart_controller(survival, at);
            expect_all_well_after(life, node_lost);
        }
    }
}

TEST_CASE("any one call of the catalogue's disk may fail, and its work is done at the second try", "[store_life]") {
    const KeptMemory kept;
    constexpr std::uint64_t kStride = 11;  // tests/unit/image_store_catalogue_faults_test.cpp has all calls of each change
    const bool full = GENERATE(false, true);
    const unsigned kinds = full ? unsigned{Database::kWrite} : unsigned{Database::kAllCalls};
    const std::uint64_t calls = length_of_life(kAllCalls, kinds).database_calls;
    for (std::uint64_t at = full ? 1 : 2; at <= calls; at += kStride) {
        INFO("call " << at << " of " << calls << (full ? ", disk full" : ""));
        StoreLife life;
        life.database.set({.calls = kinds, .at = at, .full = full});
        expect_done_all_the_same(life);
    }
}

// ---- beside each other ----

namespace {

// Where the collector is killed: with its node at this call of the store, or with its controller at this change of the catalogue.
struct Kill {
    std::uint64_t call = 0, change = 0;
};

// Some checkpoints are complete. A collector that keeps nothing it need not keep runs in the middle of something else, and is killed.
class Beside {
   public:
    explicit Beside(int checkpoints) {
        for (int i = 0; i < checkpoints; ++i) {
            const auto row = life.capture();
            REQUIRE(row);
            REQUIRE(life.drain(*row, life.disk));
        }
    }

    // True when the work came to this call.
    bool interrupt(std::uint64_t at, const Kill& kill, const std::function<Result<>(FileSystem&)>& work) {
        FaultyFileSystem others(life.disk);
        std::uint64_t calls = 0;
        others.set_hook([&](Call) {
            if (++calls == at) run_collector(kill);
        });
        const auto done = work(others);
        if (!done) FAIL_CHECK(done.error().text);
        if (!trouble_.empty()) FAIL_CHECK(trouble_);
        return calls >= at;
    }
    bool killed() const { return killed_; }

    StoreLife life{0};

   private:
    // In the thread of the work, which waits.
    void run_collector(const Kill& kill) {
        life.files.set({.calls = kChanges, .at = kill.call, .error = EIO, .crash = true});
        life.database.set({.calls = Database::kSync, .at = kill.change, .crash = true});
        const auto done = life.round(true);
        killed_ = life.crashed();
        if (!done && !killed_) trouble_ = done.error().text;
        if (life.database.crashed()) life.restart_controller(kill.change % 2 == 0 ? Survival::all : Survival::none);
        life.database.set({});
        life.files.set({});
    }

    bool killed_ = false;
    std::string trouble_;
};

using Interrupted = std::function<bool(Beside& beside, std::uint64_t at, const Kill& kill)>;

// The collector comes at each call of the work, and is killed at each of its own steps; with a stride, at one in so many of them,
// which are others at the next call of the work.
void at_every_pair_of_steps(int checkpoints, std::uint64_t stride, const Interrupted& run) {
    std::uint64_t pairs = 0;
    for (std::uint64_t at = 1, came = 1; came != 0; ++at) {
        for (const bool by_call : {true, false}) {
            bool killed = true;
            for (std::uint64_t step = 1 + at % stride; killed; step += stride) {
                INFO("at call " << at << " the collector was killed at its " << (by_call ? "call " : "change ") << step);
                Beside beside(checkpoints);
                came = run(beside, at, by_call ? Kill{.call = step} : Kill{.change = step});
                killed = beside.killed();
                ++pairs;
                expect_all_well_after(beside.life, false);
            }
        }
    }
    CHECK(pairs > 60);  // it would prove little with a few: the work and the collector are longer than that
}

}  // namespace

TEST_CASE("a collector that is killed at any step takes nothing from a drain under way", "[store_life]") {
    const KeptMemory kept;
    at_every_pair_of_steps(2, 3, [](Beside& beside, std::uint64_t at, const Kill& kill) {
        const auto row = beside.life.capture();
        REQUIRE(row);
        CHECK(row->base != 0);
        const bool came = beside.interrupt(at, kill, [&](FileSystem& files) { return beside.life.drain(*row, files); });
        CHECK(beside.life.promised.contains(row->number));
        return came;
    });
}

TEST_CASE("a collector that is killed at any step takes nothing from a restore that reads", "[store_life]") {
    const KeptMemory kept;
    at_every_pair_of_steps(3, 3, [](Beside& beside, std::uint64_t at, const Kill& kill) {
        return beside.interrupt(at, kill, [&](FileSystem& files) { return beside.life.restore(1, files); });
    });
}
