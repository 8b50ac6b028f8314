// SPDX-License-Identifier: GPL-3.0-or-later
//
// The verbs of sckpt, one file each. A verb returns what goes to standard output. The render functions have no other input or
// effect than what is in their arguments.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "cli/job_id.h"
#include "cli/jobs.h"
#include "cli/session.h"
#include "rpc/sckpt.pb.h"
#include "rpc/task_name.h"

namespace sckpt::cli {

struct CreateOptions {
    bool requeue = false;
    std::optional<std::chrono::seconds> max_wait = std::nullopt;  // from now on, whenever a job's turn is
    std::chrono::system_clock::time_point begin = std::chrono::system_clock::now();
    bool several = false;  // progress is told with the job's name
};
Result<std::chrono::seconds> parse_wait(std::string_view text);  // "90" (seconds), or a time with a unit: "5m"
// Shows its progress on standard error: one changing line on a terminal, else a line a phase.
Result<std::string> create(const Session& session, const NamedJob& job, const CreateOptions& options);  // job.part: a step
Result<std::string> list(const Session& session, const std::optional<NamedJob>& job);  // none: all jobs, one a line
Result<Outcome> list_jobs(const Session& session, const Selection& selection);          // these, one a line
Result<std::string> show(const Session& session, const NamedJob& job);
Result<std::string> find_step(const Session& session, const StepCheckpoint& step, std::uint32_t tasks);  // tasks 0: not known yet
Result<std::string> status(const Session& session);
Result<std::string> pin(const Session& session, const NamedJob& job);
Result<std::string> unpin(const Session& session, const NamedJob& job);
// Writes to standard output itself, as it goes on. No jobs: all.
Result<std::string> watch(const Session& session, const std::vector<NamedJob>& jobs);

// create: the phases seen so far, the line that tells of the newest, and what is new in it to who reads only that.
struct CreateState {
    rpc::CreateProgress last;
    bool captured = false, complete = false, requeued = false;
    void update(const rpc::CreateProgress& progress);
};
std::string render_progress(const CreateState& state);
std::string progress_news(const CreateState& state);
std::string render_created(const CreateState& state, const NamedJob& job);

// A captured image on its way into the store: "storing, 1.0 MiB of 12.3 MiB, 300.0 MiB/s, 2s left", "waiting: the store is full".
std::string drain_text(const rpc::Drain& drain);
// What of it is worth a line of its own in a log: its phase, and what it waits for.
std::string drain_news(const rpc::Drain& drain);
std::string checkpoint_state(const rpc::Checkpoint& checkpoint);  // "COMPLETE"

std::string render_jobs(const rpc::ListReply& reply, const View& view);
std::string render_checkpoints(const rpc::Job& job, const View& view, std::string_view indent = "");
std::string render_job(const rpc::Job& job, const View& view);
std::string render_checkpoint(const rpc::Job& job, const rpc::Checkpoint& checkpoint, const View& view);
std::string render_status(const rpc::StatusReply& reply, const std::string& address, const View& view);

// watch: what is under way now, one of it for each checkpoint that is not complete yet and for each restart.
struct Activity {
    JobId id;  // checkpoint 0: a restart
    std::string user, node, text;
    std::string news;  // changes when a log should have a line about it
};
std::vector<Activity> activities(const rpc::WatchReply& reply);

class WatchState {
   public:
    struct Changes {
        std::vector<Activity> changed;
        std::vector<JobId> ended;
    };
    Changes update(const std::vector<Activity>& now);

   private:
    std::map<JobId, std::string> news_;
};
std::string render_activities(const std::vector<Activity>& all, const View& view);
std::string render_end(const JobId& id, const rpc::Job& job);  // what became of it

}  // namespace sckpt::cli
