// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/workers.h"

#include <exception>

#include "common/log.h"

namespace sckpt {

Workers::Workers(std::size_t quick_threads, std::size_t slow_threads) {
    for (std::size_t i = 0; i < quick_threads + slow_threads; ++i) {
        const Lane lane = i < quick_threads ? Lane::quick : Lane::slow;
        threads_.emplace_back([ready = ready_, lane](const std::stop_token& stop) {
            while (const auto strand = ready->of(lane).pop(stop)) {
                if (stop.stop_requested()) return;
                (*strand)->run_one();
            }
        });
    }
}

Workers::~Workers() {
    for (std::jthread& thread : threads_) thread.request_stop();
}

std::shared_ptr<Workers::Strand> Workers::strand() const { return std::make_shared<Strand>(ready_); }

void Workers::Strand::post(Lane lane, Work work) {
    {
        const std::lock_guard lock(mutex_);
        queue_.emplace_back(lane, std::move(work));
        if (queue_.size() > 1) return;  // what is before it brings it to its lane
    }
    ready_->of(lane).push(shared_from_this());
}

std::size_t Workers::Strand::waiting() const {
    const std::lock_guard lock(mutex_);
    return queue_.size();
}

void Workers::Strand::run_one() {
    Work work;
    {
        const std::lock_guard lock(mutex_);
        work = std::move(queue_.front().second);
    }
    try {
        work();
    } catch (const std::exception& e) {
        log_error("work for a node failed: {}", e.what());
    }
    work = nullptr;  // what it holds may be the last of its kind, and is let go while nothing else of this strand runs
    Lane next{};
    {
        const std::lock_guard lock(mutex_);
        queue_.pop_front();
        if (queue_.empty()) return;
        next = queue_.front().first;
    }
    ready_->of(next).push(shared_from_this());
}

}  // namespace sckpt
