// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt find-step JOB.STEP[.N]: what `srun --ckpt-restart` would start a step from. srun asks this itself, and reads the answer up to its colon.
#include <format>

#include "cli/verbs.h"

namespace sckpt::cli {

Result<std::string> find_step(const Session& session, const StepCheckpoint& step, std::uint32_t tasks) {
    rpc::FindStepRequest request;
    request.set_job_id(step.job_id);
    request.set_step_key(step.step_key);
    request.set_checkpoint(step.number);
    request.set_tasks(tasks);
    SCKPT_ASSIGN(const rpc::FindStepReply reply, session.ask("FindStep", &Session::Stub::FindStep, request));
    const StepCheckpoint found{reply.job_id(), reply.step_key(), reply.checkpoint()};
    if (session.json())
        return json_text({{"job_id", found.job_id},
                          {"step", step_name(found.step_key)},
                          {"checkpoint", found.number},
                          {"tasks", reply.tasks()},
                          {"ended", reply.ended()},
                          {"name", to_string(found)}});
    const std::string ended = reply.ended() > 0 ? std::format(", of which {} had ended", reply.ended()) : "";
    return std::format("{}: {} task{}{}\n", to_string(found), reply.tasks(), reply.tasks() == 1 ? "" : "s", ended);
}

}  // namespace sckpt::cli
