// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a command shows while it works: a line that changes, or several of them, on a terminal; now and then a line in a log.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "common/result.h"

namespace sckpt::cli {

// One line on standard error.
class ProgressLine {
   public:
    ProgressLine();
    ProgressLine(int fd, bool terminal);
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;
    ~ProgressLine();  // takes the line away again

    // Takes the place of the line before. In a log it is written only when `news` is not what it was the last time.
    void show(const std::string& line, const std::string& news);
    // The same for what has no phases: in a log it is written every half minute at most.
    void tick(const std::string& line);
    void note(const std::string& line);  // a line that stays

   private:
    void put(const std::string& text) const;
    void clear();
    const int fd_;
    const bool terminal_;
    const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
    std::optional<std::string> news_;
    std::int64_t ticks_ = 0;
    bool shown_ = false;
};

// Lines at the end of a terminal that are drawn again and again in place; what is told besides scrolls away above them.
class LiveLines {
   public:
    explicit LiveLines(int fd) : fd_(fd) {}
    Result<> show(const std::string& told, const std::string& lines);  // whole lines, no longer than the terminal is wide

   private:
    const int fd_;
    int drawn_ = 0;
};

struct TerminalSize {
    int columns = 80, rows = 24;
};
TerminalSize terminal_size(int fd);  // the usual one where it cannot be told

}  // namespace sckpt::cli
