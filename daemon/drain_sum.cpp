// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/drain_sum.h"

namespace sckpt {

void DrainSum::set(const std::string& node, const rpc::Drain& drain) {
    forget(node);
    drains_[node] = drain;
    count(drain, true);
    if (drain.phase() == rpc::Drain::WAITING) waiting_[node] = drain.text();
}

void DrainSum::forget(const std::string& node) {
    const auto known = drains_.find(node);
    if (known == drains_.end()) return;
    count(known->second, false);
    waiting_.erase(node);
    drains_.erase(known);
}

void DrainSum::count(const rpc::Drain& drain, bool in) {
    const auto add = [in](auto& sum, std::uint64_t value) {
        if (in) sum += value;
        else sum -= value;
    };
    add(done_, drain.bytes_done());
    add(written_, drain.bytes_written());
    add(rate_, drain.bytes_per_second());
    add(urgent_, drain.urgent() ? 1 : 0);
    add(copying_, drain.phase() == rpc::Drain::COPYING ? 1 : 0);
}

rpc::Drain DrainSum::sum(std::uint64_t bytes_total) const {
    rpc::Drain sum;
    sum.set_phase(rpc::Drain::QUEUED);
    if (copying_ != 0) sum.set_phase(rpc::Drain::COPYING);
    sum.set_bytes_done(done_);
    sum.set_bytes_written(written_);
    sum.set_bytes_per_second(rate_);
    sum.set_urgent(urgent_ != 0);
    sum.set_bytes_total(bytes_total);
    if (waiting_.empty()) return sum;
    const auto& [node, text] = *waiting_.begin();
    sum.set_phase(rpc::Drain::WAITING);
    sum.set_text(drains_.size() == 1 ? text : node + ": " + text);
    return sum;
}

}  // namespace sckpt
