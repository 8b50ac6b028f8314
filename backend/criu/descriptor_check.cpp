// SPDX-License-Identifier: GPL-3.0-or-later
#include "backend/criu/descriptor_check.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <format>
#include <map>
#include <string>

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/criu/tree_check.h"
#include "common/fd.h"

namespace sckpt::criu {

namespace {

using Inode = std::uint32_t;

struct UnixSocket {
    Inode peer = 0;
    std::string name;            // of the path or, abstract, with a leading '@'
    bool at_path = false;        // a path may begin with '@', too
    std::vector<Inode> pending;  // of a listening socket: who waits to be accepted
};

// The sockets of the tree, each with a process that has it.
using Sockets = std::map<Inode, pid_t>;

Result<> add_process(pid_t pid, Sockets& sockets) {
    std::error_code error;
    for (std::filesystem::directory_iterator entry(std::format("/proc/{}/fd", pid), error), end; !error && entry != end;
         entry.increment(error)) {
        std::error_code gone;
        const std::string target = std::filesystem::read_symlink(entry->path(), gone);
        if (target == "anon_inode:[io_uring]")
            return fail(Errc::unsupported, describe(pid) +
                                               " uses io_uring, which cannot be checkpointed; turn it off in the program, "
                                               "or have the nodes set kernel.io_uring_disabled=2");
        constexpr std::string_view kSocket = "socket:[";
        Inode inode = 0;
        if (target.starts_with(kSocket)) std::from_chars(target.data() + kSocket.size(), target.data() + target.size(), inode);
        if (inode != 0) sockets.try_emplace(inode, pid);
    }
    return {};  // a process that ended meanwhile has no descriptors
}

// ---- the kernel's list of Unix sockets (sock_diag(7)) ----

Result<UniqueFd> ask_for_unix_sockets() {
    UniqueFd socket(::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
    if (!socket) return fail_errno("ask the kernel for Unix sockets");
    struct {
        nlmsghdr header;
        unix_diag_req request;
    } message{};
    message.header.nlmsg_len = sizeof message;
    message.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    message.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    message.request.sdiag_family = AF_UNIX;
    message.request.udiag_states = ~0U;
    message.request.udiag_show = UDIAG_SHOW_PEER | UDIAG_SHOW_NAME | UDIAG_SHOW_ICONS;
    if (::send(socket.get(), &message, sizeof message, 0) < 0) return fail_errno("ask the kernel for Unix sockets");
    return socket;
}

std::pair<Inode, UnixSocket> parse_socket(const nlmsghdr* header) {
    unix_diag_msg body;
    std::memcpy(&body, NLMSG_DATA(header), sizeof body);
    UnixSocket found;
    auto left = static_cast<int>(NLMSG_PAYLOAD(header, sizeof body));
    const auto* start = static_cast<const char*>(NLMSG_DATA(header)) + NLMSG_ALIGN(sizeof body);
    for (const auto* part = reinterpret_cast<const rtattr*>(start); RTA_OK(part, left); part = RTA_NEXT(part, left)) {
        if (part->rta_type == UNIX_DIAG_PEER) std::memcpy(&found.peer, RTA_DATA(part), sizeof found.peer);
        if (part->rta_type == UNIX_DIAG_NAME) found.name.assign(static_cast<const char*>(RTA_DATA(part)), RTA_PAYLOAD(part));
        if (part->rta_type == UNIX_DIAG_ICONS) {
            found.pending.resize(RTA_PAYLOAD(part) / sizeof(Inode));
            std::memcpy(found.pending.data(), RTA_DATA(part), found.pending.size() * sizeof(Inode));
        }
    }
    found.at_path = !found.name.empty() && found.name.front() != '\0';
    if (!found.name.empty() && !found.at_path) found.name[0] = '@';
    else found.name.resize(std::min(found.name.size(), found.name.find('\0')));  // a path comes with its end
    return {body.udiag_ino, found};
}

Result<std::map<Inode, UnixSocket>> unix_sockets() {
    SCKPT_ASSIGN(const UniqueFd socket, ask_for_unix_sockets());
    std::map<Inode, UnixSocket> found;
    alignas(nlmsghdr) std::array<char, 65536> buffer;
    for (;;) {
        const ssize_t got = ::recv(socket.get(), buffer.data(), buffer.size(), 0);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail_errno("read the kernel's list of Unix sockets");
        auto left = static_cast<unsigned>(got);
        for (const auto* header = reinterpret_cast<const nlmsghdr*>(buffer.data()); NLMSG_OK(header, left);
             header = NLMSG_NEXT(header, left)) {
            if (header->nlmsg_type == NLMSG_DONE) return found;
            if (header->nlmsg_type == NLMSG_ERROR)
                return fail(Errc::unsupported, "the kernel does not list Unix sockets (CONFIG_UNIX_DIAG)");
            found.insert(parse_socket(header));
        }
    }
}

// The kernel knows no peer of a connection that was not accepted yet: that is the listening socket.
void connect_pending(std::map<Inode, UnixSocket>& all) {
    for (const auto& [listener, socket] : all)
        for (const Inode client : socket.pending)
            if (const auto found = all.find(client); found != all.end()) found->second.peer = listener;
}

// Names are whatever bytes their programs like; the sentences go to people, through JSON.
std::string printable(std::string name) {
    std::ranges::replace_if(name, [](char c) { return c < ' ' || c > '~'; }, '?');
    return name;
}

// criu removes, makes, chowns and chmods such a socket's file as root, by a path that the user may have turned elsewhere since.
Result<> check_name(const UnixSocket& socket, pid_t pid) {
    if (!socket.at_path) return {};
    return fail(Errc::unsupported,
                std::format("{} has a Unix socket bound to {}, which cannot be restored safely yet; let the program use "
                            "an abstract socket name, or close that socket first",
                            describe(pid), printable(socket.name)));
}

Result<> check_peer(const std::map<Inode, UnixSocket>& all, const Sockets& tree, const UnixSocket& socket, pid_t pid) {
    if (socket.peer == 0 || tree.contains(socket.peer)) return {};
    const auto peer = all.find(socket.peer);
    const std::string name = peer != all.end() && !peer->second.name.empty() ? " (" + printable(peer->second.name) + ")" : "";
    return fail(Errc::unsupported, std::format("{} is connected by a Unix socket{} to a program outside of the job, "
                                               "which cannot be checkpointed; close that connection first",
                                               describe(pid), name));
}

}  // namespace

Result<> check_descriptors(const std::vector<pid_t>& tree) {
    Sockets sockets;
    for (const pid_t pid : tree) SCKPT_TRY(add_process(pid, sockets));
    if (sockets.empty()) return {};
    SCKPT_ASSIGN(auto all, unix_sockets());
    connect_pending(all);
    for (const auto& [inode, pid] : sockets) {
        const auto found = all.find(inode);
        if (found == all.end()) continue;
        SCKPT_TRY(check_name(found->second, pid));
        SCKPT_TRY(check_peer(all, sockets, found->second, pid));
    }
    return {};
}

}  // namespace sckpt::criu
