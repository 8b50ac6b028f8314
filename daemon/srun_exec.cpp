// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/srun_exec.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rpc/srun.h"

namespace sckpt {

namespace {

constexpr int kDirectory = 3, kLaunch = 4;  // in the order of `run`
constexpr int kExecFailed = 127;            // a shell's word for it

struct Placing {
    int ours = -1, number = -1;
};

std::vector<char*> pointers(std::vector<std::string>& texts) {
    std::vector<char*> result;
    for (std::string& text : texts) result.push_back(text.data());
    result.push_back(nullptr);
    return result;
}

// By name where the name still is that directory: after a restore the descriptor is of another mount namespace, and getcwd(3) would fail.
void enter_directory(const std::string& name, int directory) {
    struct stat named {
    }, meant{};
    const bool known = !name.empty() && ::stat(name.c_str(), &named) == 0 && ::fstat(directory, &meant) == 0;
    if (known && named.st_dev == meant.st_dev && named.st_ino == meant.st_ino && ::chdir(name.c_str()) == 0) return;
    (void)!::fchdir(directory);
}

// Puts all in place and closes everything else.
bool place(const std::vector<Placing>& places, int above) {
    std::vector<int> copies;
    for (const Placing& item : places) copies.push_back(::fcntl(item.ours, F_DUPFD_CLOEXEC, above));
    for (std::size_t i = 0; i < places.size(); ++i)
        if (copies[i] < 0 || ::dup2(copies[i], places[i].number) < 0) return false;
    for (int number = STDERR_FILENO + 1; number < above; ++number)
        if (std::ranges::none_of(places, [number](const Placing& item) { return item.number == number; })) ::close(number);
    return ::close_range(static_cast<unsigned>(above), ~0U, 0) == 0;
}

// The system call itself: glibc keeps signals 32 and 33 from sigaction(3). The kernel's struct begins with the handler.
void set_dispositions(SignalSet ignored) {
    constexpr std::size_t kKernelSetSize = (NSIG - 1) / 8;
    for (int signal = 1; signal < NSIG; ++signal) {
        alignas(8) std::array<std::uintptr_t, 8> action{};
        if (ignored & signal_bit(signal)) action[0] = reinterpret_cast<std::uintptr_t>(SIG_IGN);
        ::syscall(SYS_rt_sigaction, signal, action.data(), nullptr, kKernelSetSize);
    }
}

// A restored script remembers the limits of its first node; more than what is allowed here cannot be had.
void set_limits(const std::vector<rlimit>& limits) {
    for (std::size_t i = 0; i < limits.size(); ++i) {
        const auto resource = static_cast<__rlimit_resource>(i);
        rlimit now{};
        if (::getrlimit(resource, &now) != 0) continue;
        const rlimit wanted{std::min(limits[i].rlim_cur, now.rlim_max), std::min(limits[i].rlim_max, now.rlim_max)};
        ::setrlimit(resource, &wanted);
    }
}

// The child, up to its program. All signals are blocked when it begins.
[[noreturn]] void run_child(SrunLaunch& launch, const std::vector<Placing>& places, int directory, int above) {
    const std::vector<char*> argv = pointers(launch.argv), environment = pointers(launch.environment);
    ::setpgid(0, 0);
    enter_directory(launch.directory, directory);
    ::umask(launch.file_mask);
    if (launch.nice > ::getpriority(PRIO_PROCESS, 0)) ::setpriority(PRIO_PROCESS, 0, launch.nice);
    if (place(places, above)) {
        set_limits(launch.limits);
        set_dispositions(launch.ignored);
        set_blocked_signals(launch.blocked);
        ::execve(launch.program.c_str(), argv.data(), environment.data());
    }
    ::dprintf(STDERR_FILENO, "srun: error: sckpt cannot start %s: %s\n", launch.program.c_str(), std::strerror(errno));
    ::_exit(kExecFailed);
}

}  // namespace

Result<RunningSrun> start_srun(const std::vector<UniqueFd>& fds, const char* const* current_environment, SrunStep step) {
    if (fds.size() < srun::kRunFds) return fail(Errc::invalid, "srun was not passed its descriptors");
    SCKPT_ASSIGN(const std::string bytes, read_all(fds[kLaunch].get(), "the launch of srun", kMaxLaunch));
    SCKPT_ASSIGN(SrunLaunch launch, parse_srun_launch(bytes));
    if (launch.descriptors.size() != fds.size() - srun::kRunFds) return fail(Errc::invalid, "srun was not passed all of its descriptors");
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) return fail_errno("make a socket pair");
    UniqueFd report(ends[0]);
    const UniqueFd theirs(ends[1]);

    std::vector<Placing> places;
    for (int number = 0; number <= STDERR_FILENO; ++number) places.push_back({fds[static_cast<std::size_t>(number)].get(), number});
    for (std::size_t i = 0; i < launch.descriptors.size(); ++i) places.push_back({fds[srun::kRunFds + i].get(), launch.descriptors[i]});
    step.report = std::ranges::max(places, {}, &Placing::number).number + 1;
    places.push_back({theirs.get(), step.report});
    launch.environment = srun_environment(std::move(launch.environment), current_environment, step);

    const pid_t pid = ::fork();
    if (pid == 0) run_child(launch, places, fds[kDirectory].get(), step.report + 1);
    if (pid < 0) return fail_errno("fork");
    return RunningSrun{pid, std::move(report)};
}

}  // namespace sckpt
