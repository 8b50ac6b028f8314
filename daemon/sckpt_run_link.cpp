// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/sckpt_run_link.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace sckpt {

namespace {

constexpr int kStandardFds = 3;

void attach(msghdr& header, char* control, const int* fds, int fd_count) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(sizeof(int) * static_cast<unsigned>(fd_count));
    cmsghdr* item = CMSG_FIRSTHDR(&header);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof(int) * static_cast<unsigned>(fd_count));
    std::memcpy(CMSG_DATA(item), fds, sizeof(int) * static_cast<unsigned>(fd_count));
}

}  // namespace

bool NodeLink::open(bool payload_runs, int status_end) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::size_t length = std::strlen(options_.socket);
    if (length >= sizeof address.sun_path) return close("its socket's path is too long"), false;
    std::memcpy(address.sun_path, options_.socket, length);
    socket_.reset(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const bool connected = socket_ && ::connect(socket_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    socket_missing_ = !connected && errno == ENOENT;
    if (!connected) return close(std::string(options_.socket) + ": " + std::strerror(errno)), false;

    // Only a restore needs the task's descriptors. Otherwise a sckptd that hangs would hold the task's pipes open beyond its end, and
    // slurmstepd would wait for that.
    const bool restart = !payload_runs && options_.restart_count > 0;
    const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    std::array<int, kStandardFds + 1> fds{null.get(), null.get(), null.get(), status_end};
    for (int fd = 0; restart && fd < kStandardFds; ++fd)
        if (::fcntl(fd, F_GETFD) >= 0) fds[static_cast<std::size_t>(fd)] = fd;  // a closed one would make sendmsg(2) fail
    local::Message hello;
    hello.kind = local::Kind::hello;
    hello.reconnect = payload_runs ? 1 : 0;
    return send(hello, fds.data(), kStandardFds + 1);
}

void NodeLink::started(std::int64_t pid, int pidfd) {
    if (!socket_) return;
    local::Message message;
    message.kind = local::Kind::started;
    message.pid = pid;
    send(message, &pidfd, pidfd >= 0 ? 1 : 0);
}

bool NodeLink::send(local::Message message, const int* fds, int fd_count) {
    message.job_id = options_.job_id;
    message.step_id = options_.step_id;
    message.task_id = options_.task_id;
    message.restart_count = options_.restart_count;
    message.interval_seconds = options_.interval_seconds;
    message.max_restarts = options_.max_restarts;
    iovec bytes{&message, sizeof message};
    msghdr header{};
    header.msg_iov = &bytes;
    header.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * (kStandardFds + 1))] = {};
    if (fd_count > 0) attach(header, control, fds, fd_count);
    if (::sendmsg(socket_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof message) return true;
    close(std::string("cannot send to it: ") + std::strerror(errno));
    return false;
}

std::optional<local::Message> NodeLink::receive() {
    local::Message message;
    const ssize_t got = ::recv(socket_.get(), &message, sizeof message, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (got <= 0) {
        close("it closed the connection");
    } else if (got != sizeof message || message.magic != local::kMagic || message.version != local::kVersion) {
        close("it is of another version than sckpt-run");
    } else {
        message.text[local::kTextSize - 1] = '\0';
        return message;
    }
    return {};
}

void NodeLink::close(std::string reason) {
    socket_.reset();
    why_not_ = std::move(reason);
}

RestoreEvent read_restore_event(int status_socket) {
    RestoreEvent event;
    local::Status status;
    iovec bytes{&status, sizeof status};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr header{};
    header.msg_iov = &bytes;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(status_socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return event;
    for (cmsghdr* item = CMSG_FIRSTHDR(&header); got > 0 && item; item = CMSG_NXTHDR(&header, item)) {
        if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
        int fd = -1;
        std::memcpy(&fd, CMSG_DATA(item), sizeof fd);
        event.pidfd.reset(fd);
    }
    event.what = RestoreEvent::What::closed;
    if (got != sizeof status) return event;
    event.wait_status = status.wait_status;
    if (status.what == local::Status::What::restored && event.pidfd) event.what = RestoreEvent::What::restored;
    if (status.what == local::Status::What::exited) event.what = RestoreEvent::What::exited;
    return event;
}

pid_t pid_of(int pidfd) {
    char path[40], text[512];
    std::snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    const UniqueFd fd(::open(path, O_RDONLY | O_CLOEXEC));
    const ssize_t got = fd ? ::read(fd.get(), text, sizeof text - 1) : 0;
    text[got > 0 ? got : 0] = '\0';
    const char* line = std::strstr(text, "Pid:");
    const int pid = line ? std::atoi(line + 4) : -1;
    return pid > 0 ? pid : -1;
}

}  // namespace sckpt
