// SPDX-License-Identifier: GPL-3.0-or-later
//
// Which drains may copy into the store now, of all nodes: drain.cluster_urgent_streams of urgent ones at once, and while none of
// those waits, others as long as no more than drain.cluster_streams are at work; first come first served.
// Pure bookkeeping: nodes ask, take() says who may begin. What is lost with a connection is asked for again by the node.
#pragma once

#include <cstdint>
#include <deque>
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

    std::size_t granted() const { return granted_.size(); }
    std::size_t waiting() const { return waiting_.size(); }

   private:
    struct Ask {
        std::int64_t checkpoint = 0;
        std::string node;
        bool urgent = false;
    };
    void grant(const Ask& ask, std::vector<Grant>& out);

    const std::size_t streams_, urgent_streams_;
    const std::uint64_t bytes_per_second_;  // of one stream
    std::deque<Ask> waiting_;               // in the order of their asking
    std::map<std::pair<std::int64_t, std::string>, Ask> granted_;  // by checkpoint and node
};

}  // namespace sckpt
