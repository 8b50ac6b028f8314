// SPDX-License-Identifier: GPL-3.0-or-later
#include "backend/criu/child.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <format>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"

namespace sckpt::criu {

namespace {

// A child's error on the pipe: one byte of kind, then the text. Nothing at all: success, or another program.
[[noreturn]] void run_body(const ChildBody& body, UniqueFd pipe) {
    const auto done = body(pipe);
    if (done || !pipe) ::_exit(done ? 0 : 1);
    const std::string message = static_cast<char>(done.error().code) + done.error().text;
    ::_exit(write_all(pipe.get(), message) ? 1 : 2);
}

Result<std::string> read_to_end(int fd, Deadline deadline) {
    std::string bytes;
    std::array<char, 4096> buffer;
    for (;;) {
        SCKPT_TRY(wait_readable({fd}, deadline));
        const ssize_t n = ::read(fd, buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno("read a child's answer");
        if (n == 0) return bytes;
        bytes.append(buffer.data(), static_cast<std::size_t>(n));
    }
}

int reap(pid_t child) {
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

}  // namespace

// Milliseconds for poll(2), which cannot count far.
Result<std::size_t> wait_readable(std::initializer_list<int> fds, Deadline deadline) {
    using namespace std::chrono;
    std::vector<pollfd> items;
    for (const int fd : fds) items.push_back({fd, POLLIN, 0});
    for (;;) {
        const auto left = deadline - steady_clock::now();
        if (left <= 0s) return fail(Errc::timeout, "a process did not answer in time");
        const int n = ::poll(items.data(), items.size(), static_cast<int>(ceil<milliseconds>(std::min<steady_clock::duration>(left, 1h)).count()));
        if (n < 0 && errno != EINTR) return fail_errno("wait for a process");
        const auto ready = std::ranges::find_if(items, [](const pollfd& item) { return item.revents != 0; });
        if (n > 0) return static_cast<std::size_t>(ready - items.begin());
    }
}

Result<pid_t> start_child(const ChildBody& body, Deadline deadline) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno("make a pipe");
    UniqueFd in(ends[0]), out(ends[1]);
    const pid_t child = ::fork();
    if (child < 0) return fail_errno("start a process");
    if (child == 0) {
        in.reset();
        run_body(body, std::move(out));
    }
    out.reset();
    const auto answer = read_to_end(in.get(), deadline);
    if (answer && answer->empty()) return child;
    if (!answer) ::kill(child, SIGKILL);
    reap(child);
    if (!answer) return std::unexpected(answer.error());
    return fail(static_cast<Errc>((*answer)[0]), answer->substr(1));
}

Result<> in_child(const std::function<Result<>()>& body) {
    SCKPT_ASSIGN(const pid_t child, start_child([&](UniqueFd&) { return body(); }));
    const ExitStatus end{reap(child)};
    if (!end.ok()) return fail(Errc::internal, "a helper process ended by " + end.text());
    return {};
}

Result<ExitStatus> wait_until(pid_t child, Deadline deadline) {
    SCKPT_ASSIGN(const UniqueFd pidfd, open_pidfd(child));
    SCKPT_TRY(wait_readable({pidfd.get()}, deadline));
    return ExitStatus{reap(child)};
}

// By syscall(2): <sys/pidfd.h> of glibc 2.41 cannot be used from C++ (no extern "C").
Result<UniqueFd> open_pidfd(pid_t pid) {
    UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!pidfd) return fail_errno(std::format("open process {}", pid));
    return pidfd;
}

void kill_and_reap(pid_t child) {
    ::kill(child, SIGKILL);
    reap(child);
}

}  // namespace sckpt::criu
