// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt: the users' command. Reads the command line, runs one verb, prints its result or its error. See sckpt(1).
#include <CLI/CLI.hpp>
#include <format>
#include <string>

#include "cli/program.h"
#include "cli/verbs.h"

namespace {

using namespace sckpt;
using namespace sckpt::cli;

// Arguments as they were given; checked by their options.
struct Arguments {
    std::string job, max_wait;
};

std::string check_wait(const std::string& text) {
    const auto wait = parse_wait(text);
    return wait ? "" : wait.error().text;
}

void add_create(CLI::App& app, Command& command, Arguments& given, bool requeue) {
    CLI::App* verb = requeue ? app.add_subcommand("requeue", "Take a checkpoint, stop the job and put it back into the queue")
                             : app.add_subcommand("create", "Take a checkpoint of a running job now");
    if (requeue) verb->add_option("JOB", given.job, "job id")->required()->type_name("")->check(check_job);
    else verb->add_option("JOB", given.job, "job id, or JOB.STEP for the tasks of one step")->required()->type_name("")->check(check_job_or_step);
    verb->add_option("--max-wait", given.max_wait, "Wait for the end no longer than this (90, 5m, 1h)")
        ->type_name("TIME")
        ->check(check_wait);
    verb->callback([&command, &given, requeue] {
        command.doing = std::format("{} job {}", requeue ? "requeueing" : "checkpointing", given.job);
        command.run = in_session([&given, requeue](const Session& session) -> Result<Outcome> {
            CreateOptions options{.job = {}, .requeue = requeue, .max_wait = std::nullopt};
            SCKPT_ASSIGN(options.job, parse_job_or_step(given.job));
            if (!given.max_wait.empty()) {
                SCKPT_ASSIGN(options.max_wait, parse_wait(given.max_wait));
            }
            return create(session, options);
        });
    });
}

// list and watch: with a job, or without one of all jobs.
void add_for_jobs(CLI::App& app, Command& command, Arguments& given, const std::string& name, const std::string& help,
                  const std::string& doing, Result<std::string> (*run)(const Session&, std::optional<std::uint32_t>)) {
    CLI::App* verb = app.add_subcommand(name, help);
    verb->add_option("JOB", given.job, "job id")->type_name("")->check(check_job);
    verb->callback([&command, &given, doing, run] {
        command.doing = given.job.empty() ? doing + " jobs" : std::format("{} job {}", doing, given.job);
        command.run = in_session([&given, run](const Session& session) -> Result<Outcome> {
            if (given.job.empty()) return run(session, std::nullopt);
            SCKPT_ASSIGN(const std::uint32_t job, parse_job(given.job));
            return run(session, job);
        });
    });
}

// show, pin and unpin: a job, or one checkpoint of it.
void add_for_checkpoint(CLI::App& app, Command& command, Arguments& given, const std::string& name, const std::string& help,
                        const std::string& doing, Result<std::string> (*run)(const Session&, const JobId&)) {
    CLI::App* verb = app.add_subcommand(name, help);
    verb->add_option("JOB[.N]", given.job, "job id, or job id and number of a checkpoint")
        ->required()
        ->type_name("")
        ->check(check_job_or_checkpoint);
    verb->callback([&command, &given, doing, run] {
        command.doing = std::format("{} {}", doing, given.job);
        command.run = in_session([&given, run](const Session& session) -> Result<Outcome> {
            SCKPT_ASSIGN(const JobId id, parse_job_or_checkpoint(given.job));
            return run(session, id);
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
    add_for_jobs(app, command, given, "list", "List your jobs, or the checkpoints of one job", "listing", list);
    add_for_checkpoint(app, command, given, "show", "Show all about a job, or about one checkpoint of it", "showing", show);
    add_for_jobs(app, command, given, "watch", "Follow what is under way, until it ends or Ctrl-C", "watching", watch);
    add_for_checkpoint(app, command, given, "pin", "Keep a checkpoint (the newest complete one) until it is unpinned", "pinning",
                       pin);
    add_for_checkpoint(app, command, given, "unpin", "Let a pinned checkpoint go when its time has come", "unpinning", unpin);
    add_status(app, command);
    return run_program(app, command, argc, argv);
}
