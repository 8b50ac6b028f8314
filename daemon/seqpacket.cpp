// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/seqpacket.h"

#include <cerrno>
#include <cstring>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace sckpt {

namespace {

union Control {
    cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * kMaxPassedFds)];
};

bool address_of(const std::string& path, sockaddr_un& address) {
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return errno = ENAMETOOLONG, false;
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    return true;
}

UniqueFd new_socket() { return UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)); }

void take_fds(msghdr& header, std::vector<UniqueFd>& fds) {
    for (cmsghdr* item = CMSG_FIRSTHDR(&header); item; item = CMSG_NXTHDR(&header, item)) {
        if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(item) + i * sizeof fd, sizeof fd);
            fds.emplace_back(fd);
        }
    }
}

}  // namespace

UniqueFd connect_seqpacket(const std::string& path) {
    sockaddr_un address{};
    if (!address_of(path, address)) return {};
    UniqueFd socket = new_socket();
    if (!socket || ::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return socket;
    const int error = errno;
    socket.reset();
    errno = error;
    return {};
}

UniqueFd listen_seqpacket(const std::string& path) {
    sockaddr_un address{};
    const std::string fresh = path + ".new";
    if (!address_of(fresh, address)) return {};
    ::unlink(fresh.c_str());
    UniqueFd socket = new_socket();
    if (socket && ::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
        ::listen(socket.get(), SOMAXCONN) == 0 && ::rename(fresh.c_str(), path.c_str()) == 0)
        return socket;
    const int error = errno;
    ::unlink(fresh.c_str());
    socket.reset();
    errno = error;
    return {};
}

bool send_packet(int socket, const void* bytes, std::size_t size, const int* fds, std::size_t fd_count) {
    iovec part{const_cast<void*>(bytes), size};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    Control control{};
    if (fd_count > kMaxPassedFds) return errno = EMSGSIZE, false;
    if (fd_count > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        cmsghdr* item = CMSG_FIRSTHDR(&header);
        item->cmsg_level = SOL_SOCKET;
        item->cmsg_type = SCM_RIGHTS;
        item->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        std::memcpy(CMSG_DATA(item), fds, sizeof(int) * fd_count);
    }
    return ::sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(size);
}

ssize_t receive_packet(int socket, void* bytes, std::size_t size, std::vector<UniqueFd>* fds) {
    iovec part{bytes, size};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    Control control{};
    header.msg_control = control.bytes;
    header.msg_controllen = sizeof control.bytes;
    const ssize_t got = ::recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) return errno == ECONNRESET ? 0 : -1;  // it ended without reading what we sent: closed all the same
    std::vector<UniqueFd> taken;
    take_fds(header, taken);
    if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) return errno = EMSGSIZE, -1;
    if (fds) *fds = std::move(taken);
    return got;
}

}  // namespace sckpt
