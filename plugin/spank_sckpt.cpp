// SPDX-License-Identifier: GPL-3.0-or-later
//
// The SPANK plug-in: registers --ckpt, --ckpt-max-restarts and --ckpt-restart, checks their values where the job is submitted, and on the node puts
// sckpt-run in front of the task. It runs inside sbatch, srun and slurmstepd, so it is thin: no thread, no socket, nothing that waits.
// What goes wrong is told at submission, or raised in task_init, where it fails the job alone: a failing init drains the node.
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include <unistd.h>

extern "C" {  // the header declares the hooks outside of its own extern "C"
#include <slurm/spank.h>
}
#include <slurm/slurm.h>

#include "common/interval.h"
#include "plugin/settings.h"
#include "plugin/srun_step.h"
#include "plugin/step_restart.h"
#include "plugin/submission.h"
#include "rpc/srun.h"
#include "rpc/task_name.h"

// What SPANK_PLUGIN() defines. In C++ a const object has internal linkage unless it is declared extern first.
extern "C" {
extern const char plugin_name[], plugin_type[];
extern const unsigned int plugin_version, spank_plugin_version;
const char plugin_name[] = "sckpt";
const char plugin_type[] = "spank";
const unsigned int plugin_version = SLURM_VERSION_NUMBER;
const unsigned int spank_plugin_version = 1;
}

namespace {

using namespace sckpt::plugin;

Settings settings;  // from plugstack.conf
Request request;    // from the command line, the script or the environment

// An exception must not leave a hook: its caller is C.
template <class F>
int guarded(int on_exception, F body) noexcept {
    try {
        return body();
    } catch (...) {
        slurm_error("sckpt: out of memory");
        return on_exception;
    }
}

// Slurm ignores a failing callback on the node; there it is kept for task_init.
int refuse_value(const std::string& text, int remote) {
    request.problem = text;
    if (!remote) slurm_error("sckpt: %s", text.c_str());
    return -1;
}

int take_ckpt(int, const char* value, int remote) {
    return guarded(-1, [&] {
        if (!remote && !settings.problem.empty()) return refuse_value(settings.problem, remote);
        const auto option = sckpt::parse_ckpt_option(given_value(value, remote != 0));
        if (!option) return refuse_value(option.error().text, remote);
        request.given = true;
        request.interval_seconds = interval_argument(*option);
        return 0;
    });
}

int take_max_restarts(int, const char* value, int remote) {
    return guarded(-1, [&] {
        const auto count = parse_max_restarts(value ? value : "");
        if (!count) return refuse_value(count.error().text, remote);
        request.max_restarts = *count;
        return 0;
    });
}

int take_step(int, const char* value, int remote) {
    return guarded(-1, [&] {
        const auto origin = parse_step_origin(value ? value : "");
        if (!origin) return refuse_value(origin.error().text, remote);
        request.step = *origin;
        return 0;
    });
}

int take_restart(int, const char* value, int remote) {
    return guarded(-1, [&] {
        const auto step = parse_restart(value ? value : "");
        if (!step) return refuse_value(step.error().text, remote);
        request.restart = *step;
        return 0;
    });
}

char kCkptName[] = "ckpt", kCkptValue[] = "[INTERVAL|manual]";
char kCkptUsage[] =
    "checkpoint the job, and resume it from its last checkpoint when it is requeued; every INTERVAL (30, 1:30:00, 90s, 2h; "
    "a bare number is minutes), on demand only with manual, as often as the site says without a value";
char kRestartsName[] = "ckpt-max-restarts", kRestartsValue[] = "N";
char kRestartsUsage[] = "with --ckpt: how often the job is restarted from a checkpoint after a failure of its program";
std::string step_name = sckpt::srun::kStepOption;
char kStepValue[] = "JOB:KEY:N";
char kStepUsage[] = "of sckpt itself, for the steps of a batch script with --ckpt; not given by hand";
char kRestartName[] = "ckpt-restart", kRestartValue[] = "JOB.STEP[.N]";
char kRestartUsage[] =
    "the tasks of the new step go on from a checkpoint of a step's tasks, made by `sckpt create JOB.STEP`: the newest, or number N; the step needs as "
    "many tasks as that had, and its program is that of the checkpoint";
constexpr int kOptionalValue = 2, kValue = 1;  // as getopt_long's
spank_option ckpt_option{kCkptName, kCkptValue, kCkptUsage, kOptionalValue, 0, take_ckpt};
spank_option restarts_option{kRestartsName, kRestartsValue, kRestartsUsage, kValue, 0, take_max_restarts};
spank_option step_option{step_name.data(), kStepValue, kStepUsage, kValue, 0, take_step};
spank_option restart_option{kRestartName, kRestartValue, kRestartUsage, kValue, 0, take_restart};

bool submitting() { return spank_context() == S_CTX_LOCAL || spank_context() == S_CTX_ALLOCATOR; }

std::string environment_value(spank_t spank, const char* name) {
    char value[256];
    return spank_getenv(spank, name, value, sizeof value) == ESPANK_SUCCESS ? value : "";
}

template <class T>
T item(spank_t spank, spank_item_t which) {
    T value{};
    if (spank_get_item(spank, which, &value) != ESPANK_SUCCESS) return T{};
    return value;
}

// A job's own steps carry the batch script's job id, those of a heterogeneous job's other components too.
bool is_of_this_job(spank_t spank, const StepOrigin& origin) {
    if (origin.job_id == item<std::uint32_t>(spank, S_JOB_ID)) return true;
    return environment_value(spank, "SLURM_HET_JOB_ID") == std::to_string(origin.job_id);
}

// A heterogeneous job is one job to sckpt, that of its first component, whose number its other components have in their environment. So may a job have
// that was started within it: but components have consecutive numbers.
std::uint32_t whole_job(spank_t spank) {
    const auto job = item<std::uint32_t>(spank, S_JOB_ID);
    const auto number = [&](const char* name) {
        return static_cast<std::uint32_t>(std::strtoul(environment_value(spank, name).c_str(), nullptr, 10));
    };
    const std::uint32_t first = number("SLURM_HET_JOB_ID"), components = number("SLURM_HET_SIZE");
    return first != 0 && job >= first && job - first < components ? first : job;
}

// What the environment says of a task counts through all components of a heterogeneous step, what SPANK says begins anew in each.
std::string task_number(spank_t spank, const char* variable, spank_item_t otherwise) {
    const std::string value = environment_value(spank, variable);
    return value.empty() ? std::to_string(item<std::uint32_t>(spank, otherwise)) : value;
}

std::vector<std::string> supervisor_command(spank_t spank, std::uint32_t step, const std::optional<sckpt::StepCheckpoint>& origin) {
    const bool batch = step == SLURM_BATCH_SCRIPT;
    const bool ours = !batch && request.step && is_of_this_job(spank, *request.step);
    // S_SLURM_RESTART_COUNT is never filled in by Slurm 24.11; the environment variable is, in the batch step, and by the script's sckpt-run in the
    // steps that it starts. Other steps may have inherited it from another job.
    std::uint32_t restarts = item<std::uint32_t>(spank, S_SLURM_RESTART_COUNT);
    if ((batch || ours) && restarts == 0)
        restarts = static_cast<std::uint32_t>(std::strtoul(environment_value(spank, "SLURM_RESTART_COUNT").c_str(), nullptr, 10));
    std::vector<std::string> command{settings.supervisor,
                                     "--job=" + std::to_string(ours ? request.step->job_id : whole_job(spank)),
                                     "--step=" + std::to_string(step),
                                     "--task=" + task_number(spank, "SLURM_PROCID", S_TASK_GLOBAL_ID),
                                     "--restart-count=" + std::to_string(restarts),
                                     "--interval=" + std::to_string(request.interval_seconds),
                                     "--max-restarts=" + std::to_string(request.max_restarts),
                                     "--socket=" + settings.socket};
    if (!batch) {
        command.push_back("--step-key=" + std::to_string(ours ? request.step->key : sckpt::kForeignStep | step));
        command.push_back("--resume-from=" + std::to_string(origin ? origin->number : ours ? request.step->resume_from : 0));
        if (origin) {
            command.push_back("--origin-job=" + std::to_string(origin->job_id));
            command.push_back("--origin-key=" + std::to_string(origin->step_key));
        }
        command.push_back("--tasks=" + task_number(spank, "SLURM_STEP_NUM_TASKS", S_JOB_TOTAL_TASK_COUNT));
    }
    command.emplace_back("--");
    return command;
}

int prepend(spank_t spank, const std::vector<std::string>& command) {
    std::vector<const char*> argv;
    for (const std::string& argument : command) argv.push_back(argument.c_str());
    const spank_err_t error = spank_prepend_task_argv(spank, static_cast<int>(argv.size()), argv.data());
    if (error == ESPANK_SUCCESS) return 0;
    slurm_error("sckpt: cannot put sckpt-run in front of the task: %s", spank_strerror(error));
    return -1;
}

int supervise_task(spank_t spank) {
    const auto step = item<std::uint32_t>(spank, S_JOB_STEPID);
    if (step != SLURM_BATCH_SCRIPT && step > SLURM_MAX_NORMAL_STEP_ID) return 0;  // the extern and the interactive step
    const bool restarts = request.restart && !request.is_resumed();
    if (!request.given && !restarts && request.problem.empty()) return 0;
    if (request.problem.empty()) request.problem = settings.problem;
    if (!request.problem.empty()) {
        slurm_error("sckpt: %s", request.problem.c_str());
        return -1;
    }
    if (restarts && !environment_value(spank, "SLURM_CONTAINER").empty()) {
        slurm_error("sckpt: --ckpt-restart: tasks with --container cannot be restored");
        return -1;
    }
    if (!environment_value(spank, "SLURM_CONTAINER").empty()) {
        slurm_error("sckpt: a job with --container runs without checkpoints");
        return 0;
    }
    if (::access(settings.supervisor.c_str(), X_OK) != 0) {
        slurm_error("sckpt: cannot run %s on this node: %s. Install sckpt here, or correct supervisor= in plugstack.conf",
                    settings.supervisor.c_str(), std::strerror(errno));
        return -1;
    }
    std::optional<sckpt::StepCheckpoint> origin;
    if (restarts) {
        origin = announced_origin(environment_value(spank, sckpt::srun::kOriginVariable));
        if (!origin) return slurm_error("sckpt: --ckpt-restart: srun has not said which checkpoint it has found"), -1;
    }
    return prepend(spank, supervisor_command(spank, step, origin));
}

}  // namespace

extern "C" int slurm_spank_init(spank_t spank, int argument_count, char** arguments) {
    return guarded(0, [&] {
        const bool in_srun = spank_context() == S_CTX_LOCAL, on_node = spank_context() == S_CTX_REMOTE;
        if (!submitting() && !on_node) return 0;
        settings = read_settings(argument_count, arguments);
        if (submitting() && !settings.problem.empty()) slurm_error("sckpt: %s", settings.problem.c_str());
        if (in_srun) {
            std::string problem;
            become_stub(settings.stub, problem);
            if (!problem.empty()) slurm_error("sckpt: %s", problem.c_str());
            take_report_descriptor();
        }
        std::vector<spank_option*> options{&ckpt_option, &restarts_option};
        if (in_srun || on_node) options.insert(options.end(), {&step_option, &restart_option});
        for (spank_option* option : options)
            if (spank_option_register(spank, option) != ESPANK_SUCCESS) slurm_error("sckpt: cannot register --%s", option->name);
        return 0;
    });
}

extern "C" int slurm_spank_init_post_opt(spank_t, int, char**) {
    return guarded(0, [&] {
        if (!submitting()) return 0;
        if (spank_context() == S_CTX_LOCAL) {
            ::unsetenv(sckpt::srun::kStepVariable);  // srun has read it, and its tasks would inherit it
            report_component();
            const std::string problem = request.restart ? judge_restart(component_count()) : std::string();
            if (!problem.empty()) {
                slurm_error("sckpt: %s", problem.c_str());
                return -1;
            }
        }
        if (!request.given) {
            if (request.max_restarts >= 0) slurm_info("sckpt: --ckpt-max-restarts does nothing without --ckpt");
            return 0;
        }
        if (spank_context() != S_CTX_ALLOCATOR) return 0;
        ::unsetenv("SLURM_RESTART_COUNT");  // of the job that submits this one: a new job has none
        for (const std::string& warning : submission_warnings()) slurm_info("sckpt: %s", warning.c_str());
        return 0;
    });
}

extern "C" int slurm_spank_local_user_init(spank_t spank, int, char**) {
    return guarded(-1, [&] {
        if (request.restart && !request.is_resumed()) {
            const auto found = find_step(settings.command.empty() ? SCKPT_BINDIR "/sckpt" : settings.command, *request.restart, item<std::uint32_t>(spank, S_JOB_TOTAL_TASK_COUNT));
            if (!found) {
                slurm_error("sckpt: --ckpt-restart=%s: %s", to_string(*request.restart).c_str(), found.error().text.c_str());
                return -1;
            }
            announce_origin(*found);
        }
        report_step(item<std::uint32_t>(spank, S_JOB_ID), item<std::uint32_t>(spank, S_JOB_STEPID),
                    item<std::uint32_t>(spank, S_JOB_TOTAL_TASK_COUNT));  // of its first component, if it has several
        return 0;
    });
}

extern "C" int slurm_spank_task_init(spank_t spank, int, char**) {
    return guarded(-1, [&] {
        spank_unsetenv(spank, sckpt::srun::kStepVariableOnNode);
        const int done = supervise_task(spank);
        spank_unsetenv(spank, sckpt::srun::kOriginVariable);
        return done;
    });
}
