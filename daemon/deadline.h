// SPDX-License-Identifier: GPL-3.0-or-later
//
// Calls `end`, from a thread of its own, when this is not gone before the time is up. For a call that blocks and has no deadline itself.
// `end` must not wait for the owner of this.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>

#include "common/log.h"

namespace sckpt {

class Deadline {
   public:
    Deadline(std::chrono::milliseconds time, std::function<void()> end) {
        try {
            thread_ = std::jthread([this, time, end = std::move(end)](const std::stop_token& stop) { wait(stop, time, end); });
        } catch (const std::system_error& error) {  // the call is made all the same
            log_warning("no thread for a deadline: {}", error.what());
        }
    }
    Deadline(const Deadline&) = delete;
    Deadline& operator=(const Deadline&) = delete;

   private:
    void wait(const std::stop_token& stop, std::chrono::milliseconds time, const std::function<void()>& end) {
        std::unique_lock lock(mutex_);
        changed_.wait_for(lock, stop, time, [] { return false; });
        if (!stop.stop_requested()) end();
    }

    std::mutex mutex_;
    std::condition_variable_any changed_;
    std::jthread thread_;  // last: it uses the rest
};

}  // namespace sckpt
