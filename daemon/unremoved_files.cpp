// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/unremoved_files.h"

#include <algorithm>
#include <format>

namespace sckpt {

void UnremovedFiles::failed(const std::string& path, const std::string& why, std::int64_t now) {
    Entry& entry = files_[path];
    entry.why = why;
    entry.pause = entry.pause == 0 ? kFirstPause : std::min(2 * entry.pause, kLongestPause);
    entry.next_try = now + entry.pause;
}

void UnremovedFiles::removed(const std::string& path) { files_.erase(path); }

bool UnremovedFiles::is_put_off(const std::string& path, std::int64_t now) const {
    const auto found = files_.find(path);
    return found != files_.end() && found->second.next_try > now;
}

void UnremovedFiles::try_all_again() {
    for (auto& [path, entry] : files_) entry.next_try = 0;
}

std::string UnremovedFiles::text() const {
    if (files_.empty()) return "";
    const auto& [path, entry] = *files_.begin();
    const std::string first = entry.why.contains(path) ? entry.why : std::format("{}: {}", path, entry.why);
    if (files_.size() == 1) return "a file of the store cannot be removed, and is tried again later: " + first;
    return std::format("{} files of the store cannot be removed, and are tried again later; the first: {}", files_.size(), first);
}

}  // namespace sckpt
