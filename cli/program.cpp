// SPDX-License-Identifier: GPL-3.0-or-later
#include "cli/program.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <format>

#include "cli/job_id.h"
#include "rpc/task_name.h"

namespace sckpt::cli {
namespace {

int report(const std::string& program, const std::string& text, ExitCode code, std::string_view code_name, bool json) {
    if (json) std::fputs(json_text({{"error", {{"code", code_name}, {"message", text}}}}).c_str(), stdout);
    std::fprintf(stderr, "%s: %s\n", program.c_str(), printable(text).c_str());
    return static_cast<int>(code);
}

int report(const std::string& program, const Error& error, bool json) {
    return report(program, error.text, exit_code(error.code), errc_name(error.code), json);
}

int usage_error(const std::string& program, const std::string& text, bool json) {
    return report(program, std::format("{}: `{} --help` shows the usage", text, program), ExitCode::usage, "usage", json);
}

// What was printed has arrived, or the command failed: a full disk is no success.
int print(const std::string& program, const Outcome& outcome, bool json) {
    const std::string& text = outcome.text;
    const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
    if (written) return static_cast<int>(outcome.code);
    return report(program, fail_errno("writing to standard output").error(), json);
}

const CLI::App* find_verb(const CLI::App& app, const std::string& name) {
    for (const CLI::App* verb : app.get_subcommands([](const CLI::App*) { return true; }))
        if (verb->get_name() == name) return verb;
    return nullptr;
}

// `usage` is the whole program's, asked for now: CLI11 no longer tells it once a verb was given.
void add_help(CLI::App& app, Command& command, std::string& name, std::string& usage) {
    CLI::App* verb = app.add_subcommand("help", "Show the usage of a verb");
    verb->add_option("VERB", name)->type_name("")->check([&app](const std::string& text) {
        return find_verb(app, text) ? std::string() : std::format("'{}' is no verb of {}", text, app.get_name());
    });
    verb->callback([&app, &command, &name, &usage] {
        command.run = [&app, &name, &usage](const Options&) -> Result<Outcome> {
            return name.empty() ? usage : find_verb(app, name)->help(app.get_name());
        };
    });
    usage = app.help();
}

}  // namespace

Verb in_session(std::function<Result<Outcome>(const Session&)> verb) {
    return [verb = std::move(verb)](const Options& options) -> Result<Outcome> {
        SCKPT_ASSIGN(const Session session, Session::open(options));
        return verb(session);
    };
}

std::string check_job(const std::string& text) {
    const auto job = parse_job(text);
    return job ? "" : job.error().text;
}

std::string check_step_checkpoint(const std::string& text) {
    if (parse_step_checkpoint(text)) return "";
    return std::format("'{}' is no step: give JOB.STEP, such as 12.0, or JOB.STEP.N for checkpoint N, such as 12.0.3", text);
}

void begin_program(CLI::App& app, Command& command, const std::string& name) {
    app.name(name);
    app.set_version_flag("--version", name + " " SCKPT_VERSION);
    app.add_option("--config", command.options.config_path, "Configuration file")->type_name("FILE")->capture_default_str();
    app.add_flag("--json", command.options.json, "Print JSON");
    app.fallthrough();
    app.require_subcommand(0, 1);  // run_program() says better than CLI11 that a verb is missing
}

int run_program(CLI::App& app, Command& command, int argc, char** argv) {
    const std::string name = app.get_name();
    std::string help_verb, usage;
    add_help(app, command, help_verb, usage);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
        const bool json = std::any_of(argv, argv + argc, [](std::string_view argument) { return argument == "--json"; });
        return usage_error(name, error.what(), json);
    }
    const bool json = command.options.json;
    if (!command.run) return usage_error(name, "a verb is missing", json);
    const auto outcome = command.run(command.options);
    return outcome ? print(name, *outcome, json) : report(name, outcome.error().context(command.doing), json);
}

}  // namespace sckpt::cli
