// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-clean orphans: what is in the store, on nodes or in the catalogue, and has no partner there.
#include <format>

#include "cli/clean.h"
#include "cli/progress.h"

namespace sckpt::cli {
namespace {

struct Group {
    rpc::Orphan::Kind kind;
    std::string_view title;
};
constexpr Group kGroups[] = {
    {rpc::Orphan::FILE, "files in the store that no checkpoint needs"},
    {rpc::Orphan::IMAGE, "whole images in the store that the catalogue does not know"},
    {rpc::Orphan::ROW, "checkpoints whose files are missing from the store"},
    {rpc::Orphan::FAST_TIER, "images in the memory of nodes that belong to no checkpoint"},
    {rpc::Orphan::JOB, "checkpoints of jobs that Slurm no longer knows"},
    {rpc::Orphan::UNKNOWN, "others"},
};

std::string group_text(const rpc::OrphansReply& reply, const Group& group) {
    std::string lines;
    std::uint64_t bytes = 0;
    for (const rpc::Orphan& orphan : reply.orphans()) {
        if (orphan.kind() != group.kind) continue;
        bytes += orphan.bytes();
        lines += std::format("  {:>10}  {}{}{}\n", orphan.bytes() > 0 ? format_bytes(orphan.bytes()) : "-",
                             printable(orphan.what()), orphan.done().empty() ? "" : ": ", printable(orphan.done()));
    }
    return lines.empty() ? "" : std::format("{} ({})\n{}\n", group.title, format_bytes(bytes), lines);
}

}  // namespace

std::string render_orphans(const rpc::OrphansReply& reply, bool removed) {
    if (reply.orphans().empty()) return "no orphans\n";
    std::string text;
    for (const Group& group : kGroups) text += group_text(reply, group);
    std::uint64_t bytes = 0;
    for (const rpc::Orphan& orphan : reply.orphans()) bytes += orphan.bytes();
    text += std::format("{}, {}", counted(static_cast<std::uint64_t>(reply.orphans_size()), "orphan"), format_bytes(bytes));
    return text + (removed ? "\n" : "; `sckpt-clean orphans --remove` removes those that may go\n");
}

Result<Outcome> clean_orphans(const Session& session, bool remove) {
    rpc::OrphansRequest request;
    request.set_remove(remove);
    rpc::OrphansReply reply;
    {
        ProgressLine line;
        line.tick("comparing the store, the nodes, Slurm and the catalogue");
        SCKPT_ASSIGN(reply, session.ask("Orphans", &Session::Stub::Orphans, request, std::nullopt));
    }
    if (!session.json()) return render_orphans(reply, remove);
    SCKPT_ASSIGN(const auto document, to_json(reply));
    return json_text(document);
}

}  // namespace sckpt::cli
