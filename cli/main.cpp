// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt: the users' command. Reads the command line, runs one verb, prints its result or its error. See sckpt(1).
#include <CLI/CLI.hpp>
#include <format>
#include <string>

#include "cli/jobs.h"
#include "cli/program.h"
#include "cli/verbs.h"

namespace {

using namespace sckpt;
using namespace sckpt::cli;

// Arguments as they were given; checked by their options.
struct Arguments {
    std::string job, max_wait;
    std::uint32_t tasks = 0;
};

std::string check_wait(const std::string& text) {
    const auto wait = parse_wait(text);
    return wait ? "" : wait.error().text;
}

const std::string kJobs = "job ids: 12, tasks of an array as 123_4 or 123_[1-10], several with commas between";
constexpr unsigned kCheckpointsAtOnce = 16;  // that a command follows

CLI::Option* add_jobs(CLI::App& verb, Arguments& given, const std::string& name, const std::string& more, Part part) {
    return verb.add_option(name, given.job, kJobs + more)->type_name("")->check([part](const std::string& text) {
        const auto jobs = parse_selectors(text, part);
        return jobs ? std::string() : jobs.error().text;
    });
}

void add_create(CLI::App& app, Command& command, Arguments& given, bool requeue) {
    CLI::App* verb = requeue ? app.add_subcommand("requeue", "Take a checkpoint, stop the job and put it back into the queue")
                             : app.add_subcommand("create", "Take a checkpoint of a running job now");
    const Part part = requeue ? Part::none : Part::step;
    if (requeue) add_jobs(*verb, given, "JOB", "", part)->required();
    else add_jobs(*verb, given, "JOB", "; JOB.STEP for the tasks of one step", part)->required();
    verb->add_option("--max-wait", given.max_wait, "Wait for the end no longer than this (90, 5m, 1h)")
        ->type_name("TIME")
        ->check(check_wait);
    verb->callback([&command, &given, requeue, part] {
        const std::string doing = requeue ? "requeueing" : "checkpointing";
        command.doing = std::format("{} job {}", doing, given.job);
        command.run = in_session([&given, requeue, part, doing](const Session& session) -> Result<Outcome> {
            CreateOptions options{.requeue = requeue};
            if (!given.max_wait.empty()) {
                SCKPT_ASSIGN(options.max_wait, parse_wait(given.max_wait));
            }
            SCKPT_ASSIGN(const Selection selection, select_jobs(session, given.job, part, true));
            options.several = selection.several;
            const JobVerb one = [&](const NamedJob& job) { return create(session, job, options); };
            return for_each_job(session, selection, doing, one, kCheckpointsAtOnce);
        });
    });
}

void add_list(CLI::App& app, Command& command, Arguments& given) {
    CLI::App* verb = app.add_subcommand("list", "List your jobs, or the checkpoints of one job");
    add_jobs(*verb, given, "JOB", "", Part::none);
    verb->callback([&command, &given] {
        command.doing = given.job.empty() ? "listing jobs" : "listing job " + given.job;
        command.run = in_session([&given](const Session& session) -> Result<Outcome> {
            if (given.job.empty()) return list(session, std::nullopt);
            SCKPT_ASSIGN(const Selection selection, select_jobs(session, given.job, Part::none, false));
            return selection.several ? list_jobs(session, selection) : list(session, selection.jobs.front());
        });
    });
}

void add_watch(CLI::App& app, Command& command, Arguments& given) {
    CLI::App* verb = app.add_subcommand("watch", "Follow what is under way, until it ends or Ctrl-C");
    add_jobs(*verb, given, "JOB", "", Part::none);
    verb->callback([&command, &given] {
        command.doing = given.job.empty() ? "watching jobs" : "watching job " + given.job;
        command.run = in_session([&given](const Session& session) -> Result<Outcome> {
            Selection selection;
            if (!given.job.empty()) {
                SCKPT_ASSIGN(selection, select_jobs(session, given.job, Part::none, false));
            }
            return watch(session, selection.jobs);
        });
    });
}

// show, pin and unpin: jobs, or one checkpoint of each.
void add_for_checkpoint(CLI::App& app, Command& command, Arguments& given, const std::string& name, const std::string& help,
                        const std::string& doing, Result<std::string> (*run)(const Session&, const NamedJob&)) {
    CLI::App* verb = app.add_subcommand(name, help);
    add_jobs(*verb, given, "JOB[.N]", "; JOB.N for one checkpoint", Part::checkpoint)->required();
    verb->callback([&command, &given, doing, run] {
        command.doing = std::format("{} {}", doing, given.job);
        command.run = in_session([&given, doing, run](const Session& session) -> Result<Outcome> {
            SCKPT_ASSIGN(const Selection selection, select_jobs(session, given.job, Part::checkpoint, false));
            return for_each_job(session, selection, doing, [&](const NamedJob& job) { return run(session, job); });
        });
    });
}

void add_find_step(CLI::App& app, Command& command, Arguments& given) {
    CLI::App* verb = app.add_subcommand("find-step", "Tell from which checkpoint `srun --ckpt-restart` would start a step");
    verb->add_option("JOB.STEP[.N]", given.job, "step of a job, and number of a checkpoint")->required()->type_name("")->check(check_step_checkpoint);
    verb->add_option("--tasks", given.tasks, "The number of tasks of the new step")->type_name("N")->check(CLI::PositiveNumber);
    verb->callback([&command, &given] {
        command.doing = "step " + given.job;
        command.run = in_session([&given](const Session& session) -> Result<Outcome> {
            const auto step = parse_step_checkpoint(given.job);
            return find_step(session, step.value_or(StepCheckpoint()), given.tasks);
        });
    });
}

void add_status(CLI::App& app, Command& command) {
    app.add_subcommand("status", "Show the daemons and what each node can do")->callback([&command] {
        command.doing = "asking for the status";
        command.run = in_session(status);
    });
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("Checkpoints of Slurm jobs: take them, list them, look at them.");
    Command command;
    Arguments given;
    begin_program(app, command, "sckpt");
    add_create(app, command, given, false);
    add_create(app, command, given, true);
    add_list(app, command, given);
    add_for_checkpoint(app, command, given, "show", "Show all about a job, or about one checkpoint of it", "showing", show);
    add_watch(app, command, given);
    add_for_checkpoint(app, command, given, "pin", "Keep a checkpoint (the newest complete one) until it is unpinned", "pinning",
                       pin);
    add_for_checkpoint(app, command, given, "unpin", "Let a pinned checkpoint go when its time has come", "unpinning", unpin);
    add_find_step(app, command, given);
    add_status(app, command);
    return run_program(app, command, argc, argv);
}
