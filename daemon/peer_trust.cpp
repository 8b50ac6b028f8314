// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/peer_trust.h"

#include <unistd.h>
#include <algorithm>
#include <format>

#include "daemon/node_addresses.h"
#include "rpc/purpose.h"

namespace sckpt {

Result<> PeerTrust::is_node(const std::string& credential) const {
    SCKPT_ASSIGN(const rpc::Caller caller, rpc::check_credential(credential, rpc::call_purpose("/sckpt.rpc.Node/Attach", nullptr)));
    if (caller.uid != 0) return fail(Errc::denied, "only root may speak for a node");
    return {};
}

Result<> PeerTrust::is_relay(const std::string& credential, const std::string& peer) const {
    SCKPT_ASSIGN(const rpc::Caller caller, rpc::check_credential(credential, rpc::call_purpose("/sckpt.rpc.Relay/Attach", nullptr)));
    return may_relay(caller, peer);
}

Result<> PeerTrust::may_relay(const rpc::Caller& caller, const std::string& peer) const {
    if (caller.uid != 0 && caller.uid != geteuid()) return fail(Errc::denied, "only root or SlurmUser may run a relay");
    if (std::ranges::any_of(relay_hosts_, [&](const std::string& host) { return is_address_of(host, peer).has_value(); })) return {};
    return fail(Errc::denied, std::format("{} is no relay: none of relay.hosts in sckpt.yaml has this address", peer));
}

Result<std::string> PeerTrust::prove(const std::string& nonce) const { return rpc::make_credential(rpc::welcome_purpose(nonce)); }

}  // namespace sckpt
