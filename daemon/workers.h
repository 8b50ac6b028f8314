// SPDX-License-Identifier: GPL-3.0-or-later
//
// A fixed number of threads for what many senders have to have done, each sender's work in its order and one piece at a time.
//
// Work that may wait for others (slurmctld, a resolver) is posted to the slow lane, which has threads of its own: however long it waits
// there, the quick lane goes on. Only a sender's own later work waits for its earlier one.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "daemon/outbox.h"

namespace sckpt {

enum class Lane { quick, slow };

class Workers {
   public:
    using Work = std::function<void()>;
    class Strand;

    Workers(std::size_t quick_threads, std::size_t slow_threads);
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;
    // What is at work is waited for; what still waits is not done.
    ~Workers();

    // For one sender. It may outlive the workers: what is posted then is never done.
    std::shared_ptr<Strand> strand() const;

   private:
    struct Ready {  // strands that have something to do, in the lane of their next work
        Outbox<std::shared_ptr<Strand>> quick, slow;
        Outbox<std::shared_ptr<Strand>>& of(Lane lane) { return lane == Lane::quick ? quick : slow; }
    };
    std::shared_ptr<Ready> ready_ = std::make_shared<Ready>();
    std::vector<std::jthread> threads_;
};

class Workers::Strand : public std::enable_shared_from_this<Strand> {
   public:
    explicit Strand(std::shared_ptr<Ready> ready) : ready_(std::move(ready)) {}
    // Never blocks; from any thread. An exception that leaves the work is logged.
    void post(Lane lane, Work work);
    std::size_t waiting() const;  // pieces of work that are not done yet

   private:
    friend class Workers;
    void run_one();

    const std::shared_ptr<Ready> ready_;
    mutable std::mutex mutex_;
    std::deque<std::pair<Lane, Work>> queue_;  // the first may be at work
};

}  // namespace sckpt
