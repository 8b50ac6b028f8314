// SPDX-License-Identifier: GPL-3.0-or-later
//
// One write(2) a line: standard error is the service manager's stream or a terminal, and lines of two threads must not mix.
// What cannot be logged is dropped; a daemon never fails for its log.
#include "common/log.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <unistd.h>

namespace sckpt {

namespace {

std::atomic<LogLevel> current_level{LogLevel::info};

bool syslog_prefix() {
    static const bool wanted = [] {
        const char* value = std::getenv("SCKPT_LOG_PREFIX");
        return value != nullptr && std::string_view(value) == "syslog";
    }();
    return wanted;
}

std::string_view level_name(LogLevel level) {
    switch (level) {
        case LogLevel::error: return "error: ";
        case LogLevel::warning: return "warning: ";
        case LogLevel::info: return "";
        case LogLevel::debug: return "debug: ";
    }
    return "";
}

std::string time_stamp() {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    tm parts{};
    ::localtime_r(&now.tv_sec, &parts);
    char text[32];
    const std::size_t n = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    return std::string(text, n) + std::format(".{:03} ", now.tv_nsec / 1'000'000);
}

}  // namespace

void set_log_level(LogLevel level) { current_level = level; }

void log_line(LogLevel level, std::string_view text) {
    if (level > current_level.load()) return;
    std::string line = syslog_prefix() ? std::format("<{}>", static_cast<int>(level)) : time_stamp();
    line += level_name(level);
    line += text;
    // Texts carry names that users chose: a control character in them must not begin a line of its own or drive a terminal.
    std::replace_if(line.begin(), line.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
    line += '\n';
    for (std::string_view left = line; !left.empty();) {
        const ssize_t n = ::write(STDERR_FILENO, left.data(), left.size());
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;
        left.remove_prefix(static_cast<std::size_t>(n));
    }
}

}  // namespace sckpt
