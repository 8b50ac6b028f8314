// SPDX-License-Identifier: GPL-3.0-or-later
//
// What is said of the drains of all nodes of a checkpoint at once: sums, and what the slowest state is. Pure bookkeeping; news of one node
// costs the same however many there are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "rpc/sckpt.pb.h"

namespace sckpt {

class DrainSum {
   public:
    void set(const std::string& node, const rpc::Drain& drain);  // what was said of it before is void
    void forget(const std::string& node);                        // it has stored its part
    // bytes_total: of the whole checkpoint. WAITING when any of them waits, with the text of one.
    rpc::Drain sum(std::uint64_t bytes_total) const;

   private:
    void count(const rpc::Drain& drain, bool in);

    std::map<std::string, rpc::Drain> drains_;
    std::map<std::string, std::string> waiting_;  // node → for what
    std::uint64_t done_ = 0, written_ = 0, rate_ = 0;
    std::size_t urgent_ = 0, copying_ = 0;
};

}  // namespace sckpt
