// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-clean report: who uses what, and what a run would remove. sckpt-clean run: has sckptctld remove it, and follows.
#include <algorithm>
#include <format>
#include <numeric>

#include "cli/clean.h"
#include "cli/job_id.h"
#include "cli/progress.h"

namespace sckpt::cli {
namespace {

std::string free_text(const rpc::ReportReply& reply) {
    if (reply.store_total() == 0) return "not known: no node could tell";
    return std::format("{} free of {}", format_bytes(reply.store_free()), format_bytes(reply.store_total()));
}

// The largest first: that is whom a report is read for.
std::string usage_text(const google::protobuf::RepeatedPtrField<rpc::Usage>& all, const std::string& title, const View& view) {
    if (all.empty()) return "";
    std::vector<rpc::Usage> sorted(all.begin(), all.end());
    std::ranges::stable_sort(sorted, std::ranges::greater(), [](const rpc::Usage& usage) { return usage.bytes(); });
    Table table({{"CHECKPOINTS", Align::right}, {"SIZE", Align::right}, {title}});
    for (const rpc::Usage& usage : sorted)
        table.add(
            {{std::to_string(usage.checkpoints())}, {format_bytes(usage.bytes())}, {usage.name().empty() ? "-" : usage.name()}});
    return "\n" + table.text(view);
}

std::string over_text(const rpc::ReportReply& reply) {
    std::string text;
    for (const std::string& line : reply.over()) text += "  " + printable(line) + "\n";
    return text.empty() ? "" : "\nover a limit, even after a run\n" + text;
}

std::uint64_t removal_bytes(const rpc::ReportReply& reply) {
    const auto& all = reply.removals();
    return std::accumulate(all.begin(), all.end(), std::uint64_t{0},
                           [](std::uint64_t sum, const rpc::Removal& removal) { return sum + removal.bytes(); });
}

Result<rpc::ReportReply> ask_for_report(const Session& session, const rpc::RetentionRules& rules) {
    rpc::ReportRequest request;
    *request.mutable_rules() = rules;
    return session.ask("Report", &Session::Stub::Report, request, std::nullopt);
}

std::string clean_line(const rpc::CleanProgress& progress) {
    return std::format("{} removed, {} freed{}{}", counted(progress.checkpoints_removed(), "checkpoint"),
                       format_bytes(progress.bytes_freed()), progress.doing().empty() ? "" : "; ", progress.doing());
}

}  // namespace

std::string render_removals(const rpc::ReportReply& reply, const View& view) {
    std::string text =
        reply.removals().empty()
            ? "a run would remove no checkpoint"
            : std::format("a run would remove {}, {}", counted(static_cast<std::uint64_t>(reply.removals_size()), "checkpoint"),
                          format_bytes(removal_bytes(reply)));
    if (reply.garbage_bytes() > 0)
        text += std::format(", and {} that no checkpoint needs any more", format_bytes(reply.garbage_bytes()));
    text += "\n";
    if (reply.removals().empty()) return text;
    Table table({{"CKPT", Align::right}, {"USER"}, {"FREES", Align::right}, {"WHY"}});
    for (const rpc::Removal& removal : reply.removals())
        table.add({{to_string({removal.job_id(), removal.checkpoint()})},
                   {removal.user()},
                   {format_bytes(removal.bytes())},
                   {removal.why()}});
    View whole = view;
    whole.width = 1 << 20;  // the reason is what a report is read for
    return text + table.text(whole, "  ");
}

std::string render_report(const rpc::ReportReply& reply, const View& view) {
    return fields({{"in the store", std::format("{} in {}", format_bytes(reply.total().bytes()),
                                                counted(reply.total().checkpoints(), "checkpoint"))},
                   {"file system", free_text(reply)},
                   {"to be removed",
                    reply.garbage_bytes() > 0 ? format_bytes(reply.garbage_bytes()) + " that no checkpoint needs any more" : ""}},
                  "") +
           usage_text(reply.users(), "USER", view) + usage_text(reply.accounts(), "ACCOUNT", view) + over_text(reply) + "\n" +
           render_removals(reply, view);
}

std::string render_cleaned(const rpc::CleanProgress& end) {
    if (end.checkpoints_removed() == 0 && end.files_removed() == 0) return "nothing was to be removed\n";
    return std::format("removed {} and {}, {} freed\n", counted(end.checkpoints_removed(), "checkpoint"),
                       counted(end.files_removed(), "file"), format_bytes(end.bytes_freed()));
}

Result<Outcome> clean_report(const Session& session, const rpc::RetentionRules& rules) {
    SCKPT_ASSIGN(const rpc::ReportReply reply, ask_for_report(session, rules));
    if (!session.json()) return render_report(reply, session.view());
    SCKPT_ASSIGN(const auto document, to_json(reply));
    return json_text(document);
}

Result<Outcome> clean_run(const Session& session, const rpc::RetentionRules& rules, bool dry_run) {
    if (dry_run) {
        if (session.json()) return clean_report(session, rules);
        SCKPT_ASSIGN(const rpc::ReportReply reply, ask_for_report(session, rules));
        return render_removals(reply, session.view());
    }
    rpc::CleanRequest request;
    *request.mutable_rules() = rules;
    rpc::CleanProgress last;
    {
        ProgressLine line;
        SCKPT_TRY(session.follow("Clean", &Session::Stub::Clean, request, [&](const rpc::CleanProgress& progress) {
            last = progress;
            line.tick(clean_line(progress));
        }));
    }
    if (!session.json()) return render_cleaned(last);
    SCKPT_ASSIGN(const auto document, to_json(last));
    return json_text(document);
}

}  // namespace sckpt::cli
