// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt show JOB: all that is known of a job; sckpt show JOB.N: of one of its checkpoints.
#include <sys/wait.h>
#include <algorithm>
#include <format>
#include <set>
#include <tuple>

#include "cli/verbs.h"
#include "common/interval.h"
#include "rpc/task_name.h"

namespace sckpt::cli {
namespace {

std::string interval_text(const rpc::Job& job) {
    return job.interval_seconds() > 0 ? "every " + format_seconds(job.interval_seconds()) : "by `sckpt create` only";
}

std::string slurm_text(const rpc::Job& job) {
    if (job.slurm_state().empty()) return "Slurm no longer knows this job";
    return job.node().empty() ? job.slurm_state() : std::format("{} on {}", job.slurm_state(), job.node());
}

std::string job_fields(const rpc::Job& job) {
    return std::format("job {}{}\n", job.job_id(), job.array_task().empty() ? "" : std::format(" ({})", job.array_task())) +
           fields({{"user", job.user().empty() ? std::to_string(job.uid()) : std::format("{} ({})", job.user(), job.uid())},
                   {"account", job.account()},
                   {"state", slurm_text(job)},
                   {"outcome", job.outcome()},
                   {"checkpoints", interval_text(job)},
                   {"restarts", std::format("{} by sckpt after failures, of at most {}", job.restarts(), job.max_restarts())},
                   {"held", job.held_reason()},
                   {"last error", job.last_error()}});
}

std::string files_text(const rpc::Image& image, const View& view) {
    Table table({{"SIZE", Align::right}, {"MODE"}, {"FILE"}});
    for (const rpc::File& file : image.files())
        table.add({{format_bytes(file.size())},
                   {std::string(file.append() ? "append" : "write") + (file.stdio() ? ", stdio" : "")},
                   {file.path()}});
    View whole = view;
    whole.width = 1 << 20;  // a path that is cut names no file
    return image.files_size() > 0 ? "    files open for writing, at the moment of the dump\n" + table.text(whole, "      ") : "";
}

std::string image_text(const rpc::Image& image, const View& view) {
    return std::format("  image of {}\n", image.task() == "batch" ? "the batch script" : "task " + printable(image.task())) +
           fields({{"dumped on", image.node()},
                   {"size", format_bytes(image.bytes())},
                   {"in memory", image.fast_node().empty() ? "" : "of " + image.fast_node()},
                   {"in the store", image.path()},
                   {"BLAKE3", image.digest()}},
                  "    ") +
           files_text(image, view);
}

// The batch script first, then by step and rank.
auto place_of(const std::string& task) {
    const auto name = parse_task_name(task);
    return std::tuple(task != kBatchTask, name ? name->step_key : 0, name ? name->rank : 0, task);
}

std::string ended_text(int wait_status) {
    if (WIFSIGNALED(wait_status)) return std::format("had ended: signal {}", WTERMSIG(wait_status));
    return std::format("had ended: exit status {}", WEXITSTATUS(wait_status));
}

std::vector<Cell> image_row(const rpc::Image& image) {
    return {{image.task()},
            {image.node()},
            {format_bytes(image.bytes())},
            {image.fast_node().empty() ? "-" : "yes"},
            {std::to_string(image.files_size())},
            {image.path().empty() ? "-" : image.path()}};
}

// One line for each task.
std::string images_table(const rpc::Checkpoint& checkpoint, const View& view) {
    using Row = std::pair<decltype(place_of("")), std::vector<Cell>>;
    std::vector<Row> rows;
    for (const rpc::Image& image : checkpoint.images()) rows.emplace_back(place_of(image.task()), image_row(image));
    for (const rpc::EndedTask& task : checkpoint.ended())
        rows.emplace_back(place_of(task.task()), std::vector<Cell>{{task.task()}, {"-"}, {"-"}, {"-"}, {"-"}, {ended_text(task.wait_status())}});
    std::ranges::sort(rows, {}, &Row::first);
    Table table({{"TASK"}, {"NODE"}, {"SIZE", Align::right}, {"MEMORY"}, {"FILES", Align::right}, {"IN THE STORE"}});
    for (Row& row : rows) table.add(std::move(row.second));
    return "  images\n" + table.text(view, "    ");
}

bool has_one_image(const rpc::Checkpoint& checkpoint) { return checkpoint.images_size() == 1 && checkpoint.ended().empty(); }

std::string images_text(const rpc::Checkpoint& checkpoint, const View& view) {
    if (has_one_image(checkpoint)) return image_text(checkpoint.images(0), view);
    return checkpoint.images().empty() ? "" : images_table(checkpoint, view);
}

// How many there are; of one, all is said elsewhere.
std::string count_text(const rpc::Checkpoint& checkpoint) {
    if (checkpoint.image_count() == 0 || has_one_image(checkpoint)) return "";
    std::set<std::string> nodes;
    for (const rpc::Image& image : checkpoint.images()) nodes.insert(image.node());
    std::string text = std::to_string(checkpoint.image_count());
    if (!nodes.empty()) text += std::format(" on {}", counted(nodes.size(), "node"));
    if (!checkpoint.ended().empty())
        text += std::format("; {} had ended", counted(static_cast<std::uint64_t>(checkpoint.ended_size()), "task"));
    return text;
}

// A share says how much was new to the store, and how well it could be compressed.
std::string stored_text(const rpc::Checkpoint& checkpoint) {
    if (checkpoint.new_bytes() == 0 || checkpoint.bytes() == 0) return "";
    return std::format("{} written to the store for it ({:.0f} %)", format_bytes(checkpoint.new_bytes()),
                       100.0 * static_cast<double>(checkpoint.new_bytes()) / static_cast<double>(checkpoint.bytes()));
}

std::string restarts_text(const rpc::Job& job, const View& view) {
    Table table({{"TIME"}, {"COUNT", Align::right}, {"CKPT", Align::right}, {"NODE"}, {"TOOK", Align::right}, {"OUTCOME"}});
    for (const rpc::Restart& restart : job.restarts_done())
        table.add({{format_time(restart.time())},
                   {std::to_string(restart.slurm_restart_count())},
                   {restart.checkpoint() ? std::to_string(restart.checkpoint()) : "-"},
                   {restart.node()},
                   {restart.restore_ms() ? format_milliseconds(restart.restore_ms()) : "-"},
                   {restart.outcome()}});
    return job.restarts_done_size() > 0 ? "\nrestarts\n" + table.text(view, "  ") : "";
}

std::string events_text(const rpc::Job& job) {
    std::string text = job.events_size() > 0 ? "\nevents\n" : "";
    for (const rpc::Event& event : job.events()) text += std::format("  {}  {}\n", format_time(event.time()), printable(event.text()));
    return text;
}

std::string checkpoint_fields(const rpc::Job& job, const rpc::Checkpoint& checkpoint) {
    return std::format("checkpoint {} of job {}\n", checkpoint.number(), job.job_id()) +
           fields({{"state", checkpoint_state(checkpoint)},
                   {"of", checkpoint.step().empty() ? "" : std::format("step {} alone", checkpoint.step())},
                   {"pinned", checkpoint.pinned() ? "yes: it stays until `sckpt unpin`" : ""},
                   {"drain", checkpoint.state() == rpc::CAPTURED ? drain_text(checkpoint.drain()) : ""},
                   {"reason", checkpoint.reason()},
                   {"created", format_time(checkpoint.created())},
                   {"completed", checkpoint.completed() ? format_time(checkpoint.completed()) : ""},
                   {"images", count_text(checkpoint)},
                   {"size", checkpoint.bytes() ? format_bytes(checkpoint.bytes()) : ""},
                   {"stored", stored_text(checkpoint)},
                   {"frozen", checkpoint.frozen_ms() ? format_milliseconds(checkpoint.frozen_ms()) : ""}});
}

}  // namespace

std::string render_checkpoint(const rpc::Job& job, const rpc::Checkpoint& checkpoint, const View& view) {
    return checkpoint_fields(job, checkpoint) + images_text(checkpoint, view);
}

std::string render_job(const rpc::Job& job, const View& view) {
    std::string text = job_fields(job);
    if (job.checkpoints_size() > 0) text += "\ncheckpoints\n" + render_checkpoints(job, view, "  ");
    for (const rpc::Checkpoint& checkpoint : job.checkpoints())
        if (checkpoint.image_count() > 0)
            text += "\n" + checkpoint_fields(job, checkpoint) + (has_one_image(checkpoint) ? images_text(checkpoint, view) : "");
    return text + restarts_text(job, view) + events_text(job);
}

Result<std::string> show(const Session& session, const NamedJob& job) {
    const JobId id = job.checkpoint();
    rpc::ShowRequest request;
    request.set_job_id(id.job);
    request.set_checkpoint(id.checkpoint);
    SCKPT_ASSIGN(const rpc::ShowReply reply, session.ask("Show", &Session::Stub::Show, request));
    const auto& checkpoints = reply.job().checkpoints();
    const auto wanted = std::ranges::find(checkpoints, id.checkpoint, &rpc::Checkpoint::number);
    if (id.checkpoint != 0 && wanted == checkpoints.end())
        return fail(Errc::not_found,
                    std::format("job {} has no checkpoint {}: `sckpt list {}` shows those that there are", id.job, id.checkpoint, id.job));
    if (session.json()) {
        SCKPT_ASSIGN(const auto document, id.checkpoint == 0 ? to_json(reply.job()) : to_json(*wanted));
        return json_text(document);
    }
    return id.checkpoint == 0 ? render_job(reply.job(), session.view()) : render_checkpoint(reply.job(), *wanted, session.view());
}

}  // namespace sckpt::cli
