// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/drain_grants.h"

#include <algorithm>
#include <iterator>
#include <limits>

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
    const Key key(node, checkpoint);
    const auto [known, is_new] = asks_.try_emplace(key);
    Ask& ask = known->second;
    if (is_new) {
        ask.urgent = urgent;
        return wait(key, ask, ++last_);
    }
    std::int64_t place = ask.place;
    if (ask.granted) place = --first_;  // told once more: the grant may have been lost on its way
    leave(ask);
    ask.granted = false;
    ask.urgent = ask.urgent || urgent;
    wait(key, ask, place);
}

void DrainGrants::set_urgent(std::int64_t checkpoint) {
    for (auto& [key, ask] : asks_) {
        if (key.second != checkpoint || ask.granted || ask.urgent) continue;
        leave(ask);
        ask.urgent = true;
        wait(key, ask, ask.place);
    }
}

void DrainGrants::end(std::int64_t checkpoint, const std::string& node) {
    if (const auto ask = asks_.find({node, checkpoint}); ask != asks_.end()) erase(ask);
}

void DrainGrants::end(std::int64_t checkpoint) {
    for (auto ask = asks_.begin(); ask != asks_.end();) ask = ask->first.second == checkpoint ? erase(ask) : std::next(ask);
}

void DrainGrants::node_lost(const std::string& node) {
    for (auto ask = asks_.lower_bound({node, std::numeric_limits<std::int64_t>::min()}); ask != asks_.end() && ask->first.first == node;)
        ask = erase(ask);
}

void DrainGrants::wait(const Key& key, Ask& ask, std::int64_t place) {
    ask.place = place;
    line_of(ask).emplace(place, key);
}

// Out of its line, or out of those that are at work.
void DrainGrants::leave(const Ask& ask) {
    if (!ask.granted) {
        line_of(ask).erase(ask.place);
        return;
    }
    --granted_;
    if (ask.urgent) --urgent_granted_;
}

DrainGrants::Asks::iterator DrainGrants::erase(Asks::iterator ask) {
    leave(ask->second);
    return asks_.erase(ask);
}

// To the first of the line.
void DrainGrants::grant(Line& line, std::vector<Grant>& out) {
    const Key key = line.begin()->second;
    Ask& ask = asks_.at(key);
    line.erase(line.begin());
    ask.granted = true;
    ++granted_;
    if (ask.urgent) ++urgent_granted_;
    out.push_back({key.first, key.second, ask.urgent ? 0 : bytes_per_second_});
}

std::vector<DrainGrants::Grant> DrainGrants::take() {
    std::vector<Grant> grants;
    while (!urgent_line_.empty()) {
        if (urgent_granted_ >= urgent_streams_) return grants;  // the others come after it
        grant(urgent_line_, grants);
    }
    while (!line_.empty() && granted_ < streams_) grant(line_, grants);
    return grants;
}

}  // namespace sckpt
