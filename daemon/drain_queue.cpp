// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/drain_queue.h"

#include <algorithm>
#include <utility>

#include "common/log.h"
#include "daemon/background.h"

namespace sckpt {
namespace {

// What is wrong with the image itself will not be better next time; everything else is the store's, or this moment's.
bool is_final(Errc code) { return code == Errc::corrupt || code == Errc::invalid; }

// Of two limits, 0 meaning none.
std::uint64_t lower_limit(std::uint64_t a, std::uint64_t b) { return a == 0 || b == 0 ? std::max(a, b) : std::min(a, b); }

}  // namespace

DrainQueue::DrainQueue(Limits limits, Hooks hooks, Times times)
    : limits_(limits), hooks_(std::move(hooks)), times_(times), dispatcher_([this](const std::stop_token& stop) {
          while (!stop.stop_requested()) dispatch(stop);
      }) {}

DrainQueue::~DrainQueue() {
    dispatcher_.request_stop();
    dispatcher_.join();
    std::unique_lock lock(mutex_);
    for (const auto& [id, entry] : entries_) {
        entry->removed = true;
        entry->stop = true;
    }
    changed_.wait(lock, [&] { return running_ == 0; });
}

// With the lock held.
void DrainQueue::changed() {
    ++version_;
    changed_.notify_all();
}

// ---------------------------------------------------------------- what others say

void DrainQueue::add(std::uint64_t id, std::uint64_t bytes, bool urgent) {
    const std::lock_guard lock(mutex_);
    const auto [place, is_new] = entries_.try_emplace(id);
    if (!is_new) return;
    place->second = std::make_shared<Entry>();
    Entry& entry = *place->second;
    entry.id = id;
    entry.order = next_order_++;
    entry.retry = times_.first_retry;
    entry.state.total = bytes;
    entry.state.urgent = urgent;
    changed();
}

void DrainQueue::make_urgent(std::uint64_t id) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end() || found->second->state.urgent) return;
    Entry& entry = *found->second;
    entry.state.urgent = true;
    entry.next_try = {};
    entry.retry = times_.first_retry;
    entry.reported = {};
    if (!entry.running) entry.grant = Grant::none;  // that was for a periodic one
    entry.stop = entry.running && entry.state.done < entry.state.total / 2;  // else it is sooner done than begun anew
    changed();
}

void DrainQueue::grant(std::uint64_t id, std::uint64_t bytes_per_second) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) return;
    found->second->grant = Grant::given;
    found->second->granted_rate = bytes_per_second;
    changed();
}

void DrainQueue::reconnected() {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, entry] : entries_) {
        entry->grant = Grant::none;
        entry->reported = {};
    }
    disconnected_since_.reset();
    changed();
}

void DrainQueue::remove(std::uint64_t id) {
    std::unique_lock lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) return;
    const EntryPtr entry = found->second;
    entry->removed = true;
    entry->stop = true;
    changed_.wait(lock, [&] { return !entry->running; });
    entries_.erase(id);
    changed();
}

// ---------------------------------------------------------------- who goes next

void DrainQueue::dispatch(const std::stop_token& stop) try {
    std::unique_lock lock(mutex_);
    while (!stop.stop_requested()) {
        const std::uint64_t seen = version_;
        const Plan now = plan();
        lock.unlock();
        for (const auto& [id, bytes, urgent] : now.ask) hooks_.ask(id, bytes, urgent);
        for (const auto& [id, state] : now.report) hooks_.report(id, state);
        lock.lock();
        const auto news = [&] { return version_ != seen; };
        if (now.wake == Clock::time_point::max()) changed_.wait(lock, stop, news);
        else changed_.wait_until(lock, stop, now.wake, news);
    }
} catch (const std::exception& e) {  // no memory: what was to be said is said at the next connection
    log_error("drains: {}", e.what());
    std::this_thread::sleep_for(times_.report_every);
}

// With the lock held. Starts what may start; asks and reports are left to the caller.
DrainQueue::Plan DrainQueue::plan() {
    Plan plan;
    std::vector<EntryPtr> order;
    for (const auto& [id, entry] : entries_) order.push_back(entry);
    std::ranges::sort(order, {}, [](const EntryPtr& entry) { return std::pair(!entry->state.urgent, entry->order); });
    std::int64_t free = std::max<std::int64_t>(limits_.streams, 1) - (running_ - running_urgent_);
    std::int64_t free_urgent = std::max<std::int64_t>(limits_.urgent_streams, 1) - running_urgent_;
    for (const EntryPtr& entry : order) {
        if (entry->removed) continue;
        if (entry->running) {
            if (entry->grant == Grant::none && hooks_.connected()) ask(*entry, plan);  // it is counted there all the same
        } else if (Clock::now() < entry->next_try) {
            plan.wake = std::min(plan.wake, entry->next_try);
        } else if (entry->state.urgent ? free_urgent > 0 : free > 0) {
            --(entry->state.urgent ? free_urgent : free);
            if (may_start(*entry, plan)) start(entry, plan);
        } else if (entry->state.urgent) {
            free = 0;  // the others come after it
        }
        if (entry->reported != Clock::time_point{}) continue;
        entry->reported = Clock::now();
        plan.report.emplace_back(entry->id, entry->state);
    }
    return plan;
}

void DrainQueue::ask(Entry& entry, Plan& plan) {
    entry.grant = Grant::asked;
    plan.ask.push_back({entry.id, entry.state.total, entry.state.urgent});
}

// One whose turn it is on this node.
bool DrainQueue::may_start(Entry& entry, Plan& plan) {
    if (entry.grant == Grant::given) return true;
    const auto now = Clock::now();
    if (hooks_.connected()) {
        disconnected_since_.reset();
        if (entry.grant == Grant::none) ask(entry, plan);
    } else {
        if (!disconnected_since_) disconnected_since_ = now;
        if (entry.state.urgent || now >= *disconnected_since_ + times_.patience) return true;
    }
    plan.wake = std::min(plan.wake, now + times_.patience / 4);  // nobody tells that a connection is lost
    return false;
}

// ---------------------------------------------------------------- one run

void DrainQueue::start(const EntryPtr& entry, Plan& plan) {
    const bool urgent = entry->state.urgent;
    const auto streams = static_cast<std::uint64_t>(std::max<std::int64_t>(limits_.streams, 1));
    StoreCall call;
    call.progress = [this, entry](std::uint64_t done, std::uint64_t written) { progress(*entry, done, written); };
    call.stop = &entry->stop;
    call.idle = !urgent;
    const std::uint64_t share = limits_.bandwidth == 0 ? 0 : std::max<std::uint64_t>(limits_.bandwidth / streams, 1);
    call.bytes_per_second = urgent ? 0 : lower_limit(share, entry->granted_rate);
    entry->stop = false;
    if (!in_background([this, entry, call] { run(entry, call); })) {
        put_off(*entry, "this node has no thread for it");
        plan.wake = std::min(plan.wake, entry->next_try);
        return;
    }
    entry->running = true;
    entry->urgent_run = urgent;
    running_urgent_ += urgent ? 1 : 0;
    ++running_;
    entry->state.phase = DrainState::Phase::copying;
    entry->state.text.clear();
    entry->state.done = entry->state.written = entry->state.rate = entry->reported_done = 0;
    entry->reported = {};
}

void DrainQueue::run(const EntryPtr& entry, const StoreCall& call) {
    const Result<> outcome = [&]() -> Result<> {
        try {
            return hooks_.drain(entry->id, call);
        } catch (const std::exception& e) {
            return fail(Errc::internal, e.what());
        }
    }();
    std::unique_lock lock(mutex_);
    finish(entry, outcome, lock);
    if (entry->urgent_run) --running_urgent_;
    --running_;
    entry->running = false;
    changed();
}

void DrainQueue::finish(const EntryPtr& entry, const Result<>& outcome, std::unique_lock<std::mutex>& lock) {
    if (entry->removed) return;
    if (outcome || (is_final(outcome.error().code) && !entry->stop)) {
        lock.unlock();
        hooks_.ended(entry->id, outcome);
        lock.lock();
        if (!entry->removed) entries_.erase(entry->id);
        return;
    }
    entry->grant = Grant::none;
    entry->reported = {};
    if (entry->stop) {  // it has become urgent
        entry->state.phase = DrainState::Phase::queued;
        return;
    }
    log_warning("checkpoint row {} is not stored yet: {}; tried again in {} ms", entry->id, outcome.error().text, entry->retry.count());
    put_off(*entry, outcome.error().text);
}

void DrainQueue::put_off(Entry& entry, const std::string& why) {
    entry.state.phase = DrainState::Phase::waiting;
    entry.state.text = why;
    entry.state.rate = 0;
    entry.reported = {};
    entry.next_try = Clock::now() + entry.retry;
    entry.retry = std::min(entry.retry * 2, times_.longest_retry);
}

void DrainQueue::progress(Entry& entry, std::uint64_t done, std::uint64_t written) {
    DrainState state;
    {
        const std::lock_guard lock(mutex_);
        const auto now = Clock::now();
        entry.state.done = done;
        entry.state.written = written;
        const auto since = std::chrono::duration_cast<std::chrono::milliseconds>(now - entry.reported);
        if (entry.reported == Clock::time_point{} || since < times_.report_every) return;
        const auto passed = static_cast<std::uint64_t>(std::max<std::int64_t>(since.count(), 1));
        entry.state.rate = (done - std::min(done, entry.reported_done)) * 1000 / passed;
        entry.reported = now;
        entry.reported_done = done;
        state = entry.state;
    }
    hooks_.report(entry.id, state);
}

}  // namespace sckpt
