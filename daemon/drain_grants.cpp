// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/drain_grants.h"

#include <algorithm>

namespace sckpt {
namespace {

std::size_t at_least_one(std::int64_t streams) { return static_cast<std::size_t>(std::max<std::int64_t>(streams, 1)); }

// A limit so small that a stream's share rounds to nothing must not become "no limit".
std::uint64_t share(std::uint64_t bandwidth, std::size_t streams) {
    return bandwidth == 0 ? 0 : std::max<std::uint64_t>(bandwidth / streams, 1);
}

}  // namespace

DrainGrants::DrainGrants(const Config::Drain& limits)
    : streams_(at_least_one(limits.cluster_streams)),
      urgent_streams_(at_least_one(limits.cluster_urgent_streams)),
      bytes_per_second_(share(limits.cluster_bandwidth, streams_)) {}

void DrainGrants::ask(std::int64_t checkpoint, const std::string& node, bool urgent) {
    if (const auto held = granted_.find({checkpoint, node}); held != granted_.end()) {  // told once more: the grant may have been lost on its way
        const Ask again{checkpoint, node, urgent || held->second.urgent};
        granted_.erase(held);
        waiting_.push_front(again);
        return;
    }
    const auto waits = std::ranges::find_if(waiting_, [&](const Ask& ask) { return ask.checkpoint == checkpoint && ask.node == node; });
    if (waits == waiting_.end()) waiting_.push_back({checkpoint, node, urgent});
    else waits->urgent = waits->urgent || urgent;
}

void DrainGrants::set_urgent(std::int64_t checkpoint) {
    for (Ask& ask : waiting_)
        if (ask.checkpoint == checkpoint) ask.urgent = true;
}

void DrainGrants::end(std::int64_t checkpoint, const std::string& node) {
    granted_.erase({checkpoint, node});
    std::erase_if(waiting_, [&](const Ask& ask) { return ask.checkpoint == checkpoint && ask.node == node; });
}

void DrainGrants::end(std::int64_t checkpoint) {
    std::erase_if(granted_, [&](const auto& entry) { return entry.first.first == checkpoint; });
    std::erase_if(waiting_, [&](const Ask& ask) { return ask.checkpoint == checkpoint; });
}

void DrainGrants::node_lost(const std::string& node) {
    std::erase_if(granted_, [&](const auto& entry) { return entry.second.node == node; });
    std::erase_if(waiting_, [&](const Ask& ask) { return ask.node == node; });
}

void DrainGrants::grant(const Ask& ask, std::vector<Grant>& out) {
    out.push_back({ask.node, ask.checkpoint, ask.urgent ? 0 : bytes_per_second_});
    granted_[{ask.checkpoint, ask.node}] = ask;
}

std::vector<DrainGrants::Grant> DrainGrants::take() {
    std::vector<Grant> grants;
    auto running = static_cast<std::size_t>(std::ranges::count_if(granted_, [](const auto& entry) { return entry.second.urgent; }));
    for (auto ask = waiting_.begin(); ask != waiting_.end();) {
        if (!ask->urgent) {
            ++ask;
            continue;
        }
        if (running >= urgent_streams_) return grants;  // the others come after it
        ++running;
        grant(*ask, grants);
        ask = waiting_.erase(ask);
    }
    while (!waiting_.empty() && granted_.size() < streams_) {
        grant(waiting_.front(), grants);
        waiting_.pop_front();
    }
    return grants;
}

}  // namespace sckpt
