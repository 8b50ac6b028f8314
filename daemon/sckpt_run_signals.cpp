// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/sckpt_run_signals.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace sckpt {

namespace {

constexpr SignalSet kAllSignals = ~SignalSet{0};

// A line such as "ShdPnd:\t0000000000000200" of /proc/PID/status; 0 when the process is gone.
SignalSet status_set(pid_t pid, const char* key) {
    char path[40], text[4096];
    std::snprintf(path, sizeof path, "/proc/%d/status", static_cast<int>(pid));
    const UniqueFd fd(::open(path, O_RDONLY | O_CLOEXEC));
    const ssize_t got = fd ? ::read(fd.get(), text, sizeof text - 1) : 0;
    text[got > 0 ? got : 0] = '\0';
    const char* line = std::strstr(text, key);
    return line ? std::strtoull(line + std::strlen(key), nullptr, 16) : 0;
}

[[noreturn]] void be_sentinel(pid_t parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(0);  // it died before the line above
    ::close_range(0, ~0U, 0);               // the job's output must not stay open because of us
    for (;;) ::pause();                     // everything is blocked: only SIGKILL ends this
}

pid_t fork_sentinel() {
    const pid_t parent = ::getpid();
    const pid_t child = ::fork();
    if (child == 0) be_sentinel(parent);
    return child;
}

// What default action stops a process does not stop the leader of a session whose parent is outside of it, as the payload is: there
// SIGTSTP and its like do nothing. A task of Slurm they would stop; so where the program has no handler, SIGSTOP is what is meant.
int effective(int signal, pid_t pid) {
    if (signal != SIGTSTP && signal != SIGTTIN && signal != SIGTTOU) return signal;
    const SignalSet handled = ignored_signals(pid) | status_set(pid, "SigCgt:");
    return handled & signal_bit(signal) ? signal : SIGSTOP;
}

}  // namespace

SignalSet set_blocked_signals(SignalSet blocked) {
    SignalSet before = 0;
    ::syscall(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, &before, sizeof blocked);
    return before;
}

SignalSet ignored_signals(pid_t pid) { return status_set(pid, "SigIgn:"); }

void end_like(int wait_status) {
    if (WIFEXITED(wait_status)) ::_exit(WEXITSTATUS(wait_status));
    const int signal = WTERMSIG(wait_status);
    const rlimit none{0, 0};
    ::setrlimit(RLIMIT_CORE, &none);  // the payload has left its core file; ours would overwrite it
    ::prctl(PR_SET_DUMPABLE, 0);      // nor to a program in core_pattern, which no limit stops
    ::signal(signal, SIG_DFL);
    set_blocked_signals(kAllSignals & ~signal_bit(signal));
    ::kill(::getpid(), signal);
    ::_exit(128 + signal);  // as PID 1 of a namespace nothing kills us
}

bool is_deadly(int signal) {
    switch (signal) {
        case SIGCHLD:
        case SIGCONT:
        case SIGURG:
        case SIGWINCH:
        case SIGTSTP:
        case SIGTTIN:
        case SIGTTOU: return false;
        default: break;
    }
    return (ignored_signals(::getpid()) & signal_bit(signal)) == 0;
}

void SignalSource::close() {
    end_sentinel(std::exchange(sentinel_, -1));
    fd_.reset();
}

bool SignalSource::open() {
    fd_.reset(static_cast<int>(::syscall(SYS_signalfd4, -1, &kAllSignals, sizeof kAllSignals, SFD_CLOEXEC | SFD_NONBLOCK)));
    return static_cast<bool>(fd_);
}

void SignalSource::watch_group() { sentinel_ = fork_sentinel(); }

void SignalSource::end_sentinel(pid_t sentinel) const {
    if (sentinel <= 0) return;
    ::kill(sentinel, SIGKILL);
    ::waitpid(sentinel, nullptr, 0);
}

std::vector<SentSignal> SignalSource::drain() const {
    std::vector<SentSignal> out;
    signalfd_siginfo info{};
    while (::read(fd_.get(), &info, sizeof info) == sizeof info) {
        const int number = static_cast<int>(info.ssi_signo);
        const bool from_self = info.ssi_pid == static_cast<std::uint32_t>(::getpid());  // SIGPIPE of our own writing
        const bool child_changed = number == SIGCHLD && info.ssi_code > 0;              // CLD_…; SI_USER is 0, SI_QUEUE negative
        if (!from_self && !child_changed) out.push_back({number, false});
    }
    return out;
}

// The sentinel is asked after the signals were read: what was sent to the group was pending there before we could read it.
// A sentinel that holds signals is replaced. Its successor is there before it goes, and what arrives meanwhile is looked for in
// both, so that no signal to the group is taken for one to the task.
std::vector<SentSignal> SignalSource::take() {
    std::vector<SentSignal> signals = drain();
    if (signals.empty() || sentinel_ <= 0) return signals;
    const SignalSet pending = status_set(sentinel_, "ShdPnd:");
    for (SentSignal& signal : signals) signal.to_group = (pending & signal_bit(signal.number)) != 0;
    if (pending == 0) return signals;

    const pid_t old = sentinel_;
    watch_group();
    std::vector<SentSignal> meanwhile = drain();
    const SignalSet either = status_set(old, "ShdPnd:") | (sentinel_ > 0 ? status_set(sentinel_, "ShdPnd:") : 0);
    for (SentSignal& signal : meanwhile) signals.push_back({signal.number, (either & signal_bit(signal.number)) != 0});
    end_sentinel(old);
    return signals;
}

void pass_on(const SentSignal& signal, const SignalTarget& target) {
    const int number = effective(signal.number, target.pid);
    if (signal.to_group) ::kill(-target.pid, number);
    else if (target.pidfd >= 0) ::syscall(SYS_pidfd_send_signal, target.pidfd, number, nullptr, 0);
    else ::kill(target.pid, number);
}

}  // namespace sckpt
