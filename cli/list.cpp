// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt list: all jobs, one a line; sckpt list JOB: the checkpoints of one.
#include <algorithm>
#include <format>

#include "cli/verbs.h"

namespace sckpt::cli {
namespace {

constexpr std::size_t kMaxUserWidth = 10;

std::string user_name(const rpc::Job& job) { return job.user().empty() ? std::to_string(job.uid()) : job.user(); }

const rpc::Checkpoint* newest_complete(const rpc::Job& job) {
    const rpc::Checkpoint* newest = nullptr;
    for (const rpc::Checkpoint& checkpoint : job.checkpoints())
        if (checkpoint.state() == rpc::COMPLETE && checkpoint.step().empty()) newest = &checkpoint;  // oldest first
    return newest;
}

// The first that there is: why the job stands still, what is under way, what went wrong, how it ended.
Cell note(const rpc::Job& job) {
    if (!job.held_reason().empty()) return {"held: " + job.held_reason(), Colour::bad};
    for (const rpc::Checkpoint& checkpoint : job.checkpoints())
        if (checkpoint.state() == rpc::CAPTURED)
            return {std::format("{}: {}", checkpoint.number(), drain_text(checkpoint.drain()))};
    if (!job.last_error().empty()) return {job.last_error()};
    return {job.outcome()};
}

std::vector<Cell> job_row(const rpc::Job& job, const View& view) {
    const rpc::Checkpoint* last = newest_complete(job);
    return {{job.array_task().empty() ? std::to_string(job.job_id()) : std::format("{} ({})", job.job_id(), job.array_task())},
            {shorten(user_name(job), kMaxUserWidth)},
            {job.slurm_state().empty() ? "-" : job.slurm_state()},
            {last ? std::to_string(last->number()) : "-"},
            {last ? format_age(view.now - last->created()) : "-"},
            {last ? format_bytes(last->bytes()) : "-"},
            {std::to_string(job.restarts())},
            note(job)};
}

std::string bytes_or_dash(std::uint64_t bytes) { return bytes > 0 ? format_bytes(bytes) : "-"; }

std::string remark(const rpc::Checkpoint& checkpoint) {
    std::string text;
    for (const std::string& part : {checkpoint.step().empty() ? "" : std::format("step {} alone", checkpoint.step()),
                                    std::string(checkpoint.pinned() ? "pinned" : ""),
                                    checkpoint.state() == rpc::CAPTURED ? drain_text(checkpoint.drain()) : checkpoint.reason()})
        if (!part.empty()) text += (text.empty() ? "" : "; ") + part;
    return text;
}

Colour state_colour(rpc::CheckpointState state) {
    if (state == rpc::COMPLETE) return Colour::good;
    return state == rpc::FAILED || state == rpc::BAD ? Colour::bad : Colour::none;
}

}  // namespace

std::string checkpoint_state(const rpc::Checkpoint& checkpoint) {
    return checkpoint.state() == rpc::CHECKPOINT_STATE_UNKNOWN ? "UNKNOWN" : rpc::CheckpointState_Name(checkpoint.state());
}

std::string render_jobs(const rpc::ListReply& reply, const View& view) {
    Table table({{"JOB", Align::right},
                 {"USER"},
                 {"STATE"},
                 {"CKPT", Align::right},
                 {"LAST", Align::right},
                 {"SIZE", Align::right},
                 {"RESTARTS", Align::right},
                 {"NOTE"}});
    for (const rpc::Job& job : reply.jobs()) table.add(job_row(job, view));
    return table.text(view);
}

// The number of images takes room from the note, and is told where it says something.
std::string render_checkpoints(const rpc::Job& job, const View& view, std::string_view indent) {
    const bool several = std::ranges::any_of(job.checkpoints(), [](const auto& checkpoint) { return checkpoint.image_count() > 1; });
    std::vector<Column> columns{{"N", Align::right}, {"STATE"}, {"CREATED"}};
    if (several) columns.push_back({"IMAGES", Align::right});
    columns.insert(columns.end(), {{"SIZE", Align::right}, {"STORED", Align::right}, {"FROZEN", Align::right}, {"NOTE"}});
    Table table(std::move(columns));
    for (const rpc::Checkpoint& checkpoint : job.checkpoints()) {
        std::vector<Cell> row{{std::to_string(checkpoint.number())},
                              {checkpoint_state(checkpoint), state_colour(checkpoint.state())},
                              {format_time(checkpoint.created())}};
        if (several) row.push_back({checkpoint.image_count() ? std::to_string(checkpoint.image_count()) : "-"});
        row.insert(row.end(), {{bytes_or_dash(checkpoint.bytes())},
                               {bytes_or_dash(checkpoint.new_bytes())},
                               {checkpoint.frozen_ms() ? format_milliseconds(checkpoint.frozen_ms()) : "-"},
                               {remark(checkpoint)}});
        table.add(std::move(row));
    }
    return table.text(view, indent);
}

Result<std::string> list(const Session& session, const std::optional<NamedJob>& job) {
    if (job && !job->problem.empty()) return fail(Errc::not_found, job->problem);
    rpc::ListRequest request;
    request.set_job_id(job ? job->job : 0);
    SCKPT_ASSIGN(const rpc::ListReply reply, session.ask("List", &Session::Stub::List, request));
    if (job && reply.jobs_size() == 0) return fail(Errc::not_found, std::format("sckptctld knows no job {}", job->job));
    if (session.json()) {
        SCKPT_ASSIGN(const auto document, to_json(reply));
        return json_text(document);
    }
    return job ? render_checkpoints(reply.jobs(0), session.view()) : render_jobs(reply, session.view());
}

Result<Outcome> list_jobs(const Session& session, const Selection& selection) {
    rpc::ListReply all;
    const JobVerb one = [&](const NamedJob& job) -> Result<std::string> {
        rpc::ListRequest request;
        request.set_job_id(job.job);
        SCKPT_ASSIGN(const rpc::ListReply reply, session.ask("List", &Session::Stub::List, request));
        all.MergeFrom(reply);
        if (!session.json() || reply.jobs_size() == 0) return "";
        SCKPT_ASSIGN(const auto document, to_json(reply.jobs(0)));
        return json_text(document);
    };
    SCKPT_ASSIGN(Outcome outcome, for_each_job(session, selection, "listing", one));
    if (!session.json() && all.jobs_size() > 0) outcome.text = render_jobs(all, session.view());
    return outcome;
}

}  // namespace sckpt::cli
