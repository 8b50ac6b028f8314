// SPDX-License-Identifier: GPL-3.0-or-later
//
// Is the other end of a connection the host of a node? Slurm's word decides. A cluster whose nodes all connect at the same moment asks
// slurmctld once, not once for each of them.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "common/result.h"

namespace sckpt {

class NodeAddresses {
   public:
    using Table = std::map<std::string, std::string>;  // NodeName → NodeAddr
    using Load = std::function<Result<Table>()>;

    // What was loaded is good for kFresh, and is loaded anew, once in kPause at most, when it does not fit.
    static constexpr std::chrono::seconds kFresh{10}, kPause{1};
    explicit NodeAddresses(Load load) : load_(std::move(load)) {}

    // `peer`: as gRPC names it. Errc::not_found: Slurm has no such node; Errc::denied: it is on another host; or what asking Slurm failed with.
    // Blocks while Slurm or the resolver is asked; any thread.
    Result<> verify(const std::string& node, const std::string& peer);

   private:
    using Clock = std::chrono::steady_clock;
    Result<std::string> address_of(const std::string& node, std::chrono::seconds oldest);

    const Load load_;
    std::mutex mutex_;  // held while Slurm is asked: who comes meanwhile waits for the same answer
    Result<Table> table_ = Table();
    Clock::time_point loaded_{};
};

// One of the IPv4 addresses of `host` is that of the peer. Errc::denied: it is another one; Errc::not_found: the host has none.
Result<> is_address_of(const std::string& host, const std::string& peer);

}  // namespace sckpt
