// SPDX-License-Identifier: GPL-3.0-or-later
//
// From what the user has named to jobs: the tasks of a job array are jobs of their own, and sckptctld asks Slurm for their numbers. And a verb for
// several jobs: what became of each, and one exit code.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cli/job_id.h"
#include "cli/program.h"
#include "cli/session.h"

namespace sckpt::cli {

struct NamedJob {
    std::uint32_t job = 0;              // 0: there is none of this name, see `problem`
    std::optional<std::uint32_t> part;  // the number of a checkpoint, or a step
    std::string name;                   // as users say it: "12", "12.3", "123_4.0"
    std::string problem;
    JobId checkpoint() const { return {job, part.value_or(0)}; }
};
struct Selection {
    std::vector<NamedJob> jobs;  // one at least
    bool several = false;        // one of them was named by a list or as an array: results are those of several jobs
};
// running: of a whole array only the tasks that run now.
Result<Selection> select_jobs(const Session& session, const std::string& text, Part part, bool running);

// What the verb prints for one job; with --json a document.
using JobVerb = std::function<Result<std::string>(const NamedJob&)>;
// Of a single job as if it stood alone. Of several the texts one after the other, and errors on standard error; with --json one document {"jobs":
// [...]}, in which each has its `name`, and `error` where it failed. Exit code: that of the first error when none worked, ExitCode::some when some
// did. `doing`: "checkpointing". At most `at_once` of them at the same time.
Result<Outcome> for_each_job(const Session& session, const Selection& selection, const std::string& doing, const JobVerb& verb, unsigned at_once = 1);

}  // namespace sckpt::cli
