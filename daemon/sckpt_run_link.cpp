// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/sckpt_run_link.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <unistd.h>

#include "daemon/seqpacket.h"

namespace sckpt {

namespace {

constexpr int kStandardFds = 3;

}  // namespace

bool NodeLink::open(bool payload_runs, int status_end) {
    socket_ = connect_seqpacket(options_.socket);
    socket_missing_ = !socket_ && errno == ENOENT;
    if (!socket_) return close(std::string(options_.socket) + ": " + std::strerror(errno)), false;

    // Only a restore needs the task's descriptors. Otherwise a sckptd that hangs would hold the task's pipes open beyond its end, and
    // slurmstepd would wait for that.
    const bool restart = !payload_runs && !options_.first_start();
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

void NodeLink::held(int state) {
    local::Message message;
    message.kind = local::Kind::held;
    send(message, &state, 1);
}

void NodeLink::ended(int wait_status) {
    if (!socket_) return;
    local::Message message;
    message.kind = local::Kind::ended;
    message.wait_status = wait_status;
    send(message, nullptr, 0);
}

bool NodeLink::send(local::Message message, const int* fds, std::size_t fd_count) {
    message.job_id = options_.job_id;
    message.step_id = options_.step_id;
    message.task_id = options_.task_id;
    message.step_key = options_.step_key;
    message.tasks = options_.tasks;
    message.resume_from = options_.resume_from;
    message.origin_job = options_.origin_job;
    message.origin_key = options_.origin_key;
    message.restart_count = options_.restart_count;
    message.interval_seconds = options_.interval_seconds;
    message.max_restarts = options_.max_restarts;
    if (send_packet(socket_.get(), &message, sizeof message, fds, fd_count)) return true;
    close(std::string("cannot send to it: ") + std::strerror(errno));
    return false;
}

std::optional<NodeOrder> NodeLink::receive() {
    NodeOrder order;
    std::vector<UniqueFd> fds;
    local::Message& message = order.message;
    const ssize_t got = receive_packet(socket_.get(), &message, sizeof message, &fds);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return {};
    if (got == 0) {
        close("it closed the connection");
    } else if (got != sizeof message || message.magic != local::kMagic || message.version != local::kVersion) {
        close("it is of another version than sckpt-run");
    } else {
        message.text[local::kTextSize - 1] = '\0';
        if (!fds.empty()) order.state = std::move(fds.front());
        return order;
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
    std::vector<UniqueFd> fds;
    const ssize_t got = receive_packet(status_socket, &status, sizeof status, &fds);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return event;
    if (!fds.empty()) event.pidfd = std::move(fds.front());
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
