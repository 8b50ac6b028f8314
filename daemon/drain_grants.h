// SPDX-License-Identifier: GPL-3.0-or-later
//
// Which drains may copy into the store now, of all nodes: drain.cluster_urgent_streams of urgent ones at once, and while none of
// those waits, others as long as no more than drain.cluster_streams are at work; first come first served.
// Pure bookkeeping, whose cost for one node's word does not grow with the number of nodes: nodes ask, take() says who may begin. What is lost with a connection is asked for again by the node.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/config.h"

namespace sckpt {

class DrainGrants {
   public:
    explicit DrainGrants(const Config::Drain& limits);

    struct Grant {
        std::string node;
        std::int64_t checkpoint = 0;         // row of the catalogue
        std::uint64_t bytes_per_second = 0;  // 0: no limit of the cluster's
    };
    // Asking again does no harm: one that has its grant is granted again, one that waits keeps its place.
    void ask(std::int64_t checkpoint, const std::string& node, bool urgent);
    void set_urgent(std::int64_t checkpoint);
    void end(std::int64_t checkpoint, const std::string& node);  // the node's part of it is stored or given up, or waits for something else
    void end(std::int64_t checkpoint);                           // all of it is stored or dropped
    void node_lost(const std::string& node);  // its drains go on by the node's own limits, and ask when it is back
    // Those that may begin, each told once. Urgent ones take a stream of the others while they run, and have one also when there is none;
    // the cluster's bandwidth is shared by the others.
    std::vector<Grant> take();

    std::size_t granted() const { return granted_; }
    std::size_t waiting() const { return asks_.size() - granted_; }

   private:
    using Key = std::pair<std::string, std::int64_t>;  // node and checkpoint
    struct Ask {
        bool urgent = false;
        bool granted = false;
        std::int64_t place = 0;  // in its line, while it waits
    };
    using Asks = std::map<Key, Ask>;
    using Line = std::map<std::int64_t, Key>;  // by place

    Line& line_of(const Ask& ask) { return ask.urgent ? urgent_line_ : line_; }
    void wait(const Key& key, Ask& ask, std::int64_t place);
    void leave(const Ask& ask);
    Asks::iterator erase(Asks::iterator ask);
    void grant(Line& line, std::vector<Grant>& out);

    const std::size_t streams_, urgent_streams_;
    const std::uint64_t bytes_per_second_;  // of one stream
    Asks asks_;                             // those that wait, and those that have their grant
    Line line_, urgent_line_;               // those that wait, in the order of their asking
    std::size_t granted_ = 0, urgent_granted_ = 0;
    std::int64_t first_ = 0, last_ = 0;  // places given so far
};

}  // namespace sckpt
