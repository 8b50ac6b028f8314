// SPDX-License-Identifier: GPL-3.0-or-later
//
// Who may speak to sckptctld, or to a relay, for a node or for many. The credential decides, and for a relay the host that it calls from.
//
// A relay is trusted: it says who its nodes are and what they say, and what sckptctld tells them passes through it. So root and SlurmUser of
// the hosts named in relay.hosts have the power of sckptctld itself over nodes and checkpoints; others have none.
#pragma once

#include <string>
#include <vector>

#include "common/result.h"
#include "rpc/auth_munge.h"

namespace sckpt {

class PeerTrust {
   public:
    explicit PeerTrust(std::vector<std::string> relay_hosts) : relay_hosts_(std::move(relay_hosts)) {}
    // Root's credential for Node.Attach. Errc::denied otherwise, as below.
    Result<> is_node(const std::string& credential) const;
    // Root's or our own user's for Relay.Attach, from the address of one of the hosts.
    Result<> is_relay(const std::string& credential, const std::string& peer) const;
    Result<> may_relay(const rpc::Caller& caller, const std::string& peer) const;  // the same, of an authenticated call
    // Our own, over the nonce of one who has dialled.
    Result<std::string> prove(const std::string& nonce) const;

   private:
    const std::vector<std::string> relay_hosts_;
};

}  // namespace sckpt
