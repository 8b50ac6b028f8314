// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckptd: the node daemon, root. Serves the supervisors of this node on a Unix socket and obeys sckptctld; sckptd(8).
// This file: options, configuration, the socket, the daemon's life from start to SIGTERM.
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <format>
#include <optional>
#include <thread>

#include "common/log.h"
#include "daemon/daemon_main.h"
#include "daemon/node_agent.h"
#include "daemon/slurm_api.h"

namespace {

using namespace sckpt;

constexpr int kInfoEveryMs = 10'000;

// Anyone may connect: what a supervisor claims is checked against the kernel's word and Slurm's.
Result<UniqueFd> listen_on(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) return fail(Errc::invalid, "node.socket: " + path + " is too long for a Unix socket");
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    UniqueFd listener(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (!listener) return fail_errno("socket");
    unlink(path.c_str());
    if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return fail_errno("binding " + path);
    if (chmod(path.c_str(), 0666) != 0) return fail_errno("chmod of " + path);
    if (listen(listener.get(), 512) != 0) return fail_errno("listening on " + path);
    return listener;
}

void accept_supervisor(int listener, NodeAgent& agent) {
    UniqueFd connection(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
    if (!connection) return;
    std::optional<Supervisor> supervisor = agent.admit(std::move(connection));
    if (!supervisor) return;
    try {
        std::thread([&agent, supervisor = std::move(*supervisor)]() mutable {
            try {
                agent.serve(std::move(supervisor));
            } catch (const std::exception& e) {
                log_error("a supervisor's connection failed: {}", e.what());
            }
        }).detach();
    } catch (const std::exception& e) {
        log_error("no thread for a supervisor: {}", e.what());
    }
}

Result<> serve(const Config& config) {
    sigset_t set;
    block_end_signals(set);
    if (geteuid() != 0) return fail(Errc::denied, "sckptd must run as root: it dumps and restores the processes of every user");

    SCKPT_TRY(make_directories(std::filesystem::path(config.node.socket).parent_path().string(), 0755));
    const std::string lock_file = config.node.socket + ".lock";
    SCKPT_ASSIGN(const UniqueFd lock, take_lock(lock_file, "another sckptd runs on this node: it holds " + lock_file));
    slurm_start();
    NodeAgent agent(config, make_criu_backend(config.node));
    SCKPT_ASSIGN(const UniqueFd listener, listen_on(config.node.socket));
    const UniqueFd signals(signalfd(-1, &set, SFD_CLOEXEC));
    if (!signals) return fail_errno("signalfd");
    SCKPT_TRY(agent.start());  // the last thing that can fail: its threads do not end
    log_info("sckptd {} serves {}", SCKPT_VERSION, config.node.socket);
    for (;;) {
        pollfd fds[2] = {{listener.get(), POLLIN, 0}, {signals.get(), POLLIN, 0}};
        const int ready = poll(fds, 2, kInfoEveryMs);
        if (fds[1].revents != 0) break;
        if (ready > 0 && fds[0].revents != 0) accept_supervisor(listener.get(), agent);
        if (ready == 0) agent.send_info();
    }
    log_info("sckptd stops; jobs run on, and the next sckptd takes them up");
    std::quick_exit(0);  // threads wait in recv() and in the backend; what they do survives or is dropped by the next sckptd
}

}  // namespace

int main(int argc, char** argv) { return daemon_main(argc, argv, "sckptd", "the node daemon of sckpt", serve); }
