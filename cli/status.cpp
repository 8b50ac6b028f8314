// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt status: the daemons, what each node's backend can do, and whether they all fit together.
#include <algorithm>
#include <format>
#include <map>
#include <vector>

#include "cli/verbs.h"

namespace sckpt::cli {
namespace {

constexpr std::size_t kNamedNodes = 8;  // in front of a remark that concerns many

Cell connection(const rpc::NodeInfo& node) { return node.connected() ? Cell{"up", Colour::good} : Cell{"down", Colour::bad}; }

Cell backend(const rpc::NodeInfo& node) {
    if (!node.backend_usable()) return {node.backend().empty() ? "none" : node.backend() + " (unusable)", Colour::bad};
    return {node.backend(), Colour::good};
}

// What a table has no room for.
std::vector<std::string> remarks(const rpc::NodeInfo& node, const rpc::StatusReply& reply) {
    const std::string& controller_version = reply.version();
    std::vector<std::string> all;
    if (!node.connected()) all.push_back("no connection to its sckptd");
    if (!node.version().empty() && node.version() != controller_version)
        all.push_back(std::format("sckptd is version {}, sckptctld is {}: install one version everywhere", node.version(),
                                  controller_version));
    if (!node.backend_usable() && !node.backend_reason().empty())
        all.push_back("cannot checkpoint or restart jobs: " + node.backend_reason());
    if (!node.store_id().empty() && !reply.store_id().empty() && node.store_id() != reply.store_id())
        all.push_back(std::format("sees another store at store.directory ({}, of cluster {}) than the cluster's ({}): nothing is stored or read there; is "
                                  "the right file system mounted?", node.store_id(), node.store_cluster(), reply.store_id()));
    all.insert(all.end(), node.backend_notes().begin(), node.backend_notes().end());
    return all;
}

std::string nodes_label(const std::vector<std::string>& names) {
    if (names.size() == 1) return names.front();
    std::string some;
    for (std::size_t i = 0; i < std::min(names.size(), kNamedNodes); ++i) some += (i > 0 ? ", " : "") + names[i];
    return std::format("{} nodes ({}{})", names.size(), some, names.size() > kNamedNodes ? ", ..." : "");
}

// What is said of many nodes is printed once, in the order in which it comes up.
class Remarks {
   public:
    void add(const std::string& node, const std::string& remark) {
        std::vector<std::string>& nodes = nodes_[remark];
        if (nodes.empty()) order_.push_back(remark);
        nodes.push_back(node);
    }
    std::string text() const {
        std::string all;
        for (const std::string& remark : order_) all += printable(nodes_label(nodes_.at(remark)) + ": " + remark) + "\n";
        return all;
    }

   private:
    std::map<std::string, std::vector<std::string>> nodes_;
    std::vector<std::string> order_;
};

std::string nodes_text(const rpc::StatusReply& reply, const View& view) {
    if (reply.nodes_size() == 0) return "\nno node has reported yet: is sckptd running on the nodes?\n";
    Table table({{"NODE"}, {"STATE"}, {"SEEN", Align::right}, {"VERSION"}, {"BACKEND"}, {"TASKS", Align::right}, {"FAST TIER"}});
    Remarks notes;
    for (const rpc::NodeInfo& node : reply.nodes()) {
        table.add({{node.name()},
                   connection(node),
                   {node.last_seen() ? format_age(view.now - node.last_seen()) : "-"},
                   {node.version()},
                   backend(node),
                   {std::to_string(node.tasks())},
                   {std::format("{} of {}", format_bytes(node.fast_tier_used()), format_bytes(node.fast_tier_bytes()))}});
        for (const std::string& remark : remarks(node, reply)) notes.add(node.name(), remark);
    }
    const std::string below = notes.text();
    return "\n" + table.text(view) + (below.empty() ? "" : "\n" + below);
}

}  // namespace

std::string render_status(const rpc::StatusReply& reply, const std::string& address, const View& view) {
    const std::string up = reply.started() ? std::format(", up for {}", format_age(view.now - reply.started())) : "";
    std::vector<Field> all = {
        {"Slurm", std::format("{}, {}", reply.slurm_version(),
                              reply.slurm_reachable() ? "reachable" : "slurmctld does not answer: no job can be restarted now")},
        {"jobs", std::format("{}, {} complete checkpoints", reply.jobs(), reply.checkpoints_complete())},
        {"catalogue", std::format("{} (schema {})", reply.catalogue(), reply.schema_version())}};
    for (const std::string& note : reply.notes()) all.push_back({"note", note});
    return printable(std::format("sckptctld {} at {}{}", reply.version(), address, up)) + "\n" + fields(all) +
           nodes_text(reply, view);
}

Result<std::string> status(const Session& session) {
    SCKPT_ASSIGN(const rpc::StatusReply reply, session.ask("Status", &Session::Stub::Status, rpc::StatusRequest{}));
    if (session.json()) {
        SCKPT_ASSIGN(const auto document, to_json(reply));
        return json_text(document);
    }
    return render_status(reply, session.address(), session.view());
}

}  // namespace sckpt::cli
