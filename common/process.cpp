// SPDX-License-Identifier: GPL-3.0-or-later
//
// Children. The daemons have many threads: between fork and exec there are only async-signal-safe calls, so everything that the
// child needs is made before the fork. _Fork(3), not fork(3): the handlers that libraries leave with pthread_atfork(3) have no
// business in a child that only execs.
#include "common/process.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <format>
#include <ranges>
#include <set>
#include <tuple>

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace sckpt {

bool ExitStatus::ok() const { return WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0; }

std::string ExitStatus::text() const {
    if (WIFEXITED(wait_status)) return std::format("exit code {}", WEXITSTATUS(wait_status));
    if (!WIFSIGNALED(wait_status)) return std::format("wait status {:#x}", wait_status);
    const int signal = WTERMSIG(wait_status);
    const char* name = ::sigabbrev_np(signal);
    return name != nullptr ? std::format("killed by SIG{} ({})", name, signal) : std::format("killed by signal {}", signal);
}

// pidfd calls go through syscall(2): <sys/pidfd.h> of glibc 2.41 cannot be used from C++ (no extern "C").

// ---- spawn ----

namespace {

// What went wrong in the child before its program ran; sent through a pipe that a successful exec closes.
struct ChildFailure {
    enum class Step : int { descriptors, directory, exec } step;
    int error;
};

// Everything that the child needs, made by the parent.
struct Prepared {
    std::vector<char*> argv, environment;
    std::vector<UniqueFd> copies;              // above all of the child's numbers, so that no dup2 overwrites one still needed
    std::vector<std::pair<int, int>> placing;  // (copy, the child's number)
    UniqueFd failures_in, failures_out;
};

Result<UniqueFd> copy_above(int fd, int floor) {
    UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, floor));
    if (!copy) return fail_errno(std::format("duplicate descriptor {}", fd));
    return copy;
}

std::vector<char*> pointers(const std::vector<std::string>& strings) {
    std::vector<char*> result;
    for (const std::string& text : strings) result.push_back(const_cast<char*>(text.c_str()));
    result.push_back(nullptr);
    return result;
}

Result<> check_options(const SpawnOptions& options) {
    if (options.argv.empty() || !options.argv[0].starts_with('/'))
        return fail(Errc::internal,
                    "start a program: its path is not absolute: " + (options.argv.empty() ? "(none)" : options.argv[0]));
    std::set<int> targets;
    for (const auto& [ours, target] : options.descriptors)
        if (ours < 0 || target < 0 || !targets.insert(target).second)
            return fail(Errc::internal,
                        std::format("start {}: descriptor {} for {} makes no sense", options.argv[0], ours, target));
    return {};
}

Result<Prepared> prepare(const SpawnOptions& options) {
    Prepared prepared{pointers(options.argv), pointers(options.environment), {}, {}, {}, {}};
    int floor = STDERR_FILENO + 1;
    for (const auto& [ours, target] : options.descriptors) floor = std::max(floor, target + 1);
    SCKPT_ASSIGN(UniqueFd null, open_file("/dev/null", O_RDWR));
    auto wanted = options.descriptors;
    for (int standard = 0; standard <= STDERR_FILENO; ++standard)
        if (!std::ranges::contains(wanted | std::views::values, standard)) wanted.emplace_back(null.get(), standard);
    for (const auto& [ours, target] : wanted) {
        SCKPT_ASSIGN(UniqueFd copy, copy_above(ours, floor));
        prepared.placing.emplace_back(copy.get(), target);
        prepared.copies.push_back(std::move(copy));
    }
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno("make a pipe");
    prepared.failures_in.reset(ends[0]);
    const UniqueFd write_end(ends[1]);
    SCKPT_ASSIGN(prepared.failures_out, copy_above(write_end.get(), floor));
    return prepared;
}

[[noreturn]] void report_failure(int pipe, ChildFailure::Step step) {
    const ChildFailure failure{step, errno};
    const ssize_t written = ::write(pipe, &failure, sizeof failure);
    ::_exit(written == sizeof failure ? 127 : 126);
}

// Every signal back to its default (KILL and STOP refuse, which is fine). The system call itself, with the kernel's struct of
// zeros that means SIG_DFL: sigaction(3) of glibc 2.41 takes a lock for SIGABRT, which another thread may have held at the fork.
void reset_dispositions() {
    alignas(8) const std::array<char, 64> normal{};
    constexpr std::size_t kKernelSetSize = (NSIG - 1) / 8;
    for (int signal = 1; signal < NSIG; ++signal) ::syscall(SYS_rt_sigaction, signal, normal.data(), nullptr, kKernelSetSize);
}

// The child, up to its program. All signals are blocked when it begins: no handler of the daemon may run here.
[[noreturn]] void run_child(const Prepared& prepared, const char* directory) {
    const int pipe = prepared.failures_out.get();
    reset_dispositions();
    if (::close_range(0, ~0U, CLOSE_RANGE_CLOEXEC) != 0) report_failure(pipe, ChildFailure::Step::descriptors);
    for (const auto& [copy, target] : prepared.placing)
        if (::dup2(copy, target) < 0) report_failure(pipe, ChildFailure::Step::descriptors);
    if (::chdir(directory) != 0) report_failure(pipe, ChildFailure::Step::directory);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execve(prepared.argv[0], prepared.argv.data(), prepared.environment.data());
    report_failure(pipe, ChildFailure::Step::exec);
}

pid_t fork_with_signals_blocked(const Prepared& prepared, const char* directory) {
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    const pid_t pid = ::_Fork();
    if (pid == 0) run_child(prepared, directory);
    const int error = errno;
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    errno = error;
    return pid;
}

// Waits for the exec. An error is the child's word why there was none.
Result<> wait_for_exec(int pipe, const SpawnOptions& options) {
    ChildFailure failure{};
    ssize_t n = -1;
    do n = ::read(pipe, &failure, sizeof failure);
    while (n < 0 && errno == EINTR);
    if (n == 0) return {};
    const std::string& program = options.argv[0];
    if (n != sizeof failure) return fail(Errc::internal, "start " + program + ": its start-up report cannot be read");
    switch (failure.step) {
        case ChildFailure::Step::descriptors: return fail_errno("start " + program + ": place its descriptors", failure.error);
        case ChildFailure::Step::directory:
            return fail_errno("start " + program + " in " + options.working_directory, failure.error);
        case ChildFailure::Step::exec: break;
    }
    return fail_errno("start " + program, failure.error);
}

Result<int> reap(pid_t pid) {
    int status = 0;
    pid_t got = -1;
    do got = ::waitpid(pid, &status, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0) return fail_errno(std::format("wait for process {}", pid));
    return status;
}

}  // namespace

Result<ChildProcess> ChildProcess::spawn(const SpawnOptions& options) {
    SCKPT_TRY(check_options(options));
    SCKPT_ASSIGN(Prepared prepared, prepare(options));
    const pid_t pid = fork_with_signals_blocked(prepared, options.working_directory.c_str());
    if (pid < 0) return fail_errno("start " + options.argv[0] + ": fork");
    prepared.failures_out.reset();
    // Close-on-exec by itself. The child is not reaped yet, so the number is still its own.
    UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!pidfd) {
        const int error = errno;
        ::kill(pid, SIGKILL);
        std::ignore = reap(pid);
        return fail_errno("start " + options.argv[0] + ": pidfd_open", error);
    }
    ChildProcess child(pid, std::move(pidfd));
    SCKPT_TRY(wait_for_exec(prepared.failures_in.get(), options));  // on failure the destructor reaps
    return child;
}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), pidfd_(std::move(other.pidfd_)) {}

ChildProcess::~ChildProcess() {
    if (!pidfd_) return;
    kill(SIGKILL);
    std::ignore = reap(pid_);
}

void ChildProcess::kill(int signal) {
    if (pidfd_) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), signal, nullptr, 0);
}

// The pidfd is given up with the reaping: from then on the number may be another process's.
Result<ExitStatus> ChildProcess::wait(std::chrono::milliseconds deadline) {
    using namespace std::chrono;
    if (!pidfd_) return fail(Errc::internal, std::format("wait for process {}: it was waited for already", pid_));
    const auto end = steady_clock::now() + std::clamp<milliseconds>(deadline, 0ms, days(365));
    for (;;) {
        const auto left = std::clamp<milliseconds>(ceil<milliseconds>(end - steady_clock::now()), 0ms, days(1));
        pollfd item{pidfd_.get(), POLLIN, 0};
        const int n = ::poll(&item, 1, static_cast<int>(left.count()));
        if (n > 0) break;
        if (n < 0 && errno != EINTR) return fail_errno(std::format("wait for process {}", pid_));
        if (n == 0 && steady_clock::now() >= end)
            return fail(Errc::timeout, std::format("process {} did not end within {} ms", pid_, deadline.count()));
    }
    SCKPT_ASSIGN(const int status, reap(pid_));
    pidfd_.reset();
    return ExitStatus{status};
}

}  // namespace sckpt
