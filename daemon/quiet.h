// SPDX-License-Identifier: GPL-3.0-or-later
//
// Has everything that was written arrived? What a task prints goes through a pipe to slurmstepd, over TCP to srun, and from there to where the
// user wants it. Once the writers are frozen this ends by itself; it has ended on one side when the pipes and the sockets' queues are empty
// and all threads of those that carry it sleep, and have slept since the last look.
// Only descriptors of /proc are read here; a user's file is never touched. Calls may block for a moment only.
#pragma once

#include <sys/types.h>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace sckpt {

enum class Queue { send, receive };

struct Carriers {
    std::vector<pid_t> writers;    // their standard output and error, where these are pipes, must be empty
    std::vector<pid_t> processes;  // of whose TCP sockets these queues must be empty, and whose threads must sleep
    Queue queue = Queue::send;
};

struct QuietLook {
    std::uint64_t unread = 0;  // bytes in pipes
    std::uint64_t queued = 0;  // bytes in sockets
    bool asleep = true;
    std::map<pid_t, std::uint64_t> switches;  // by thread: context switches so far
    bool quiet_since(const QuietLook& before) const {
        return unread == 0 && queued == 0 && asleep && before.asleep && switches == before.switches;
    }
};

// Processes that have ended meanwhile carry nothing.
QuietLook look_at(const Carriers& carriers);

// False: it did not become quiet within `limit`, or `go_on` said no.
bool wait_until_quiet(const Carriers& carriers, std::chrono::milliseconds limit, const std::function<bool()>& go_on);

// Bytes in this queue of the sockets with these inodes, by the text of /proc/PID/net/tcp or tcp6.
std::uint64_t queued_bytes(std::string_view table, const std::set<std::uint64_t>& inodes, Queue queue);

// Whether a thread sleeps, and its context switches, by the text of its /proc/…/status.
struct ThreadState {
    bool asleep = false;
    std::uint64_t switches = 0;
};
ThreadState thread_state(std::string_view status);

// Bytes that nobody has read yet from the pipe that is this descriptor of the process; 0 when it is no pipe.
std::uint64_t unread_bytes(pid_t pid, int fd);

}  // namespace sckpt
