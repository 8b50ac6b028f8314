// SPDX-License-Identifier: GPL-3.0-or-later
//
// The store under faults: each call of a whole life fails once, or is the last one before a power failure, and the controller is
// killed before each change of its catalogue. No complete checkpoint is lost, none is called complete that is not whole, and no
// space stays lost.
#include <cerrno>
#include <functional>

#include <malloc.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "tests/unit/image_store_model.h"

using namespace sckpt;
using namespace sckpt::test;
using Survival = MemoryFileSystem::Survival;

namespace {

constexpr unsigned kTakesSpace = kCreate | kWrite | kSync | kMakeDirectory | kRename;

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
    std::uint64_t calls = 0, changes = 0;
};

// Of a life without faults, which must be what the faults are compared with.
Length length_of_life(unsigned calls) {
    StoreModel model;
    model.files.set({.calls = calls});
    const auto lived = model.live();
    if (!lived) FAIL(lived.error().text);
    const Length length{model.files.count(), model.changes()};
    CHECK(model.promised == StoreModel::Numbers{5, 6});
    model.expect_nothing_lost();
    model.expect_no_file_but_named();
    model.expect_space_given_back();
    return length;
}

void expect_all_well_after(StoreModel& model, bool node_lost) {
    model.expect_nothing_lost();
    const auto recovered = model.recover(node_lost);
    if (!recovered) FAIL(recovered.error().text);
    model.expect_no_file_but_named();
    model.expect_space_given_back();
}

}  // namespace

TEST_CASE("any one call may fail, and its work is done at the second try", "[store][faults]") {
    const KeptMemory kept;
    const auto [error, kinds] = GENERATE(table<int, unsigned>({{ENOSPC, kTakesSpace}, {EIO, kAllCalls}}));
    const std::uint64_t calls = length_of_life(kinds).calls;
    CHECK(calls > 90);
    for (std::uint64_t at = 1; at <= calls; ++at) {
        INFO("call " << at << " of " << calls << ", errno " << error);
        StoreModel model;
        model.files.set({.calls = kinds, .at = at, .error = error});
        const auto lived = model.live();
        if (!lived) FAIL(lived.error().text);
        model.expect_nothing_lost();
        const auto swept = model.recover(false);  // what a failed put could not take away again
        if (!swept) FAIL(swept.error().text);
        model.expect_no_file_but_named();
        model.expect_space_given_back();
    }
}

TEST_CASE("the power may fail at any call", "[store][faults]") {
    const KeptMemory kept;
    const auto survival = GENERATE(Survival::none, Survival::all, Survival::some);
    // Before a call that changes nothing the disk is as it is before the next one that does.
    const std::uint64_t calls = length_of_life(kChanges).calls;
    for (std::uint64_t at = 1; at <= calls; ++at) {
        INFO("call " << at << " of " << calls << ", survival " << static_cast<int>(survival));
        StoreModel model;
        model.files.set({.calls = kChanges, .at = at, .error = EIO, .crash = true});
        CHECK_FALSE(model.live());
        model.disk.power_failure(survival, at);
        expect_all_well_after(model, at % 2 == 0);
    }
}

TEST_CASE("the controller may be killed before any change of the catalogue", "[store][faults]") {
    const KeptMemory kept;
    const std::uint64_t changes = length_of_life(kAllCalls).changes;
    CHECK(changes > 20);
    for (std::uint64_t at = 1; at <= changes; ++at) {
        for (const bool node_lost : {false, true}) {
            INFO("change " << at << " of " << changes);
            StoreModel model;
            model.kill_before(at);
            CHECK_FALSE(model.live());
            model.disk.power_failure(Survival::none);
            expect_all_well_after(model, node_lost);
        }
    }
}

// ---- beside each other ----

namespace {

// Where the collector is killed: at this call of the file system, before this change of the catalogue; 0: not.
struct Kill {
    std::uint64_t call = 0, change = 0;
};

// Some checkpoints are complete. A collector that keeps nothing it need not keep runs in the middle of something else, and is
// killed.
class Beside {
   public:
    explicit Beside(int checkpoints) {
        for (int i = 0; i < checkpoints; ++i) {
            const auto row = model.capture();
            REQUIRE(row);
            REQUIRE(model.drain(row->id, model.disk));
        }
    }

    // True when the work came to this call.
    bool interrupt(std::uint64_t at, const Kill& kill, const std::function<Result<>(FileSystem&)>& work) {
        FaultyFileSystem others(model.disk);
        std::uint64_t calls = 0;
        others.set_hook([&](Call) {
            if (++calls == at) run_collector(kill);
        });
        if (const auto done = work(others); !done) FAIL_CHECK(done.error().text);
        return calls >= at;
    }
    bool killed() const { return killed_; }

    StoreModel model;

   private:
    void run_collector(const Kill& kill) {
        model.files.set({.calls = kChanges, .at = kill.call, .error = EIO, .crash = true});
        model.kill_before(kill.change);
        const auto done = collect_all();
        killed_ = model.files.crashed() || model.killed();
        if (!done && !killed_) FAIL_CHECK(done.error().text);
        model.kill_before(0);
        model.files.set({});
    }
    Result<> collect_all() {
        SCKPT_TRY(model.remove_but({}));
        SCKPT_TRY(model.collect(model.files));
        SCKPT_TRY(model.compact(model.files));
        SCKPT_TRY(model.sweep(model.files));
        return model.collect(model.files);
    }

    bool killed_ = false;
};

using Interrupted = std::function<bool(Beside& beside, std::uint64_t at, const Kill& kill)>;

// The collector comes at each call of the work, and is killed at each of its own steps; with a stride, at one in so many of them,
// which are others at the next call of the work.
void at_every_pair_of_steps(int checkpoints, std::uint64_t stride, const Interrupted& run) {
    for (std::uint64_t at = 1, came = 1; came != 0; ++at) {
        for (const bool by_call : {true, false}) {
            bool killed = true;
            for (std::uint64_t step = 1 + at % stride; killed; step += stride) {
                INFO("at call " << at << " the collector was killed at its " << (by_call ? "call " : "change ") << step);
                Beside beside(checkpoints);
                came = run(beside, at, by_call ? Kill{.call = step} : Kill{.change = step});
                killed = beside.killed();
                expect_all_well_after(beside.model, false);
            }
        }
    }
}

}  // namespace

TEST_CASE("a collector that is killed at any step takes nothing from a drain under way", "[store][faults]") {
    const KeptMemory kept;
    at_every_pair_of_steps(2, 1, [](Beside& beside, std::uint64_t at, const Kill& kill) {
        const auto row = beside.model.capture();
        REQUIRE(row);
        CHECK(row->base != 0);
        const bool came = beside.interrupt(at, kill, [&](FileSystem& files) { return beside.model.drain(row->id, files); });
        CHECK(beside.model.promised.contains(row->number));
        return came;
    });
}

TEST_CASE("a collector that is killed at any step takes nothing from a restore that reads", "[store][faults]") {
    const KeptMemory kept;
    at_every_pair_of_steps(3, 3, [](Beside& beside, std::uint64_t at, const Kill& kill) {
        return beside.interrupt(at, kill, [&](FileSystem& files) { return beside.model.restore(1, files); });
    });
}
