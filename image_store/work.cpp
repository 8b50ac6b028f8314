// SPDX-License-Identifier: GPL-3.0-or-later
//
// Threads, pace and progress.
#include "image_store/work.h"

#include <algorithm>
#include <exception>
#include <format>
#include <system_error>

namespace sckpt {
namespace {

using namespace std::chrono_literals;
constexpr auto kTellEvery = 200ms;

}  // namespace

Work::Work(const WorkOptions& options) : options_(options), count_(std::clamp(options.threads, 1, kMaxThreads)) {}

Work::~Work() {
    stopped_ = true;
    changed_.notify_all();
}

Result<> Work::start(std::function<Result<>()> body) {
    for (int i = 0; i < count_; ++i) {
        try {
            const std::lock_guard lock(mutex_);
            threads_.emplace_back([this, body] { run(body); });
            ++running_;
        } catch (const std::system_error& error) {  // fewer threads do the same work
            if (threads_.empty()) return fail(Errc::busy, std::format("start a thread: {}", error.what()));
            break;
        }
    }
    return {};
}

void Work::run(const std::function<Result<>()>& body) {
    try {
        if (auto result = body(); !result) stop(result.error());
    } catch (const std::exception& error) {
        stop({Errc::internal, error.what()});
    }
    const std::lock_guard lock(mutex_);
    --running_;
    changed_.notify_all();
}

Result<> Work::pace(std::uint64_t plain) {
    std::unique_lock lock(mutex_);
    if (options_.bytes_per_second != 0) {
        const auto mine = std::max(turn_, Clock::now());
        turn_ = mine + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(
                           static_cast<double>(plain) / static_cast<double>(options_.bytes_per_second)));
        changed_.wait_until(lock, mine, [&] { return stopped_.load(); });
    }
    if (stopped_) return fail(Errc::busy, "stopped");
    return {};
}

void Work::done(std::uint64_t plain, std::uint64_t written) {
    plain_ += plain;
    written_ += written;
}

Result<> Work::tell() {
    if (!options_.progress || Clock::now() - told_ < kTellEvery) return {};
    told_ = Clock::now();
    return options_.progress(plain_, written_);
}

void Work::stop(const Error& error) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = error;
    stopped_ = true;
    changed_.notify_all();
}

Result<> Work::finish() {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, kTellEvery, [&] { return running_ == 0; })) {
        lock.unlock();
        if (auto told = tell(); !told) stop(told.error());
        lock.lock();
    }
    if (error_) return std::unexpected(*error_);
    lock.unlock();
    return options_.progress ? options_.progress(plain_, written_) : Result<>{};
}

}  // namespace sckpt
