// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt watch [JOB]: dumps, drains and restarts as they go on. A terminal has a table that changes in place; a log a line a
// change.
#include <unistd.h>
#include <algorithm>
#include <ctime>
#include <format>

#include "cli/progress.h"
#include "cli/verbs.h"
#include "common/fd.h"

namespace sckpt::cli {
namespace {

Activity checkpoint_activity(const rpc::Job& job, const rpc::Checkpoint& checkpoint) {
    Activity activity{.id = {job.job_id(), checkpoint.number()}, .user = job.user(), .node = job.node()};
    if (checkpoint.state() == rpc::PREPARING) activity.text = activity.news = "being written to the memory of its node";
    if (checkpoint.state() == rpc::CAPTURED) {
        activity.text = drain_text(checkpoint.drain());
        activity.news = drain_news(checkpoint.drain());
    }
    return activity;
}

Activity restart_activity(const rpc::Job& job) {
    const std::string text = job.node().empty() ? "restarting" : "restarting on " + job.node();
    return {.id = {job.job_id(), 0}, .user = job.user(), .node = job.node(), .text = text, .news = text};
}

std::string checkpoint_end(const rpc::Checkpoint& checkpoint) {
    switch (checkpoint.state()) {
        case rpc::COMPLETE:
            return std::format("complete, {} ({} written), frozen {}", format_bytes(checkpoint.bytes()),
                               format_bytes(checkpoint.new_bytes()), format_milliseconds(checkpoint.frozen_ms()));
        case rpc::FAILED:
        case rpc::BAD: return std::format("{}: {}", checkpoint.state() == rpc::FAILED ? "failed" : "bad", checkpoint.reason());
        case rpc::CAPTURED: return drain_text(checkpoint.drain());
        default: return checkpoint_state(checkpoint);
    }
}

// Where the changes go, in one of three forms.
class Screen {
   public:
    explicit Screen(const Session& session) : session_(session), live_(STDOUT_FILENO) {}

    Result<> show(const rpc::WatchReply& reply) {
        if (session_.json()) return show_json(reply);
        const std::vector<Activity> all = activities(reply);
        const WatchState::Changes changes = state_.update(all);
        std::string ended;
        for (const JobId& id : changes.ended) ended += stamped(end_of(id));
        if (isatty(STDOUT_FILENO)) return live_.show(ended, table(all));
        std::string changed;
        for (const Activity& activity : changes.changed)
            changed += stamped(std::format("{}: {}", to_string(activity.id), activity.text));
        return write_all(STDOUT_FILENO, ended + changed);
    }
    Result<> close() {
        if (session_.json() || !isatty(STDOUT_FILENO)) return {};
        return live_.show("", "");
    }

   private:
    Result<> show_json(const rpc::WatchReply& reply) {
        SCKPT_ASSIGN(const auto document, to_json(reply));
        return write_all(STDOUT_FILENO, document.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
    }

    static std::string stamped(const std::string& line) {
        return std::format("{}  {}\n", format_time(std::time(nullptr)), printable(line));
    }

    // What is no longer under way has an end that only the catalogue knows.
    std::string end_of(const JobId& id) const {
        rpc::ShowRequest request;
        request.set_job_id(id.job);
        request.set_checkpoint(id.checkpoint);
        const auto reply = session_.ask("Show", &Session::Stub::Show, request);
        return reply ? render_end(id, reply->job()) : std::format("{}: {}", to_string(id), reply.error().text);
    }

    // No more lines than the terminal has: what has scrolled away cannot be drawn again.
    static std::string table(const std::vector<Activity>& all) {
        const TerminalSize size = terminal_size(STDOUT_FILENO);
        const std::size_t room = static_cast<std::size_t>(std::max(size.rows - 3, 1));
        View view;
        view.width = size.columns;
        std::string text =
            render_activities({all.begin(), all.begin() + static_cast<std::ptrdiff_t>(std::min(room, all.size()))}, view);
        if (all.size() > room) text += std::format("and {} more\n", all.size() - room);
        return text;
    }

    const Session& session_;
    LiveLines live_;
    WatchState state_;
};

}  // namespace

std::vector<Activity> activities(const rpc::WatchReply& reply) {
    std::vector<Activity> all;
    for (const rpc::Job& job : reply.jobs()) {
        const std::size_t before = all.size();
        for (const rpc::Checkpoint& checkpoint : job.checkpoints())
            if (checkpoint.state() == rpc::PREPARING || checkpoint.state() == rpc::CAPTURED)
                all.push_back(checkpoint_activity(job, checkpoint));
        if (all.size() == before) all.push_back(restart_activity(job));
    }
    return all;
}

WatchState::Changes WatchState::update(const std::vector<Activity>& now) {
    Changes changes;
    std::map<JobId, std::string> news;
    for (const Activity& activity : now) {
        news[activity.id] = activity.news;
        const auto before = news_.find(activity.id);
        if (before == news_.end() || before->second != activity.news) changes.changed.push_back(activity);
    }
    for (const auto& [id, unused] : news_)
        if (!news.contains(id)) changes.ended.push_back(id);
    news_ = std::move(news);
    return changes;
}

std::string render_activities(const std::vector<Activity>& all, const View& view) {
    if (all.empty())
        return shorten("nothing is under way (Ctrl-C ends this)", static_cast<std::size_t>(std::max(view.width, 1))) + "\n";
    Table table({{"CKPT", Align::right}, {"USER"}, {"NODE"}, {"DOING"}});
    for (const Activity& activity : all) table.add({{to_string(activity.id)}, {activity.user}, {activity.node}, {activity.text}});
    return table.text(view);
}

std::string render_end(const JobId& id, const rpc::Job& job) {
    const std::string name = to_string(id);
    if (id.checkpoint == 0) {
        const int restarts = job.restarts_done_size();
        return std::format("{}: {}", name, restarts > 0 ? job.restarts_done(restarts - 1).outcome() : "no longer restarting");
    }
    for (const rpc::Checkpoint& checkpoint : job.checkpoints())
        if (checkpoint.number() == id.checkpoint) return std::format("{}: {}", name, checkpoint_end(checkpoint));
    return name + ": removed";
}

Result<std::string> watch(const Session& session, const std::vector<NamedJob>& jobs) {
    rpc::WatchRequest request;
    for (const NamedJob& job : jobs) {
        if (!job.problem.empty()) return fail(Errc::not_found, job.problem);
        request.add_job_ids(job.job);
    }
    grpc::ClientContext context;
    SCKPT_TRY(session.add_credential(context, "Watch", request));
    const auto stream = session.stub().Watch(&context, request);
    Screen screen(session);
    rpc::WatchReply reply;
    bool seen = false, over = false;
    Result<> shown;
    while (shown && !over && stream->Read(&reply)) {
        shown = screen.show(reply);
        over = !jobs.empty() && seen && reply.jobs().empty();
        seen = seen || !reply.jobs().empty();
    }
    const bool ours = over || !shown;
    if (ours) context.TryCancel();
    const grpc::Status status = stream->Finish();
    if (shown) shown = screen.close();
    SCKPT_TRY(shown);
    if (!ours && !status.ok()) return std::unexpected(session.error(status));
    return "";
}

}  // namespace sckpt::cli
