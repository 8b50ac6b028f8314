// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/fast_tier.h"

#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <format>

#include "common/bytes.h"
#include "common/log.h"

namespace sckpt {
namespace {

// By the sizes of the files, in pages. What a huge page has beyond the end of its file counts in df(1), but the kernel gives it back when
// the tmpfs is full.
std::uint64_t measure(const std::string& directory) {
    constexpr std::uint64_t kPage = 4096;
    std::uint64_t bytes = kPage;
    std::error_code error;
    for (std::filesystem::recursive_directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
        std::error_code none;
        const std::uint64_t size = entry->is_regular_file(none) ? entry->file_size(none) : 0;
        bytes += none ? kPage : (size + kPage - 1) / kPage * kPage;
    }
    return bytes;
}

}  // namespace

std::uint64_t FastTier::used_locked() const {
    std::uint64_t sum = 0;
    for (const auto& [name, entry] : entries_) sum += entry.bytes;
    return sum;
}

std::uint64_t FastTier::used() const {
    const std::lock_guard lock(mutex_);
    return used_locked();
}

std::uint64_t FastTier::bytes_of(const std::string& name) const {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(name);
    return found == entries_.end() ? 0 : found->second.bytes;
}

std::string FastTier::why_full(std::uint64_t wanted) const {
    std::uint64_t captured = 0, writing = 0;
    int images = 0;
    for (const auto& [name, entry] : entries_) {
        (entry.kept ? captured : writing) += entry.bytes;
        images += entry.kept ? 1 : 0;
    }
    std::string text = std::format(
        "no space left for an image of about {}: the fast tier of this node ({}) is full of images that are not "
        "yet stored: {} of together {}",
        format_bytes(wanted), format_bytes(bytes_), images, format_bytes(captured));
    if (writing != 0) text += std::format(", and {} for images that are being written", format_bytes(writing));
    return text;
}

// The oldest one that may go, if all that may go make room enough: else they are left alone.
std::optional<std::string> FastTier::victim(std::uint64_t wanted) const {
    std::uint64_t stays = 0;
    const std::pair<const std::string, Entry>* oldest = nullptr;
    for (const auto& item : entries_) {
        const Entry& entry = item.second;
        const bool may_go = entry.created && entry.readers == 0 && !entry.going;
        if (!may_go) stays += entry.bytes;
        else if (oldest == nullptr || *entry.created < *oldest->second.created) oldest = &item;
    }
    if (oldest == nullptr || stays + wanted > bytes_) return std::nullopt;
    return oldest->first;
}

// The lock is let go while files are removed.
Result<> FastTier::take_away(const std::string& name, std::unique_lock<std::mutex>& lock) {
    entries_[name].going = true;
    lock.unlock();
    Result<> removed;
    if (unlink(state_file(name).c_str()) != 0 && errno != ENOENT) removed = fail_errno("remove " + state_file(name));
    if (removed) removed = hooks_.remove(directory(name));
    lock.lock();
    if (removed) {
        entries_.erase(name);
    } else {
        log_warning("an image stays in the fast tier: {}", removed.error().text);
        Entry& entry = entries_[name];
        entry.going = false;
        entry.created.reset();  // or it would be chosen again and again
        entry.bytes = measure(directory(name));
    }
    changed_.notify_all();
    return removed;
}

void FastTier::evict(const std::string& name, std::unique_lock<std::mutex>& lock) {
    if (!take_away(name, lock)) return;
    lock.unlock();
    log_info("{} has left the fast tier to make room: it is in the store", name);
    if (hooks_.evicted) hooks_.evicted(name);
    lock.lock();
}

Result<> FastTier::wait_for_room(const std::string& name, std::uint64_t bytes, Clock::time_point deadline, std::unique_lock<std::mutex>& lock) {
    for (;;) {
        if (!waiting_.contains(name)) return fail(Errc::busy, "the image is not wanted any more");
        if (used_locked() + bytes <= bytes_) return {};
        if (const auto oldest = victim(bytes)) evict(*oldest, lock);
        else if (Clock::now() >= deadline) return fail(Errc::no_space, why_full(bytes));
        else changed_.wait_until(lock, deadline);
    }
}

Result<> FastTier::make_room(const std::string& name, std::uint64_t bytes, Clock::time_point deadline, bool is_new) {
    if (bytes > bytes_)
        return fail(Errc::no_space, std::format("no space left: the image needs about {}, the fast tier of this node has {} "
                                                "(node.fast_tier_size)",
                                                format_bytes(bytes), format_bytes(bytes_)));
    std::unique_lock lock(mutex_);
    if ((is_new && entries_.contains(name)) || !waiting_.insert(name).second)
        return fail(Errc::exists, directory(name) + " is in use: an image of that name is there already");
    const Result<> room = wait_for_room(name, bytes, deadline, lock);
    waiting_.erase(name);
    if (room) entries_[name].bytes += bytes;
    return room;
}

Result<FastTier::Reservation> FastTier::reserve(const std::string& name, std::uint64_t bytes, Clock::time_point deadline) {
    SCKPT_TRY(make_room(name, bytes, deadline, true));
    return Reservation(this, name);
}

void FastTier::cancel(const std::string& name) {
    const std::lock_guard lock(mutex_);
    waiting_.erase(name);
    changed_.notify_all();
}

void FastTier::adopt(const std::string& name) {
    const std::uint64_t bytes = measure(directory(name));
    const std::lock_guard lock(mutex_);
    Entry& entry = entries_[name];
    entry.bytes = bytes;
    entry.kept = true;
    changed_.notify_all();
}

void FastTier::may_evict(const std::string& name, std::int64_t created) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(name);
    if (found == entries_.end()) return;
    found->second.created = created;
    changed_.notify_all();
}

std::optional<FastTier::Reader> FastTier::read(const std::string& name) {
    const std::lock_guard lock(mutex_);
    const auto found = entries_.find(name);
    if (found == entries_.end() || !found->second.kept || found->second.going) return std::nullopt;
    ++found->second.readers;
    return Reader(this, name);
}

void FastTier::end_reading(const std::string& name) {
    const std::lock_guard lock(mutex_);
    --entries_[name].readers;
    changed_.notify_all();
}

Result<> FastTier::remove(const std::string& name) {
    std::unique_lock lock(mutex_);
    const auto busy = [&] {
        const auto found = entries_.find(name);
        return found != entries_.end() && (found->second.readers > 0 || found->second.going);
    };
    changed_.wait(lock, [&] { return !busy(); });
    return entries_.contains(name) ? take_away(name, lock) : Result<>{};
}

}  // namespace sckpt
