// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckptctld: catalogue, coordinator, requeue policy and Slurm watcher. Runs as SlurmUser on the controller; sckptctld(8).
// This file: options, configuration, the server's life from start to SIGTERM.
#include <atomic>
#include <csignal>
#include <format>
#include <thread>

#include "common/config.h"
#include "common/fd.h"
#include "common/log.h"
#include "daemon/catalogue_file.h"
#include "daemon/controller_service.h"
#include "daemon/daemon_main.h"
#include "daemon/relay.h"

namespace {

using namespace sckpt;

// SIGTERM and SIGINT are blocked in every thread and waited for here.
void wait_for_end(const sigset_t& set, Controller& controller, std::chrono::seconds poll) {
    const timespec interval{poll.count(), 0};
    for (;;) {
        const int received = sigtimedwait(&set, nullptr, &interval);
        if (received == SIGTERM || received == SIGINT) return;
        controller.tick();
    }
}

Result<> serve(const Config& config) {
    sigset_t set;
    block_end_signals(set);

    slurm_start();
    SCKPT_TRY(make_directories(config.controller.state_directory, 0700));
    // Before the catalogue is opened: a second one would take this one's dumps for what a dead one has left.
    const std::string lock_file = config.controller.state_directory + "/lock";
    SCKPT_ASSIGN(const UniqueFd lock, take_lock(lock_file, "another sckptctld runs here: it holds " + lock_file));
    SCKPT_ASSIGN(OpenedCatalogue opened, open_catalogue(config.controller.state_directory + "/catalogue.sqlite", unix_now()));
    if (const auto appends = slurm_appends_output(); appends && !*appends)
        log_warning(
            "JobFileAppend is 0 in slurm.conf: output written before a restart is lost unless jobs use --open-mode=append; set "
            "JobFileAppend=1");
    StoreOrders orders;
    StoreKeeper keeper(config, opened.catalogue, orders, slurm_jobs);
    Controller controller(config, opened.catalogue, orders, keeper, opened.note);

    std::atomic<bool> stopping = false;
    CommandService commands(controller, keeper, stopping);
    const PeerTrust trust(config.relay.hosts);
    NodeAddresses addresses(slurm_node_addresses);
    ControllerDesk desk(controller, trust, addresses);
    NodeStreams node_streams(desk);
    RelayStreams relay_streams(desk, node_streams.workers());
    NodeService nodes(node_streams, addresses, orders, keeper);
    RelayService relays(relay_streams, trust, orders, keeper);
    SCKPT_ASSIGN(const std::unique_ptr<grpc::Server> server, listen_on(config.controller.port, {&commands, &nodes, &relays}));
    log_info("sckptctld {} listens on port {}", SCKPT_VERSION, config.controller.port);

    keeper.start();
    wait_for_end(set, controller, std::chrono::seconds(config.controller.poll_seconds));
    log_info("sckptctld stops");
    stopping = true;
    keeper.stop();
    server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(2));
    return {};
}

}  // namespace

int main(int argc, char** argv) {
    const OtherMode relay{"--relay", "stand between nodes and sckptctld: pass on what they say to each other, and keep nothing", serve_relay};
    return daemon_main(argc, argv, "sckptctld", "the controller daemon of sckpt", serve, &relay);
}
