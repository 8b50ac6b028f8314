// SPDX-License-Identifier: GPL-3.0-or-later
//
// The log of the daemons: one line a message to standard error, which the service manager keeps; syslog's levels as "<N>" prefixes
// (sd-daemon(3)) when SCKPT_LOG_PREFIX=syslog is set by the unit, a time stamp otherwise. Safe from any thread; a line is one write(2).
#pragma once

#include <format>
#include <string>
#include <string_view>

namespace sckpt {

enum class LogLevel { error = 3, warning = 4, info = 6, debug = 7 };  // the numbers of syslog(3)

void set_log_level(LogLevel level);  // messages above it are dropped; info at the start
void log_line(LogLevel level, std::string_view text);

template <class... A>
void log_error(std::format_string<A...> f, A&&... a) { log_line(LogLevel::error, std::format(f, std::forward<A>(a)...)); }
template <class... A>
void log_warning(std::format_string<A...> f, A&&... a) { log_line(LogLevel::warning, std::format(f, std::forward<A>(a)...)); }
template <class... A>
void log_info(std::format_string<A...> f, A&&... a) { log_line(LogLevel::info, std::format(f, std::forward<A>(a)...)); }
template <class... A>
void log_debug(std::format_string<A...> f, A&&... a) { log_line(LogLevel::debug, std::format(f, std::forward<A>(a)...)); }

}  // namespace sckpt
