// SPDX-License-Identifier: GPL-3.0-or-later
//
// Files of the store that could not be removed. Each is tried again after a pause that doubles, and holds up no other file. Not kept: after a
// restart of sckptctld all are tried again. Times are Unix seconds.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace sckpt {

class UnremovedFiles {
   public:
    static constexpr std::int64_t kFirstPause = 60, kLongestPause = 3600;
    static constexpr std::size_t kMost = 1000;  // more, and it is the store that is the trouble

    void failed(const std::string& path, const std::string& why, std::int64_t now);
    void removed(const std::string& path);
    bool is_put_off(const std::string& path, std::int64_t now) const;
    void try_all_again();  // somebody has asked for it

    std::size_t size() const { return files_.size(); }
    bool too_many() const { return files_.size() >= kMost; }
    std::string text() const;  // for people; "" when there are none

   private:
    struct Entry {
        std::string why;
        std::int64_t next_try = 0, pause = 0;
    };
    std::map<std::string, Entry> files_;
};

}  // namespace sckpt
