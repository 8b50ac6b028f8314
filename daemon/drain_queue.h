// SPDX-License-Identifier: GPL-3.0-or-later
//
// Whose captured images are copied into the store now. Urgent ones go first, at normal priority and as fast as they can, drain.urgent_streams
// at once. Periodic ones go when no urgent one waits for a stream, in the order of their coming, at idle priority: drain.streams at once and
// the node's bandwidth. Each waits for sckptctld's word, which counts the drains of the whole cluster; without a connection the node goes on
// by its own limits: with urgent ones at once, with the others when it has been away for a while.
// What fails for a reason of the store (full, away, hanging) is tried again for as long as the image is wanted; others go on meanwhile.
//
// It knows what a node holds of a checkpoint by the catalogue's row of that. Safe from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "daemon/store_client.h"

namespace sckpt {

struct DrainState {
    enum class Phase { queued, copying, waiting } phase = Phase::queued;
    std::uint64_t done = 0, written = 0, total = 0;  // bytes: of the image, to the store, of the whole image
    std::uint64_t rate = 0;                          // bytes of the image per second
    bool urgent = false;
    std::string text;  // waiting: for what
};

class DrainQueue {
   public:
    using Clock = std::chrono::steady_clock;
    struct Limits {
        std::int64_t streams = 1;         // of periodic ones
        std::uint64_t bandwidth = 0;      // bytes per second, of all those streams together; 0: no limit
        std::int64_t urgent_streams = 4;  // besides
    };
    // Called without the queue's lock, but for connected(), which must not block.
    struct Hooks {
        std::function<Result<>(std::uint64_t id, const StoreCall& call)> drain;       // in a thread of its own
        std::function<void(std::uint64_t id, const Result<>& outcome)> ended;         // stored, or never to be
        std::function<void(std::uint64_t id, const DrainState& state)> report;        // each change, and progress about each second
        std::function<void(std::uint64_t id, std::uint64_t bytes, bool urgent)> ask;  // sckptctld, for a grant
        std::function<bool()> connected;
    };
    struct Times {
        std::chrono::milliseconds patience{5000};  // without a connection, before the node goes on alone
        std::chrono::milliseconds first_retry{5000}, longest_retry{60'000};
        std::chrono::milliseconds report_every{1000};
    };

    DrainQueue(Limits limits, Hooks hooks, Times times);
    DrainQueue(Limits limits, Hooks hooks) : DrainQueue(limits, std::move(hooks), Times()) {}
    ~DrainQueue();  // stops what is under way and waits for it
    DrainQueue(const DrainQueue&) = delete;
    DrainQueue& operator=(const DrainQueue&) = delete;

    void add(std::uint64_t id, std::uint64_t bytes, bool urgent);
    void make_urgent(std::uint64_t id);  // one that is not half copied begins anew, as an urgent one
    void grant(std::uint64_t id, std::uint64_t bytes_per_second);
    void reconnected();             // what was asked may be lost: asks and reports again
    void remove(std::uint64_t id);  // stops it and waits until nothing is at work for it any more

   private:
    enum class Grant { none, asked, given };
    struct Entry {
        std::uint64_t id = 0, order = 0;
        bool running = false, removed = false;
        std::atomic<bool> stop = false;
        Clock::time_point next_try{};
        std::chrono::milliseconds retry{};
        Grant grant = Grant::none;
        std::uint64_t granted_rate = 0;
        bool urgent_run = false;  // whose stream its run takes
        DrainState state;
        Clock::time_point reported{};  // none: its state is to be told now
        std::uint64_t reported_done = 0;
    };
    using EntryPtr = std::shared_ptr<Entry>;
    struct Question {
        std::uint64_t id, bytes;
        bool urgent;
    };
    struct Plan {  // what is to be done without the lock
        std::vector<Question> ask;
        std::vector<std::pair<std::uint64_t, DrainState>> report;
        Clock::time_point wake = Clock::time_point::max();
    };
    void dispatch(const std::stop_token& stop);
    Plan plan();
    bool may_start(Entry& entry, Plan& plan);
    void start(const EntryPtr& entry, Plan& plan);
    void run(const EntryPtr& entry, const StoreCall& call);
    void finish(const EntryPtr& entry, const Result<>& outcome, std::unique_lock<std::mutex>& lock);
    void put_off(Entry& entry, const std::string& why);
    void progress(Entry& entry, std::uint64_t done, std::uint64_t written);
    void ask(Entry& entry, Plan& plan);
    void changed();

    const Limits limits_;
    const Hooks hooks_;
    const Times times_;
    std::mutex mutex_;
    std::condition_variable_any changed_;
    std::uint64_t version_ = 0;  // counts changes
    std::uint64_t next_order_ = 0;
    std::map<std::uint64_t, EntryPtr> entries_;
    std::int64_t running_ = 0, running_urgent_ = 0;  // threads; of them, those of urgent streams
    std::optional<Clock::time_point> disconnected_since_;
    std::jthread dispatcher_;  // last: it uses the rest
};

}  // namespace sckpt
