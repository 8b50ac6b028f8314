// SPDX-License-Identifier: GPL-3.0-or-later
//
// The signal side of sckpt-run: every signal is blocked and read from a descriptor, the real-time ones and glibc's own 32 and 33
// included (raw system calls: glibc hides those two), told apart as sent to the task or to its process group, and passed on.
#pragma once

#include <sys/types.h>
#include <cstdint>
#include <vector>

#include "common/fd.h"

namespace sckpt {

// Bit N-1 is signal N, as the kernel has it.
using SignalSet = std::uint64_t;
constexpr SignalSet signal_bit(int signal) { return SignalSet{1} << (signal - 1); }

SignalSet set_blocked_signals(SignalSet blocked);  // returns what was blocked before
SignalSet ignored_signals(pid_t pid);

// Ends this process as the process with that wait status ended: same exit code, or death by the same signal without a core file.
[[noreturn]] void end_like(int wait_status);
// Would this signal, left alone, end a process that has the dispositions of this one?
bool is_deadly(int signal);

// One signal that somebody sent to the task.
struct SentSignal {
    int number = 0;
    bool to_group = false;  // by killpg(2): every process of the group was meant
};

// Who was meant by a signal? Slurm sends most signals to the task's process alone, but `scancel --full` to its process group, which
// without sckpt-run is the whole batch script. A signal does not tell. So a sentinel stays in the task's process group: a process
// that has all signals blocked and never takes one. What is pending there was sent to the group. It is read from /proc, so that it
// does not matter when the sentinel is next scheduled; and the kernel signals the newest members of a group first, so that
// the sentinel, forked by the task's leader, always has the signal before sckpt-run can see it.
// With SignalChildrenProcesses=yes in cgroup.conf, Slurm signals every process by itself; then this passes signals on once too often.
class SignalSource {
   public:
    SignalSource() = default;
    SignalSource(SignalSource&&) = delete;
    ~SignalSource() { close(); }

    bool open();  // with all signals blocked; false: errno
    void close();
    int fd() const { return fd_.get(); }
    void watch_group();  // from here on `to_group` is known; failing to fork leaves it false
    std::vector<SentSignal> take();

   private:
    std::vector<SentSignal> drain() const;
    void end_sentinel(pid_t sentinel) const;
    UniqueFd fd_;
    pid_t sentinel_ = -1;
};

// The process that signals are passed on to: a child, or the root of a restored tree (then by pidfd, as it is not ours to wait for).
struct SignalTarget {
    pid_t pid = -1;
    int pidfd = -1;
};
void pass_on(const SentSignal& signal, const SignalTarget& target);

}  // namespace sckpt
