// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/node_addresses.h"

#include <netdb.h>
#include <netinet/in.h>
#include <format>
#include <memory>

#include "rpc/server_auth.h"

namespace sckpt {

Result<> is_address_of(const std::string& host, const std::string& peer) {
    addrinfo hints{};
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0)
        return fail(Errc::not_found, std::format("the address {} cannot be resolved", host));
    const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owner(found, freeaddrinfo);
    SCKPT_ASSIGN(const std::uint32_t peer_address, rpc::peer_address(peer));
    for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
        const std::uint32_t known = reinterpret_cast<const sockaddr_in*>(static_cast<const void*>(entry->ai_addr))->sin_addr.s_addr;
        // The connection's address decides, not the one in the credential: whoever collects unused credentials of a node, by listening
        // on our port while we are away, is on another host than that node.
        if (known == peer_address) return {};
    }
    return fail(Errc::denied, std::format("{} is not {}", peer, host));
}

// Not older than `oldest`, unless it was loaded within the pause.
Result<std::string> NodeAddresses::address_of(const std::string& node, std::chrono::seconds oldest) {
    const std::lock_guard lock(mutex_);
    const auto age = Clock::now() - loaded_;
    if (loaded_ == Clock::time_point() || age >= kFresh || (age >= kPause && (!table_ || age >= oldest))) {
        table_ = load_();
        loaded_ = Clock::now();
    }
    if (!table_) return std::unexpected(table_.error());
    const auto found = table_->find(node);
    if (found == table_->end()) return fail(Errc::not_found, "Slurm knows no node " + node);
    return found->second;
}

Result<> NodeAddresses::verify(const std::string& node, const std::string& peer) {
    Result<> verified;
    for (const auto oldest : {kFresh, kPause}) {
        const auto address = address_of(node, oldest);
        verified = address ? is_address_of(*address, peer) : std::unexpected(address.error());
        if (verified) return {};
    }
    const Error& why = verified.error();
    return fail(why.code, why.code == Errc::denied ? std::format("{} is not the host of node {}", peer, node)
                                                   : std::format("node {}: {}", node, why.text));
}

}  // namespace sckpt
