// SPDX-License-Identifier: GPL-3.0-or-later
//
// What an earlier sckptd left in the fast tier: captured images, whose drain goes on; stored ones, which stay as a cache; and half-written or
// not released ones, which are removed as soon as nobody works in them any more.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <format>

#include "common/log.h"
#include "daemon/background.h"
#include "daemon/node_agent.h"

namespace sckpt {

void NodeAgent::recover() {
    std::vector<std::string> directories, files;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(config_.node.fast_tier, error), end; !error && entry != end; entry.increment(error)) {
        std::error_code unknown;
        (entry->is_directory(unknown) ? directories : files).push_back(entry->path().filename().string());
    }
    if (error) log_error("{} cannot be read: {}", config_.node.fast_tier, error.message());
    std::ranges::sort(directories, {},
                      [](const std::string& name) { return std::pair(name.size(), name); });  // drains: the older image first
    std::set<std::string> states;
    for (const std::string& name : directories) {
        tier_->adopt(name);
        if (take_up(name)) states.insert(name + ".json");
        else begin_removal(name);
    }
    for (const std::string& name : files)  // what else is there is criu's
        if (name.starts_with("ckpt-") && !states.contains(name)) unlink((config_.node.fast_tier + "/" + name).c_str());
}

// Whether the directory holds what its record says.
bool NodeAgent::take_up(const std::string& name) {
    const auto text = read_file(tier_->state_file(name));
    if (!text) return false;
    const auto part = parse_held_part(*text);
    if (!part || part->fast_name() != name) {
        log_warning("{}: its record cannot be read, so it is removed", tier_->directory(name));
        return false;
    }
    {
        const std::lock_guard lock(mutex_);
        held_[part->id()] = *part;
    }
    if (part->acknowledged) {
        tier_->may_evict(name, part->identity().created);
    } else if (!part->stored()) {
        log_info("checkpoint row {} found: its drain goes on", part->id());
        drains_->add(part->id(), part->bytes(), part->urgent);
    }
    return true;
}

void NodeAgent::begin_removal(const std::string& name) {
    {
        const std::lock_guard lock(mutex_);
        ++leftovers_;
    }
    if (in_background([this, name] { remove_leftover(name); })) return;
    const std::lock_guard lock(mutex_);
    --leftovers_;
}

// The driver of an earlier sckptd may still be at work there, and must not be ended: it holds the job's processes, or is about to bring
// them back. It keeps its image directory locked, which is this one (a restore's) or one below it.
void NodeAgent::remove_leftover(const std::string& name) {
    const std::string top = tier_->directory(name);
    std::vector<std::string> directories = {top};
    std::error_code error, unknown;
    for (std::filesystem::directory_iterator entry(top, error), end; !error && entry != end; entry.increment(error))
        if (entry->is_directory(unknown)) directories.push_back(entry->path().string());
    for (const std::string& directory : directories) {
        const auto open = open_file(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
        if (!open || flock(open->get(), LOCK_EX | LOCK_NB) == 0) continue;
        log_info("{}: an earlier sckptd's dump or restore is still under way", directory);
        while (flock(open->get(), LOCK_EX) != 0 && errno == EINTR) {
        }
    }
    (void)tier_->remove(name);  // logs what stays
    const std::lock_guard lock(mutex_);
    --leftovers_;
    leftover_ended_.notify_all();
}

// Two dumps of one tree would disturb each other.
Result<> NodeAgent::wait_for_leftovers(FastTier::Clock::time_point deadline) {
    std::unique_lock lock(mutex_);
    if (leftover_ended_.wait_until(lock, deadline, [&] { return leftovers_ == 0; })) return {};
    return fail(Errc::busy, "a dump that an earlier sckptd began on this node does not end");
}

}  // namespace sckpt
