// SPDX-License-Identifier: GPL-3.0-or-later
//
// The fast tier: node memory that dumps go to, and that restores read from. A tmpfs of sckptd's, root only, with one directory for each
// image and beside it the file "NAME.json", which says what the image is; it is written last and removed first, so a directory without it
// is a half-written image. That file lies outside because the directory is the service user's while its image is drained.
//
// No byte is written without a reservation, so that an image never fails half-way for want of room that another one took.
// Stored images stay as a cache: they make room for new ones, the oldest first, unless somebody reads them.
// Whoever fits goes first: a large image waits until there is room, and holds up nobody. Safe from any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/result.h"

namespace sckpt {

struct MountedTier {
    std::uint64_t bytes = 0;         // size of the tmpfs
    std::vector<std::string> notes;  // for the administrator
};

// Mounts a tmpfs of this size (0: a quarter of the node's memory) at the directory, which is made. One that is there already, of an earlier
// sckptd, is kept with all that is in it, and gets this size. Errors say what the administrator has to do.
Result<MountedTier> mount_fast_tier(const std::string& directory, std::uint64_t bytes);

class FastTier {
   public:
    using Clock = std::chrono::steady_clock;
    struct Hooks {
        std::function<Result<>(const std::string& directory)> remove;  // removes an image's directory
        std::function<void(const std::string& name)> evicted;          // a stored image has made room; called without a lock
    };
    FastTier(std::string directory, std::uint64_t bytes, Hooks hooks)
        : top_(std::move(directory)), bytes_(bytes), hooks_(std::move(hooks)) {}

    // Room for a new image. What is written there is removed with the reservation, unless keep() was called.
    class Reservation {
       public:
        Reservation(Reservation&& other) noexcept : tier_(std::exchange(other.tier_, nullptr)), name_(std::move(other.name_)) {}
        Reservation& operator=(Reservation&&) = delete;
        ~Reservation() {
            if (tier_ != nullptr) (void)tier_->remove(name_);
        }
        std::string directory() const { return tier_->directory(name_); }
        // Room for still more, as reserve() makes it.
        Result<> grow(std::uint64_t bytes, Clock::time_point deadline) { return tier_->make_room(name_, bytes, deadline, false); }
        // The image is whole: from now on it takes the room that it really uses.
        void keep() { std::exchange(tier_, nullptr)->adopt(name_); }

       private:
        friend class FastTier;
        Reservation(FastTier* tier, std::string name) : tier_(tier), name_(std::move(name)) {}
        FastTier* tier_;
        std::string name_;
    };

    // As long as it lives, the image stays.
    class Reader {
       public:
        Reader(Reader&& other) noexcept : tier_(std::exchange(other.tier_, nullptr)), name_(std::move(other.name_)) {}
        Reader& operator=(Reader&&) = delete;
        ~Reader() {
            if (tier_ != nullptr) tier_->end_reading(name_);
        }
        std::string directory() const { return tier_->directory(name_); }

       private:
        friend class FastTier;
        Reader(FastTier* tier, std::string name) : tier_(tier), name_(std::move(name)) {}
        FastTier* tier_;
        std::string name_;
    };

    // Waits for room until the deadline. Errc::no_space at once for what can never fit, and after the deadline; Errc::busy when cancelled;
    // Errc::exists for a name that is in use. The directory is not made.
    Result<Reservation> reserve(const std::string& name, std::uint64_t bytes, Clock::time_point deadline);
    void cancel(const std::string& name);  // a reserve() or grow() that waits, if any

    // Counts what is in the directory: it stays, and takes the room that it uses.
    void adopt(const std::string& name);
    // It may make room for others; `created` tells which one is the oldest.
    void may_evict(const std::string& name, std::int64_t created);
    std::optional<Reader> read(const std::string& name);  // nothing: there is no such image, or it is about to go
    // Waits for readers, then removes the image; one that is not there is success.
    Result<> remove(const std::string& name);

    std::string directory(const std::string& name) const { return top_ + "/" + name; }
    std::string state_file(const std::string& name) const { return top_ + "/" + name + ".json"; }
    std::uint64_t bytes() const { return bytes_; }
    std::uint64_t used() const;                             // reservations included
    std::uint64_t bytes_of(const std::string& name) const;  // 0: it is not there

   private:
    struct Entry {
        std::uint64_t bytes = 0;
        std::optional<std::int64_t> created;  // only of what may be evicted
        int readers = 0;
        bool kept = false;   // whole; else it is being written
        bool going = false;  // being removed
    };
    Result<> make_room(const std::string& name, std::uint64_t bytes, Clock::time_point deadline, bool is_new);
    Result<> wait_for_room(const std::string& name, std::uint64_t bytes, Clock::time_point deadline, std::unique_lock<std::mutex>& lock);
    std::uint64_t used_locked() const;
    std::optional<std::string> victim(std::uint64_t wanted) const;
    void evict(const std::string& name, std::unique_lock<std::mutex>& lock);
    Result<> take_away(const std::string& name, std::unique_lock<std::mutex>& lock);
    std::string why_full(std::uint64_t wanted) const;
    void end_reading(const std::string& name);

    const std::string top_;
    const std::uint64_t bytes_;
    const Hooks hooks_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::string, Entry> entries_;
    std::set<std::string> waiting_;  // in reserve()
};

}  // namespace sckpt
