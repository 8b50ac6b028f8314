// SPDX-License-Identifier: GPL-3.0-or-later
//
// An outbox that a test reads.
#pragma once

#include "daemon/node_outbox.h"
#include "daemon/outbox.h"

namespace sckpt::test {

class ReadableOutbox final : public NodeOutbox {
   public:
    void push(rpc::ControllerMessage message) override { queue_.push(std::move(message)); }
    void refuse(const Error&) override {}
    auto pop(const std::stop_token& stop) { return queue_.pop(stop); }

   private:
    Outbox<rpc::ControllerMessage> queue_;
};

}  // namespace sckpt::test
