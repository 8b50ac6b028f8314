// SPDX-License-Identifier: GPL-3.0-or-later
//
// Work on the store that sckptctld orders, done by a node: an order, carried out by calls of the store's client, and what it answers.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "common/result.h"
#include "daemon/store_client.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

// The parts of one answer: what is added is sent as soon as it is enough for a message.
class StoreAnswer {
   public:
    using Send = std::function<void(rpc::StoreReply&& part)>;
    StoreAnswer(std::uint64_t order, Send send) : order_(order), send_(std::move(send)) {}

    rpc::StoreReply& part() { return part_; }
    void added(std::size_t bytes);
    void alive();  // there is nothing to tell, and the work goes on
    void end(const Result<>& outcome);

   private:
    void flush();

    const std::uint64_t order_;
    const Send send_;
    rpc::StoreReply part_;
    std::size_t bytes_ = 0;
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

class StoreWork {
   public:
    // How the bytes of the catalogue's copy come here, and go into the store.
    using Backup = std::function<Result<>(const rpc::StoreOrder& order, const StoreCall& call)>;
    StoreWork(const StoreClient& client, int threads, Backup backup) : client_(client), threads_(threads), backup_(std::move(backup)) {}

    // All of the answer but its end. `call`: what is not the order's.
    Result<> carry_out(const rpc::StoreOrder& order, StoreAnswer& answer, StoreCall call) const;

   private:
    Result<> remove_files(const rpc::RemoveFiles& order, StoreAnswer& answer, const StoreCall& call) const;
    Result<> scan_store(const rpc::Scan& order, StoreAnswer& answer, const StoreCall& call) const;
    Result<> check_store(const rpc::Check& order, StoreAnswer& answer, const StoreCall& call) const;
    Result<> compact_store(const rpc::Compact& order, StoreAnswer& answer, const StoreCall& call) const;

    const StoreClient& client_;
    const int threads_;
    const Backup backup_;
};

}  // namespace sckpt
