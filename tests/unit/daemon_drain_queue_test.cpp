// SPDX-License-Identifier: GPL-3.0-or-later
//
// The queue of drains: order, limits, urgency, what fails, and what sckptctld has to say. Drains are calls that end when the test says so.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <vector>

#include "daemon/drain_queue.h"

using namespace sckpt;
using namespace std::chrono_literals;

namespace {

using Ids = std::vector<std::uint64_t>;

// What the queue did, and how the drains that it started go on.
struct Stage {
    std::mutex mutex;
    std::condition_variable changed;
    bool connected = false;
    Ids started, asked, urgently_asked, stored, given_up;
    std::map<std::uint64_t, StoreCall> calls;           // of what runs
    std::map<std::uint64_t, Result<>> ends;  // what a drain has to answer, once
    std::map<std::uint64_t, std::vector<DrainState>> reports;

    Result<> drain(std::uint64_t id, const StoreCall& call) {
        std::unique_lock lock(mutex);
        started.push_back(id);
        calls[id] = call;
        changed.notify_all();
        while (!ends.contains(id) && !*call.stop) changed.wait_for(lock, 1ms);
        calls.erase(id);
        changed.notify_all();
        const auto end = ends.find(id);
        if (end == ends.end()) return fail(Errc::busy, "stopped");
        const auto answer = end->second;
        ends.erase(end);
        return answer;
    }
    DrainQueue::Hooks hooks() {
        DrainQueue::Hooks hooks;
        hooks.drain = [this](std::uint64_t id, const StoreCall& call) { return drain(id, call); };
        hooks.ended = [this](std::uint64_t id, const Result<>& outcome) {
            const std::lock_guard lock(mutex);
            (outcome ? stored : given_up).push_back(id);
            changed.notify_all();
        };
        hooks.report = [this](std::uint64_t id, const DrainState& state) {
            const std::lock_guard lock(mutex);
            reports[id].push_back(state);
            changed.notify_all();
        };
        hooks.ask = [this](std::uint64_t id, std::uint64_t, bool urgent) {
            const std::lock_guard lock(mutex);
            (urgent ? urgently_asked : asked).push_back(id);
            changed.notify_all();
        };
        hooks.connected = [this] {
            const std::lock_guard lock(mutex);
            return connected;
        };
        return hooks;
    }
    void end(std::uint64_t id, Result<> answer = {}) {
        const std::lock_guard lock(mutex);
        ends.insert_or_assign(id, std::move(answer));
        changed.notify_all();
    }
    template <class Condition>
    bool wait(Condition condition) {
        std::unique_lock lock(mutex);
        return changed.wait_for(lock, 20s, condition);
    }
    bool wait_started(const Ids& ids) {
        return wait([&] { return started == ids; });
    }
    bool wait_asked(const Ids& ids) {
        return wait([&] { return asked == ids; });
    }
    bool wait_stored(const Ids& ids) {
        return wait([&] { return stored == ids; });
    }
    bool wait_running(const Ids& ids) {
        return wait([&] { return std::ranges::equal(ids, calls, {}, {}, [](const auto& item) { return item.first; }); });
    }
    void connect(bool up) {
        const std::lock_guard lock(mutex);
        connected = up;
    }
};

constexpr DrainQueue::Times kQuick{.patience = 0ms, .first_retry = 1ms, .longest_retry = 4ms, .report_every = 0ms};
constexpr DrainQueue::Times kPatient{.patience = 1h, .first_retry = 1h, .longest_retry = 1h, .report_every = 1h};

}  // namespace

TEST_CASE("periodic drains go in order, as many at once as the limit says, idle and with their share of the bandwidth", "[drain_queue]") {
    Stage stage;
    DrainQueue queue({2, 1000}, stage.hooks(), kQuick);
    for (const std::uint64_t id : {11u, 12u, 13u, 14u}) queue.add(id, 100, false);
    REQUIRE(stage.wait_running({11, 12}));
    CHECK(stage.calls[11].idle);
    CHECK(stage.calls[11].bytes_per_second == 500);
    stage.end(12);
    REQUIRE(stage.wait_running({11, 13}));
    stage.end(11);
    stage.end(13);
    REQUIRE(stage.wait_running({14}));
    stage.end(14);
    REQUIRE(stage.wait([&] { return stage.stored.size() == 4; }));
    CHECK(stage.started.size() == 4);
}

TEST_CASE("urgent drains have streams of their own, and no limit of bandwidth", "[drain_queue]") {
    Stage stage;
    DrainQueue queue({1, 1000}, stage.hooks(), kQuick);
    queue.add(1, 100, false);
    REQUIRE(stage.wait_running({1}));
    queue.add(2, 100, false);
    queue.add(3, 100, true);
    queue.add(4, 100, true);
    REQUIRE(stage.wait_running({1, 3, 4}));
    CHECK_FALSE(stage.calls[3].idle);
    CHECK(stage.calls[3].bytes_per_second == 0);
    stage.end(1);
    REQUIRE(stage.wait_running({2, 3, 4}));
}

TEST_CASE("urgent drains are as many at once as their own limit says, and go before periodic ones", "[drain_queue]") {
    Stage stage;
    DrainQueue queue({1, 0, 2}, stage.hooks(), kQuick);
    for (const std::uint64_t id : {1u, 2u, 3u, 4u}) queue.add(id, 100, true);
    queue.add(5, 100, false);
    REQUIRE(stage.wait_running({1, 2}));
    stage.end(1);
    REQUIRE(stage.wait_running({2, 3}));
    CHECK(stage.started == Ids{1, 2, 3});  // the periodic one waits, although its stream is free
    stage.end(3);
    REQUIRE(stage.wait_running({2, 4, 5}));
    CHECK(stage.started.size() == 5);
}

TEST_CASE("with sckptctld, urgent drains wait for its word too; without a connection they start at once", "[drain_queue]") {
    Stage stage;
    stage.connect(true);
    DrainQueue queue({1, 0, 2}, stage.hooks(), kPatient);
    for (const std::uint64_t id : {1u, 2u, 3u}) queue.add(id, 100, true);
    REQUIRE(stage.wait([&] { return stage.urgently_asked == Ids{1, 2}; }));
    CHECK(stage.started.empty());
    queue.grant(2, 0);
    REQUIRE(stage.wait_running({2}));
    stage.connect(false);
    queue.add(4, 100, true);  // so that it looks
    REQUIRE(stage.wait_running({1, 2}));
}

TEST_CASE("a drain that becomes urgent begins anew at full speed, or at once when it waits", "[drain_queue]") {
    Stage stage;
    DrainQueue queue({1, 0}, stage.hooks(), kPatient);
    stage.connect(true);
    queue.add(1, 100, false);
    queue.add(2, 100, false);
    REQUIRE(stage.wait_asked({1}));
    queue.grant(1, 70);
    REQUIRE(stage.wait_running({1}));
    CHECK(stage.calls[1].bytes_per_second == 70);
    queue.make_urgent(2);
    REQUIRE(stage.wait([&] { return stage.urgently_asked == Ids{2}; }));
    queue.grant(2, 0);
    REQUIRE(stage.wait_running({1, 2}));
    queue.make_urgent(1);
    REQUIRE(stage.wait([&] { return stage.urgently_asked == Ids{2, 1}; }));
    queue.grant(1, 0);
    REQUIRE(stage.wait_started({1, 2, 1}));
    REQUIRE(stage.wait_running({1, 2}));
    CHECK_FALSE(stage.calls[1].idle);
    CHECK(stage.calls[1].bytes_per_second == 0);
}

TEST_CASE("a drain that waits for the store says why", "[drain_queue]") {
    Stage stage;
    DrainQueue queue({1, 0}, stage.hooks(), {.patience = 0ms, .first_retry = 1h, .longest_retry = 1h, .report_every = 0ms});
    stage.end(1, fail(Errc::no_space, "the store is full"));
    queue.add(1, 100, false);
    CHECK(stage.wait([&] {
        const auto& reports = stage.reports[1];
        return std::ranges::any_of(reports, [](const DrainState& state) {
            return state.phase == DrainState::Phase::waiting && state.text == "the store is full";
        });
    }));
}

TEST_CASE("a store that fails is tried again", "[drain_queue]") {
    Stage stage;
    DrainQueue queue({1, 0}, stage.hooks(), kQuick);
    queue.add(1, 100, false);
    for (int i = 0; i < 5; ++i) {
        REQUIRE(stage.wait_running({1}));
        const std::size_t times = stage.started.size();
        stage.end(1, fail(Errc::timeout, "the store hangs"));
        REQUIRE(stage.wait([&] { return stage.started.size() > times; }));
    }
    stage.end(1);
    REQUIRE(stage.wait_stored({1}));
}

TEST_CASE("while one waits for the store to come back, others are drained", "[drain_queue]") {
    Stage stage;
    DrainQueue queue({1, 0}, stage.hooks(), {.patience = 0ms, .first_retry = 1h, .longest_retry = 1h, .report_every = 0ms});
    stage.end(1, fail(Errc::unavailable, "the store is away"));
    queue.add(1, 100, false);
    queue.add(2, 100, false);
    REQUIRE(stage.wait_running({2}));
    stage.end(2);
    REQUIRE(stage.wait_stored({2}));
    queue.make_urgent(1);  // it is not waited for the time to try again
    REQUIRE(stage.wait_running({1}));
}

TEST_CASE("an image that is bad is given up", "[drain_queue]") {
    Stage stage;
    DrainQueue queue({1, 0}, stage.hooks(), kQuick);
    stage.end(1, fail(Errc::corrupt, "bytes have changed"));
    queue.add(1, 100, false);
    REQUIRE(stage.wait([&] { return stage.given_up == Ids{1}; }));
    queue.add(2, 100, false);
    REQUIRE(stage.wait_running({2}));
    CHECK(stage.stored.empty());
}

TEST_CASE("with sckptctld, a periodic drain waits for its word", "[drain_queue]") {
    Stage stage;
    stage.connect(true);
    DrainQueue queue({2, 0}, stage.hooks(), kPatient);
    for (const std::uint64_t id : {1u, 2u, 3u}) queue.add(id, 100, false);
    REQUIRE(stage.wait_asked({1, 2}));  // no more than it could run
    CHECK(stage.started.empty());
    queue.grant(2, 50);
    REQUIRE(stage.wait_running({2}));
    CHECK(stage.calls[2].bytes_per_second == 50);
    stage.end(2);
    REQUIRE(stage.wait_asked({1, 2, 3}));
    queue.reconnected();
    REQUIRE(stage.wait_asked({1, 2, 3, 1, 3}));
    queue.grant(1, 0);
    REQUIRE(stage.wait_running({1}));
    queue.grant(3, 0);
    REQUIRE(stage.wait_running({1, 3}));
    queue.reconnected();  // what runs is made known again
    REQUIRE(stage.wait([&] { return stage.asked.size() == 7; }));
    CHECK(stage.started == Ids{2, 1, 3});
}

TEST_CASE("without sckptctld the node goes on by itself after a while", "[drain_queue]") {
    Stage stage;
    stage.connect(true);
    DrainQueue queue({1, 0}, stage.hooks(), {.patience = 20ms, .first_retry = 1h, .longest_retry = 1h, .report_every = 1h});
    queue.add(1, 100, false);
    REQUIRE(stage.wait_asked({1}));
    stage.connect(false);
    REQUIRE(stage.wait_running({1}));
    stage.end(1);
    REQUIRE(stage.wait_stored({1}));
    stage.connect(true);
    queue.reconnected();
    queue.add(2, 100, false);
    REQUIRE(stage.wait([&] { return stage.asked.back() == 2; }));  // after 1 once more, if that is not quite over yet
    CHECK(stage.started == Ids{1});
}

TEST_CASE("what is removed is stopped first, and nothing works on it afterwards", "[drain_queue]") {
    Stage stage;
    DrainQueue queue({1, 0}, stage.hooks(), kQuick);
    queue.add(1, 100, false);
    queue.add(2, 100, false);
    REQUIRE(stage.wait_running({1}));
    queue.remove(1);
    CHECK(stage.wait([&] { return !stage.calls.contains(1); }));
    REQUIRE(stage.wait_running({2}));
    queue.remove(7);
    CHECK(stage.stored.empty());
    CHECK(stage.given_up.empty());
}

TEST_CASE("progress is reported, with the rate", "[drain_queue]") {
    Stage stage;
    DrainQueue queue({1, 0}, stage.hooks(), kQuick);
    queue.add(1, 4000, false);
    REQUIRE(stage.wait_running({1}));
    REQUIRE(stage.wait([&] {  // the start itself is told first
        return std::ranges::any_of(stage.reports[1], [](const DrainState& state) { return state.phase == DrainState::Phase::copying; });
    }));
    stage.calls[1].progress(1000, 300);
    REQUIRE(stage.wait([&] { return stage.reports[1].back().done == 1000; }));
    const DrainState& last = stage.reports[1].back();
    CHECK(last.written == 300);
    CHECK(last.total == 4000);
    CHECK(last.rate > 0);
}
