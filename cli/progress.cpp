// SPDX-License-Identifier: GPL-3.0-or-later
#include "cli/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>
#include <algorithm>
#include <format>

#include "cli/output.h"
#include "common/fd.h"

namespace sckpt::cli {
namespace {

constexpr std::string_view kClear = "\r\033[K";  // the line, and to its beginning
constexpr std::chrono::seconds kTick{30};

}  // namespace

TerminalSize terminal_size(int fd) {
    TerminalSize result;
    winsize size{};
    if (ioctl(fd, TIOCGWINSZ, &size) != 0) return result;
    if (size.ws_col > 0) result.columns = size.ws_col;
    if (size.ws_row > 0) result.rows = size.ws_row;
    return result;
}

ProgressLine::ProgressLine() : ProgressLine(STDERR_FILENO, isatty(STDERR_FILENO) == 1) {}

ProgressLine::ProgressLine(int fd, bool terminal) : fd_(fd), terminal_(terminal) {}

ProgressLine::~ProgressLine() { clear(); }

// Nobody can be told when standard error itself fails.
void ProgressLine::put(const std::string& text) const { [[maybe_unused]] const auto written = write_all(fd_, text); }

void ProgressLine::clear() {
    if (shown_) put(std::string(kClear));
    shown_ = false;
}

void ProgressLine::show(const std::string& line, const std::string& news) {
    const std::string text = printable(line);
    const bool new_to_a_log = news_ != news;
    news_ = news;
    if (!terminal_) return new_to_a_log ? put(text + "\n") : void();
    shown_ = true;
    // A line that wraps could not be taken away again.
    const int width = std::max(terminal_size(fd_).columns - 1, 1);
    put(std::string(kClear) + shorten(text, static_cast<std::size_t>(width)));
}

void ProgressLine::tick(const std::string& line) {
    if (terminal_) return show(line, "");
    const std::int64_t ticks = (std::chrono::steady_clock::now() - started_) / kTick;
    if (ticks != std::exchange(ticks_, ticks)) note(line);
}

void ProgressLine::note(const std::string& line) {
    clear();
    put(printable(line) + "\n");
}

Result<> LiveLines::show(const std::string& told, const std::string& lines) {
    const std::string back = drawn_ > 0 ? std::format("\033[{}A\r\033[J", drawn_) : "";
    drawn_ = static_cast<int>(std::ranges::count(lines, '\n'));
    return write_all(fd_, back + told + lines);
}

}  // namespace sckpt::cli
