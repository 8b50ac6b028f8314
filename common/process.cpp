// SPDX-License-Identifier: GPL-3.0-or-later
//
// Children. The daemons have many threads: between clone and exec there are only async-signal-safe calls, so everything that the
// child needs is made before. clone3(2) itself, not fork(3): the handlers that libraries leave with pthread_atfork(3) have no
// business in a child that only execs, and fork cannot make a PID namespace. What changes credentials is called by syscall(2) as well:
// glibc's wrappers would have every thread follow, and the child has one.
#include "common/process.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <format>
#include <ranges>
#include <set>
#include <tuple>

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/ioprio.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
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

// What the child tells before its program runs, through a socket that a successful exec closes: what went wrong, or `tied`, which
// waits for an answer.
struct ChildReport {
    enum class Step : int { descriptors, directory, user, tie, tied, exec } step;
    int error;
};
using Step = ChildReport::Step;

// Everything that the child needs, made by the parent.
struct Prepared {
    std::vector<char*> argv, environment;
    std::vector<UniqueFd> copies;              // above all of the child's numbers, so that no dup2 overwrites one still needed
    std::vector<std::pair<int, int>> placing;  // (copy, the child's number)
    UniqueFd reports_in, reports_out;
    int floor = STDERR_FILENO + 1;             // the child's numbers are below it, everything else that it needs is not
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
    if (options.user && (options.user->uid == 0 || options.user->uid == uid_t(-1) || options.user->gid == gid_t(-1)))
        return fail(Errc::internal, std::format("start {}: as user {} and group {}", options.argv[0], options.user->uid, options.user->gid));
    return {};
}

Result<Prepared> prepare(const SpawnOptions& options) {
    Prepared prepared{pointers(options.argv), pointers(options.environment), {}, {}, {}, {}};
    for (const auto& [ours, target] : options.descriptors) prepared.floor = std::max(prepared.floor, target + 1);
    SCKPT_ASSIGN(UniqueFd null, open_file("/dev/null", O_RDWR));
    auto wanted = options.descriptors;
    for (int standard = 0; standard <= STDERR_FILENO; ++standard)
        if (!std::ranges::contains(wanted | std::views::values, standard)) wanted.emplace_back(null.get(), standard);
    for (const auto& [ours, target] : wanted) {
        SCKPT_ASSIGN(UniqueFd copy, copy_above(ours, prepared.floor));
        prepared.placing.emplace_back(copy.get(), target);
        prepared.copies.push_back(std::move(copy));
    }
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) return fail_errno("make a socket pair");
    prepared.reports_in.reset(ends[0]);
    const UniqueFd childs_end(ends[1]);
    SCKPT_ASSIGN(prepared.reports_out, copy_above(childs_end.get(), prepared.floor));
    return prepared;
}

// ---- in the child ----

[[noreturn]] void report_failure(int socket, Step step) {
    const ChildReport report{step, errno};
    const ssize_t sent = ::send(socket, &report, sizeof report, MSG_NOSIGNAL);
    ::_exit(sent == sizeof report ? 127 : 126);
}

// Every signal back to its default (KILL and STOP refuse, which is fine). The system call itself, with the kernel's struct of
// zeros that means SIG_DFL: sigaction(3) of glibc 2.41 takes a lock for SIGABRT, which another thread may have held at the fork.
void reset_dispositions() {
    alignas(8) const std::array<char, 64> normal{};
    constexpr std::size_t kKernelSetSize = (NSIG - 1) / 8;
    for (int signal = 1; signal < NSIG; ++signal) ::syscall(SYS_rt_sigaction, signal, normal.data(), nullptr, kKernelSetSize);
}

// Becomes the user for good. The bounding set needs CAP_SETPCAP, which a container may lack; no_new_privs alone is enough.
bool become(const UserIds& user) {
    for (unsigned long capability = 0; ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0; ++capability) {
    }
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    const std::array<__user_cap_data_struct, 2> none{};
    return ::syscall(SYS_setgroups, 0, nullptr) == 0 && ::syscall(SYS_setresgid, user.gid, user.gid, user.gid) == 0 &&
           ::syscall(SYS_setresuid, user.uid, user.uid, user.uid) == 0 && ::syscall(SYS_capset, &header, none.data()) == 0 &&
           ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
}

// A courtesy: where a container forbids it the child works all the same. The class counts among the processes of one cgroup or session alone;
// between sessions it is autogroup's weight that counts, where it is on, and between cgroups theirs.
constexpr char kAutogroupNice[] = "13";  // a weight of 56, where a session has 1024 (sched_prio_to_weight of the kernel)
void be_idle(int group) {
    if (group >= 0) std::ignore = ::write(group, "0", 1);
    ::setsid();
    const int autogroup = ::open("/proc/self/autogroup", O_WRONLY | O_CLOEXEC);
    if (autogroup >= 0) {
        std::ignore = ::write(autogroup, kAutogroupNice, sizeof kAutogroupNice - 1);
        ::close(autogroup);
    }
    const sched_param none{};
    ::syscall(SYS_sched_setscheduler, 0, SCHED_IDLE, &none);
    ::syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
}

// Puts the descriptors in their places and closes all others, at once and not at the exec: a copy of another child's socket must not
// keep that child waiting.
bool place_descriptors(const Prepared& prepared) {
    for (const auto& [copy, target] : prepared.placing)
        if (::dup2(copy, target) < 0) return false;
    for (int number = 0; number < prepared.floor; ++number) {
        const auto is_this = [number](const auto& place) { return place.second == number; };
        if (std::ranges::none_of(prepared.placing, is_this)) ::close(number);
    }
    const auto first = static_cast<unsigned>(prepared.floor), kept = static_cast<unsigned>(prepared.reports_out.get());
    return (kept == first || ::close_range(first, kept - 1, 0) == 0) && ::close_range(kept + 1, ~0U, 0) == 0;
}

// The kernel's word counts from now on; a caller that ended before would never be noticed. So the caller is asked: its answer comes
// from the very thread, and if that is gone there is nothing to read. getppid(2) cannot tell in another PID namespace.
void tie_to_caller(int socket) {
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) report_failure(socket, Step::tie);
    const ChildReport report{Step::tied, 0};
    char answer = 0;
    if (::send(socket, &report, sizeof report, MSG_NOSIGNAL) != sizeof report || ::read(socket, &answer, 1) != 1) ::_exit(126);
}

// The child, up to its program. All signals are blocked when it begins: no handler of the daemon may run here. The tie comes after the
// change of user, which would undo it.
[[noreturn]] void run_child(const Prepared& prepared, const SpawnOptions& options) {
    const int socket = prepared.reports_out.get();
    const rlimit no_core{0, 0};
    reset_dispositions();
    if (options.idle) be_idle(options.idle_group);
    if (!place_descriptors(prepared)) report_failure(socket, Step::descriptors);
    if (::chdir(options.working_directory.c_str()) != 0) report_failure(socket, Step::directory);
    if (options.no_core && ::setrlimit(RLIMIT_CORE, &no_core) != 0) report_failure(socket, Step::user);
    if (options.user && !become(*options.user)) report_failure(socket, Step::user);
    if (options.dies_with_caller) tie_to_caller(socket);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::execve(prepared.argv[0], prepared.argv.data(), prepared.environment.data());
    report_failure(socket, Step::exec);
}

// ---- in the caller ----

pid_t clone_with_signals_blocked(const Prepared& prepared, const SpawnOptions& options) {
    sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    clone_args how{};
    how.flags = options.own_pid_namespace ? CLONE_NEWPID : 0;
    how.exit_signal = SIGCHLD;
    const auto pid = static_cast<pid_t>(::syscall(SYS_clone3, &how, sizeof how));
    if (pid == 0) run_child(prepared, options);
    const int error = errno;
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    errno = error;
    return pid;
}

// The next report of the child; none: its program runs.
Result<std::optional<ChildReport>> next_report(int socket, const std::string& program) {
    ChildReport report{};
    ssize_t n = -1;
    do n = ::read(socket, &report, sizeof report);
    while (n < 0 && errno == EINTR);
    if (n == 0) return std::nullopt;
    if (n != sizeof report) return fail(Errc::internal, "start " + program + ": its start-up report cannot be read");
    return report;
}

// Waits for the exec. An error is the child's word why there was none.
Result<> wait_for_exec(int socket, const SpawnOptions& options) {
    const std::string& program = options.argv[0];
    SCKPT_ASSIGN(auto report, next_report(socket, program));
    if (report && report->step == Step::tied) {
        if (::send(socket, "", 1, MSG_NOSIGNAL) != 1) return fail_errno("start " + program + ": it ended before its program ran");
        SCKPT_ASSIGN(report, next_report(socket, program));
    }
    if (!report) return {};
    switch (report->step) {
        case Step::descriptors: return fail_errno("start " + program + ": place its descriptors", report->error);
        case Step::directory: return fail_errno("start " + program + " in " + options.working_directory, report->error);
        case Step::user: return fail_errno("start " + program + ": give up privileges", report->error);
        case Step::tie: return fail_errno("start " + program + ": let it end with its caller", report->error);
        case Step::tied:
        case Step::exec: break;
    }
    return fail_errno("start " + program, report->error);
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
    const pid_t pid = clone_with_signals_blocked(prepared, options);
    if (pid < 0) return fail_errno("start " + options.argv[0] + ": clone");
    prepared.reports_out.reset();
    // Close-on-exec by itself. The child is not reaped yet, so the number is still its own.
    UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    if (!pidfd) {
        const int error = errno;
        ::kill(pid, SIGKILL);
        std::ignore = reap(pid);
        return fail_errno("start " + options.argv[0] + ": pidfd_open", error);
    }
    ChildProcess child(pid, std::move(pidfd));
    SCKPT_TRY(wait_for_exec(prepared.reports_in.get(), options));  // on failure the destructor reaps
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
