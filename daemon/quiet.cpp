// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/quiet.h"

#include <charconv>
#include <filesystem>
#include <format>
#include <sstream>
#include <string>
#include <thread>

#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/process.h"

namespace sckpt {
namespace {

constexpr std::chrono::milliseconds kPause{10};
constexpr std::size_t kTableLimit = 256u << 20;

std::string link_of(const std::string& name) {
    std::error_code gone;
    return std::filesystem::read_symlink(name, gone).string();
}

std::vector<std::string> entries(const std::string& directory) {
    std::vector<std::string> names;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error))
        names.push_back(entry->path().filename());
    return names;
}

std::set<std::uint64_t> sockets_of(pid_t pid) {
    constexpr std::string_view kSocket = "socket:[";
    const std::string directory = std::format("/proc/{}/fd/", pid);
    std::set<std::uint64_t> inodes;
    for (const std::string& fd : entries(directory)) {
        const std::string target = link_of(directory + fd);
        std::uint64_t inode = 0;
        if (target.starts_with(kSocket)) std::from_chars(target.data() + kSocket.size(), target.data() + target.size(), inode);
        if (inode != 0) inodes.insert(inode);
    }
    return inodes;
}

void look_at_sockets(pid_t pid, Queue queue, QuietLook& look) {
    const std::set<std::uint64_t> inodes = sockets_of(pid);
    if (inodes.empty()) return;
    for (const char* table : {"tcp", "tcp6"})
        if (const auto text = read_file(std::format("/proc/{}/net/{}", pid, table), kTableLimit)) look.queued += queued_bytes(*text, inodes, queue);
}

void look_at_threads(pid_t pid, QuietLook& look) {
    const std::string directory = std::format("/proc/{}/task/", pid);
    for (const std::string& thread : entries(directory)) {
        const auto status = read_file(directory + thread + "/status");
        if (!status) continue;
        const ThreadState state = thread_state(*status);
        look.asleep = look.asleep && state.asleep;
        look.switches[static_cast<pid_t>(std::strtol(thread.c_str(), nullptr, 10))] = state.switches;
    }
}

}  // namespace

// "sl local rem st tx_queue:rx_queue tr:when retrnsmt uid timeout inode …", one socket a line; the queues in hexadecimal.
std::uint64_t queued_bytes(std::string_view table, const std::set<std::uint64_t>& inodes, Queue queue) {
    std::uint64_t sum = 0;
    std::istringstream lines{std::string(table)};
    for (std::string line; std::getline(lines, line);) {
        std::istringstream fields(line);
        std::string slot, local, remote, state, queues, skipped;
        std::uint64_t inode = 0;
        fields >> slot >> local >> remote >> state >> queues >> skipped >> skipped >> skipped >> skipped >> inode;
        const auto colon = queues.find(':');
        if (!fields || colon == queues.npos || state == "0A" || !inodes.contains(inode)) continue;  // 0A: it listens, and counts connections
        const std::string_view digits = std::string_view(queues).substr(queue == Queue::send ? 0 : colon + 1, 8);
        std::uint64_t bytes = 0;
        std::from_chars(digits.data(), digits.data() + digits.size(), bytes, 16);
        sum += bytes;
    }
    return sum;
}

ThreadState thread_state(std::string_view status) {
    ThreadState state;
    std::istringstream lines{std::string(status)};
    for (std::string line; std::getline(lines, line);) {
        std::istringstream fields(line);
        std::string key, letter;
        std::uint64_t count = 0;
        fields >> key;
        if (key == "State:" && fields >> letter) state.asleep = letter == "S" || letter == "Z" || letter == "X";
        else if (key.ends_with("_ctxt_switches:") && fields >> count) state.switches += count;
    }
    return state;
}

// By a copy of the descriptor: opening it anew could do something to what a user has put there. Its name says what it is without asking it.
std::uint64_t unread_bytes(pid_t pid, int fd) {
    if (!link_of(std::format("/proc/{}/fd/{}", pid, fd)).starts_with("pipe:[")) return 0;
    const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    const UniqueFd copy(process ? static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), fd, 0)) : -1);
    if (!copy || !link_of(std::format("/proc/self/fd/{}", copy.get())).starts_with("pipe:[")) return 0;
    int bytes = 0;
    return ::ioctl(copy.get(), FIONREAD, &bytes) == 0 && bytes > 0 ? static_cast<std::uint64_t>(bytes) : 0;
}

QuietLook look_at(const Carriers& carriers) {
    QuietLook look;
    for (const pid_t pid : carriers.writers) look.unread += unread_bytes(pid, STDOUT_FILENO) + unread_bytes(pid, STDERR_FILENO);
    for (const pid_t pid : carriers.processes) {
        look_at_threads(pid, look);
        look_at_sockets(pid, carriers.queue, look);
    }
    return look;
}

bool wait_until_quiet(const Carriers& carriers, std::chrono::milliseconds limit, const std::function<bool()>& go_on) {
    const auto end = std::chrono::steady_clock::now() + limit;
    QuietLook before = look_at(carriers);
    while (go_on() && std::chrono::steady_clock::now() < end) {
        std::this_thread::sleep_for(kPause);
        const QuietLook now = look_at(carriers);
        if (now.quiet_since(before)) return true;
        before = now;
    }
    return false;
}

}  // namespace sckpt
