// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt status: the daemons, what each node's backend can do, and whether they all fit together.
#include <format>

#include "cli/verbs.h"

namespace sckpt::cli {
namespace {

Cell connection(const rpc::NodeInfo& node) { return node.connected() ? Cell{"up", Colour::good} : Cell{"down", Colour::bad}; }

Cell backend(const rpc::NodeInfo& node) {
    if (!node.backend_usable()) return {node.backend().empty() ? "none" : node.backend() + " (unusable)", Colour::bad};
    return {node.backend(), Colour::good};
}

// What a table has no room for, a line each.
std::string remarks(const rpc::NodeInfo& node, const std::string& controller_version) {
    std::string text;
    const auto add = [&](const std::string& remark) { text += printable(std::format("{}: {}", node.name(), remark)) + "\n"; };
    if (!node.connected()) add("no connection to its sckptd");
    if (!node.version().empty() && node.version() != controller_version)
        add(std::format("sckptd is version {}, sckptctld is {}: install one version everywhere", node.version(), controller_version));
    if (!node.backend_usable() && !node.backend_reason().empty()) add("cannot checkpoint or restart jobs: " + node.backend_reason());
    for (const std::string& note : node.backend_notes()) add(note);
    return text;
}

std::string nodes_text(const rpc::StatusReply& reply, const View& view) {
    if (reply.nodes_size() == 0) return "\nno node has reported yet: is sckptd running on the nodes?\n";
    Table table({{"NODE"}, {"STATE"}, {"SEEN", Align::right}, {"VERSION"}, {"BACKEND"}, {"TASKS", Align::right}, {"FAST TIER"}});
    std::string notes;
    for (const rpc::NodeInfo& node : reply.nodes()) {
        table.add({{node.name()},
                   connection(node),
                   {node.last_seen() ? format_age(view.now - node.last_seen()) : "-"},
                   {node.version()},
                   backend(node),
                   {std::to_string(node.tasks())},
                   {std::format("{} of {}", format_bytes(node.fast_tier_used()), format_bytes(node.fast_tier_bytes()))}});
        notes += remarks(node, reply.version());
    }
    return "\n" + table.text(view) + (notes.empty() ? "" : "\n" + notes);
}

}  // namespace

std::string render_status(const rpc::StatusReply& reply, const std::string& address, const View& view) {
    const std::string up = reply.started() ? std::format(", up for {}", format_age(view.now - reply.started())) : "";
    return printable(std::format("sckptctld {} at {}{}", reply.version(), address, up)) + "\n" +
           fields({{"Slurm", std::format("{}, {}", reply.slurm_version(),
                                         reply.slurm_reachable() ? "reachable" : "slurmctld does not answer: no job can be restarted now")},
                   {"jobs", std::format("{}, {} complete checkpoints", reply.jobs(), reply.checkpoints_complete())},
                   {"catalogue", std::format("{} (schema {})", reply.catalogue(), reply.schema_version())}}) +
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
