// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt: the users' command. Reads the command line, runs one verb, prints its result or its error. See sckpt(1).
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <format>
#include <functional>
#include <string>

#include "cli/verbs.h"

namespace {

using namespace sckpt;
using namespace sckpt::cli;

// The verb that was chosen, with its arguments; filled by CLI11.
struct Command {
    Options options;
    std::string job;  // as it was given; checked by its option
    std::int64_t max_wait = 0;
    std::string help_verb;
    std::string usage;  // of the whole program; CLI11 no longer tells it once a verb was given
    std::string help;   // the verb was `help`: the text to print
    std::string doing;  // for error texts: "listing jobs"
    std::function<Result<std::string>(const Session&)> run;
};

// CLI11's form of a check: the text of what is wrong, or nothing.
std::string check_job(const std::string& text) {
    const auto job = parse_job(text);
    return job ? "" : job.error().text;
}
std::string check_job_or_checkpoint(const std::string& text) {
    const auto id = parse_job_or_checkpoint(text);
    return id ? "" : id.error().text;
}

void add_create(CLI::App& app, Command& command, bool requeue) {
    CLI::App* verb = requeue ? app.add_subcommand("requeue", "Take a checkpoint, stop the job and put it back into the queue")
                             : app.add_subcommand("create", "Take a checkpoint of a running job now");
    verb->add_option("JOB", command.job, "job id")->required()->type_name("")->check(check_job);
    CLI::Option* max_wait = verb->add_option("--max-wait", command.max_wait, "Wait for the end no longer than this");
    max_wait->type_name("SECONDS")->check(CLI::Range(1, 366 * 86400).description(""));
    verb->callback([&command, requeue, max_wait] {
        command.doing = std::format("{} job {}", requeue ? "requeueing" : "checkpointing", command.job);
        command.run = [&command, requeue, max_wait](const Session& session) -> Result<std::string> {
            CreateOptions options{.job = 0, .requeue = requeue, .max_wait = std::nullopt};
            SCKPT_ASSIGN(options.job, parse_job(command.job));
            if (max_wait->count() > 0) options.max_wait = std::chrono::seconds(command.max_wait);
            return create(session, options);
        };
    });
}

void add_list(CLI::App& app, Command& command) {
    CLI::App* verb = app.add_subcommand("list", "List your jobs, or the checkpoints of one job");
    verb->add_option("JOB", command.job, "job id")->type_name("")->check(check_job);
    verb->callback([&command] {
        command.doing = command.job.empty() ? "listing jobs" : std::format("listing the checkpoints of job {}", command.job);
        command.run = [&command](const Session& session) -> Result<std::string> {
            if (command.job.empty()) return list(session, std::nullopt);
            SCKPT_ASSIGN(const std::uint32_t job, parse_job(command.job));
            return list(session, job);
        };
    });
}

void add_show(CLI::App& app, Command& command) {
    CLI::App* verb = app.add_subcommand("show", "Show all about a job, or about one checkpoint of it");
    verb->add_option("JOB[.N]", command.job, "job id, or job id and number of a checkpoint")
        ->required()
        ->type_name("")
        ->check(check_job_or_checkpoint);
    verb->callback([&command] {
        command.doing = std::format("showing {}", command.job);
        command.run = [&command](const Session& session) -> Result<std::string> {
            SCKPT_ASSIGN(const JobId id, parse_job_or_checkpoint(command.job));
            return show(session, id);
        };
    });
}

void add_status(CLI::App& app, Command& command) {
    app.add_subcommand("status", "Show the daemons and what each node can do")->callback([&command] {
        command.doing = "asking for the status";
        command.run = status;
    });
}

const CLI::App* find_verb(const CLI::App& app, const std::string& name) {
    for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; }))
        if (verb->get_name() == name) return verb;
    return nullptr;
}

void add_help(CLI::App& app, Command& command) {
    CLI::App* verb = app.add_subcommand("help", "Show the usage of a verb");
    verb->add_option("VERB", command.help_verb)->type_name("")->check([&app](const std::string& name) {
        return find_verb(app, name) ? std::string() : std::format("'{}' is no verb of sckpt", name);
    });
    verb->callback(
        [&app, &command] { command.help = command.help_verb.empty() ? command.usage : find_verb(app, command.help_verb)->help("sckpt"); });
}

void define(CLI::App& app, Command& command) {
    app.name("sckpt");
    app.set_version_flag("--version", "sckpt " SCKPT_VERSION);
    app.add_option("--config", command.options.config_path, "Configuration file")->type_name("FILE")->capture_default_str();
    app.add_flag("--json", command.options.json, "Print one JSON document");
    app.fallthrough();
    app.require_subcommand(0, 1);  // main() says better than CLI11 that a verb is missing
    add_create(app, command, false);
    add_create(app, command, true);
    add_list(app, command);
    add_show(app, command);
    add_status(app, command);
    add_help(app, command);
    command.usage = app.help();
}

int report(const std::string& text, ExitCode code, std::string_view code_name, bool json) {
    if (json) std::fputs(json_text({{"error", {{"code", code_name}, {"message", text}}}}).c_str(), stdout);
    std::fprintf(stderr, "sckpt: %s\n", printable(text).c_str());
    return static_cast<int>(code);
}

int report(const Error& error, bool json) { return report(error.text, exit_code(error.code), errc_name(error.code), json); }

int usage_error(const std::string& text, bool json) {
    return report(text + ": `sckpt --help` shows the usage", ExitCode::usage, "usage", json);
}

// What was printed has arrived, or the command failed: a full disk is no success.
int print(const std::string& text, bool json) {
    const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
    if (written) return static_cast<int>(ExitCode::ok);
    return report(fail_errno("writing to standard output").error(), json);
}

int run(const Command& command) {
    const bool json = command.options.json;
    if (!command.help.empty()) return print(command.help, json);
    const auto session = Session::open(command.options);
    if (!session) return report(session.error().context(command.doing), json);
    const auto text = command.run(*session);
    return text ? print(*text, json) : report(text.error().context(command.doing), json);
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("Checkpoints of Slurm jobs: take them, list them, look at them.");
    Command command;
    define(app, command);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
        const bool json = std::any_of(argv, argv + argc, [](std::string_view argument) { return argument == "--json"; });
        return usage_error(error.what(), json);
    }
    if (app.get_subcommands().empty()) return usage_error("a verb is missing", command.options.json);
    return run(command);
}
