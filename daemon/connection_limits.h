// SPDX-License-Identifier: GPL-3.0-or-later
//
// How many connections to sckptd's socket one user may hold: each costs a thread and a few descriptors of root's, and anyone may connect.
// - kMaxNew of those whose task does not run yet: they last at most a few seconds (see NodeAgent::serve), or wait for a restore.
//   256 tasks of one user can start at the same moment on a node; a sckpt-run that finds no room asks again by itself.
// - kMaxAll in all: more tasks of one user no node runs.
// What is beyond is closed at once. Other users do not notice.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <sys/types.h>
#include <utility>

namespace sckpt {

class ConnectionLimits {
   public:
    static constexpr int kMaxNew = 256, kMaxAll = 4096;

    // One connection's place; it is free again when this is destroyed.
    class Place {
       public:
        Place(Place&& other) noexcept : limits_(std::exchange(other.limits_, nullptr)), uid_(other.uid_), is_new_(other.is_new_) {}
        Place& operator=(Place&&) = delete;
        ~Place() {
            if (limits_ != nullptr) limits_->leave(uid_, is_new_);
        }
        // From now on it counts as a task's.
        void identified() {
            if (std::exchange(is_new_, false)) limits_->identified(uid_);
        }

       private:
        friend class ConnectionLimits;
        Place(ConnectionLimits* limits, uid_t uid) : limits_(limits), uid_(uid) {}
        ConnectionLimits* limits_;
        uid_t uid_;
        bool is_new_ = true;
    };

    std::optional<Place> enter(uid_t uid) {
        const std::lock_guard lock(mutex_);
        Held& held = held_[uid];
        if (held.fresh >= kMaxNew || held.all >= kMaxAll) return std::nullopt;
        ++held.fresh;
        ++held.all;
        return Place(this, uid);
    }

   private:
    struct Held {
        int fresh = 0, all = 0;
    };
    void identified(uid_t uid) {
        const std::lock_guard lock(mutex_);
        --held_[uid].fresh;
    }
    void leave(uid_t uid, bool is_new) {
        const std::lock_guard lock(mutex_);
        const auto held = held_.find(uid);
        if (is_new) --held->second.fresh;
        if (--held->second.all == 0) held_.erase(held);
    }

    std::mutex mutex_;
    std::map<uid_t, Held> held_;
};

}  // namespace sckpt
