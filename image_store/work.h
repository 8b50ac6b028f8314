// SPDX-License-Identifier: GPL-3.0-or-later
//
// Threads that share one piece of work: started together, slowed down together, stopped by the first error, and their progress
// told about by the thread that waits for them.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "common/result.h"
#include "image_store/store.h"

namespace sckpt {

inline constexpr int kMaxThreads = 16;  // memory is bounded by it

class Work {
   public:
    explicit Work(const WorkOptions& options);
    ~Work();  // stops and waits
    Work(const Work&) = delete;
    Work& operator=(const Work&) = delete;

    // Runs `body` on each of the threads (fewer than asked for, where the system has no more; none is an error).
    Result<> start(std::function<Result<>()> body);
    int threads() const { return count_; }

    // For the threads. An error of pace() only says that the work has been stopped.
    Result<> pace(std::uint64_t plain);  // waits until so many bytes may be read
    void done(std::uint64_t plain, std::uint64_t written);
    bool stopped() const { return stopped_; }

    // For the thread that waits: tells the progress if it is time to; its error stops the work.
    Result<> tell();
    void stop(const Error& error);  // the first one counts
    Result<> finish();              // waits for the end of all threads; the first error

   private:
    using Clock = std::chrono::steady_clock;
    void run(const std::function<Result<>()>& body);

    const WorkOptions options_;
    const int count_;
    std::atomic<bool> stopped_ = false;
    std::atomic<std::uint64_t> plain_ = 0, written_ = 0;
    std::mutex mutex_;  // of the following
    std::condition_variable changed_;
    int running_ = 0;
    std::optional<Error> error_;
    Clock::time_point turn_ = Clock::now();  // when the next bytes may be read
    Clock::time_point told_{};
    std::vector<std::jthread> threads_;
};

}  // namespace sckpt
