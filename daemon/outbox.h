// SPDX-License-Identifier: GPL-3.0-or-later
//
// A queue between those who have something to say and the one thread that writes it to a gRPC stream.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <stop_token>

namespace sckpt {

// push() never blocks. pop() waits for a message, and answers nothing once `stop` is requested.
template <class Message>
class Outbox {
   public:
    void push(Message message) {
        const std::lock_guard lock(mutex_);
        queue_.push_back(std::move(message));
        ready_.notify_one();
    }
    std::optional<Message> pop(const std::stop_token& stop) {
        std::unique_lock lock(mutex_);
        if (!ready_.wait(lock, stop, [&] { return !queue_.empty(); })) return std::nullopt;
        Message message = std::move(queue_.front());
        queue_.pop_front();
        return message;
    }
    // Back to the front: the stream broke before it was written.
    void put_back(Message message) {
        const std::lock_guard lock(mutex_);
        queue_.push_front(std::move(message));
    }

   private:
    std::mutex mutex_;
    std::condition_variable_any ready_;
    std::deque<Message> queue_;
};

}  // namespace sckpt
