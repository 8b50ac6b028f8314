// SPDX-License-Identifier: GPL-3.0-or-later
//
// Work on the store, done by nodes: sckptctld has no access to the store itself, which may not even be mounted where it runs.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "common/result.h"
#include "daemon/node_outbox.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

// What the keeper of the store (daemon/store_keeper.h) needs; tests bring one that works on a store in memory.
class StoreAccess {
   public:
    using Cancelled = std::function<bool()>;
    virtual ~StoreAccess() = default;
    // Has one node do it, not order.avoid if there is another, and waits; order.order is set here. All parts of the answer, merged, with the
    // node's name; a failure told by the node is an Errc::io with its text. Errc::unavailable: no node, it was lost, or it does not reach the
    // store: another may be asked, as every order may be done twice.
    // Errc::timeout: it was silent for `silence`. Errc::busy: `cancelled` said so. In both cases the node is told to stop.
    virtual Result<rpc::StoreReply> run(rpc::StoreOrder order, std::chrono::seconds silence, const Cancelled& cancelled) = 0;
    virtual bool any_node() const = 0;
};

// Orders go round the connected nodes. Safe from any thread; calls nobody back.
class StoreOrders final : public StoreAccess {
   public:
    StoreOrders();
    Result<rpc::StoreReply> run(rpc::StoreOrder order, std::chrono::seconds silence, const Cancelled& cancelled) override;
    bool any_node() const override;

    void attached(const std::string& node, std::shared_ptr<NodeOutbox> outbox);  // orders of an earlier connection are lost
    void detached(const std::string& node);
    void reply(const std::string& node, const rpc::StoreReply& part);  // of others than the one asked: ignored
    std::optional<std::string> node_of(std::uint64_t order) const;     // that works on it now

   private:
    struct Pending {
        std::string node;
        rpc::StoreReply reply;
        std::uint64_t parts = 0;
        bool lost = false;
    };
    Result<std::uint64_t> send(rpc::StoreOrder& order);
    void stop(const std::string& node, std::uint64_t order);
    void lose(const std::string& node);

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::string, std::shared_ptr<NodeOutbox>> nodes_;
    std::map<std::uint64_t, Pending> pending_;
    std::string last_;    // the node asked last
    std::uint64_t next_;  // an answer to an order of before a restart must not be taken for one of ours
};

}  // namespace sckpt
