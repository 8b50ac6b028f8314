// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the plug-in is told: by the administrator in plugstack.conf, by the user with --ckpt, by sbatch about the rest
// of a submission.
// Nothing here knows Slurm, so that unit tests can.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/interval.h"
#include "common/result.h"
#include "rpc/task_name.h"

namespace sckpt::plugin {

struct Settings {
    std::string socket = SCKPT_RUNSTATEDIR "/sckpt/sckptd.sock";
    std::string supervisor = SCKPT_LIBEXECDIR "/sckpt-run";
    std::string stub = SCKPT_LIBEXECDIR "/sckpt-srun";
    std::string command;  // sckpt; "": where it was installed
    std::string problem;  // a bad line in plugstack.conf: a job with --ckpt is refused with this text
};
Settings read_settings(int count, char* const* arguments);

// The value of --ckpt-step, which a script's sckpt-run gives to the sruns that it starts: "JOB:KEY:N" (rpc/srun.h).
struct StepOrigin {
    std::uint32_t job_id = 0, key = 0, resume_from = 0;
};
Result<StepOrigin> parse_step_origin(std::string_view text);
// The value of --ckpt-restart: "JOB.STEP" or "JOB.STEP.N".
Result<StepCheckpoint> parse_restart(std::string_view text);

struct Request {
    bool given = false;                  // --ckpt
    std::int64_t interval_seconds = -1;  // 0: manual; -1: the site's default
    std::int32_t max_restarts = -1;      // -1: the site's default
    std::optional<StepOrigin> step;      // --ckpt-step
    std::optional<StepCheckpoint> restart;  // --ckpt-restart
    // A step that its script's restart has started anew: what its tasks go on from is a matter of that job's checkpoint.
    bool is_resumed() const { return step && step->resume_from > 0; }
    std::string problem;                 // a bad value
};
// The value as Slurm hands it to a plug-in. A bare --ckpt is a null pointer on the command line, an empty string on the node, and
// "(null)" in an srun or sbatch that is started inside such a job; null is the answer for all three.
const char* given_value(const char* value, bool on_node);
std::int64_t interval_argument(const CkptOption& option);
Result<std::int32_t> parse_max_restarts(std::string_view text);

// What sbatch knows about a job, and what its user should be told about restarts. The modes are as sbatch has them after command
// line, environment and script: "a", "t" or empty;
// "requeue", "no-requeue" or "unset". The last two are JobFileAppend and JobRequeue of slurm.conf.
struct Submission {
    std::string open_mode, requeue;
    bool append_by_default = false, requeue_by_default = true;
};
std::vector<std::string> judge_submission(const Submission& submission);

}  // namespace sckpt::plugin
