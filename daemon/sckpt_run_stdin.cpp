// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/sckpt_run_stdin.h"

#include <algorithm>
#include <array>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sckpt {

namespace {

constexpr std::size_t kPieceSize = 64 * 1024;

// The pipe that is descriptor 0, opened anew: its read end is one with the program's, and O_NONBLOCK there would be the program's too.
UniqueFd reopen_pipe(int flags) { return UniqueFd(::open("/proc/self/fd/0", flags | O_NONBLOCK | O_CLOEXEC)); }

}  // namespace

bool InputRelay::open() {
    struct stat st {};
    if (::fstat(STDIN_FILENO, &st) != 0 || !(S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode))) return true;
    std::array<int, 2> ends{};
    UniqueFd input(::fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
    if (!input || ::pipe2(ends.data(), O_CLOEXEC) != 0) return false;
    const UniqueFd read_end(ends[0]);
    UniqueFd write_end(ends[1]);
    if (::fcntl(write_end.get(), F_SETFL, O_NONBLOCK) != 0 || ::dup2(read_end.get(), STDIN_FILENO) < 0) return false;
    input_ = std::move(input);
    pipe_ = std::move(write_end);
    ours_ = true;
    return true;
}

void InputRelay::undo() {
    if (ours_) ::dup2(input_.get(), STDIN_FILENO);
}

void InputRelay::start(std::uint64_t consumed) {
    started_ = true;
    received_ = left_out_ = consumed;
}

void InputRelay::serve_input() {
    std::array<char, kPieceSize> bytes;
    const std::size_t wanted = left_out_ > 0 ? std::min<std::uint64_t>(left_out_, bytes.size()) : bytes.size();
    const ssize_t got = ::read(input_.get(), bytes.data(), wanted);
    if (got <= 0) {
        input_.reset();
    } else if (left_out_ > 0) {
        left_out_ -= static_cast<std::uint64_t>(got);
    } else {
        received_ += static_cast<std::uint64_t>(got);
        pending_.assign(bytes.data(), static_cast<std::size_t>(got));
    }
    serve_output();
}

void InputRelay::serve_output() {
    const ssize_t put = pending_.empty() ? 0 : ::write(pipe_.get(), pending_.data(), pending_.size());
    if (put > 0) pending_.erase(0, static_cast<std::size_t>(put));
    close_if_done();
}

// The program sees the end of its input once it has read all of it.
void InputRelay::close_if_done() {
    if (!input_ && pending_.empty()) pipe_.reset();
}

void InputRelay::hold() {
    held_ = true;
    if (!ours_) return;
    if (!pipe_) pipe_ = reopen_pipe(O_WRONLY);  // else the program would see the end while its bytes are here
    const UniqueFd unread = reopen_pipe(O_RDONLY);
    std::array<char, kPieceSize> bytes;
    std::string taken;
    for (ssize_t got; (got = ::read(unread.get(), bytes.data(), bytes.size())) > 0;)
        taken.append(bytes.data(), static_cast<std::size_t>(got));
    pending_.insert(0, taken);
    close_if_done();
}

void InputRelay::go_on() {
    held_ = false;
    if (ours_) serve_output();
}

}  // namespace sckpt
