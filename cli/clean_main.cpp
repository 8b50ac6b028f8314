// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-clean: the administrator's command for the store. Reads the command line and runs one verb. See sckpt-clean(8).
#include <CLI/CLI.hpp>
#include <string>

#include "cli/clean.h"
#include "cli/job_id.h"

namespace {

using namespace sckpt;
using namespace sckpt::cli;

// Arguments of all verbs, filled by CLI11.
struct Arguments {
    rpc::RetentionRules rules;
    std::string job;
    bool dry_run = false, remove = false, quick = false, repair = false, rotate = false;
};

void add_rules(CLI::App* verb, Arguments& given) {
    for (const RuleOption& option : rule_options())
        verb->add_option_function<std::string>(
                option.option,
                [&option, &given](const std::string& text) {
                    if (const auto set = option.set(given.rules, text); !set)
                        throw CLI::ValidationError(option.option, set.error().text);
                },
                option.help)
            ->type_name(option.type)
            ->group("In place of the configuration's limits");
}

void add_report(CLI::App& app, Command& command, Arguments& given) {
    CLI::App* verb = app.add_subcommand("report", "Show who uses the store, and what a run would remove");
    add_rules(verb, given);
    verb->callback([&command, &given] {
        command.doing = "making the report";
        command.run = in_session([&given](const Session& session) { return clean_report(session, given.rules); });
    });
}

void add_run(CLI::App& app, Command& command, Arguments& given) {
    CLI::App* verb = app.add_subcommand("run", "Remove what the limits of retention let go");
    verb->add_flag("--dry-run", given.dry_run, "Show what would be removed, and remove nothing");
    add_rules(verb, given);
    verb->callback([&command, &given] {
        command.doing = "cleaning the store";
        command.run = in_session([&given](const Session& session) { return clean_run(session, given.rules, given.dry_run); });
    });
}

void add_orphans(CLI::App& app, Command& command, Arguments& given) {
    CLI::App* verb = app.add_subcommand("orphans", "Show what is in the store, on nodes or in the catalogue without a partner");
    verb->add_flag("--remove", given.remove, "Remove what may be removed");
    verb->callback([&command, &given] {
        command.doing = "looking for orphans";
        command.run = in_session([&given](const Session& session) { return clean_orphans(session, given.remove); });
    });
}

void add_check(CLI::App& app, Command& command, Arguments& given) {
    CLI::App* verb = app.add_subcommand("check", "Verify all complete checkpoints, or those of one job");
    verb->add_option("JOB", given.job, "job id")->type_name("")->check(check_job);
    verb->add_flag("--quick", given.quick, "Seals and sizes only, not every chunk");
    verb->add_flag("--repair", given.repair, "Put aside what is bad, and mark its checkpoints");
    verb->callback([&command, &given] {
        command.doing = given.job.empty() ? "checking the store" : "checking job " + given.job;
        command.run = in_session([&given](const Session& session) -> Result<Outcome> {
            CheckOptions options{.job = 0, .repair = given.repair, .quick = given.quick};
            if (!given.job.empty()) {
                SCKPT_ASSIGN(options.job, parse_job(given.job));
            }
            return clean_check(session, options);
        });
    });
}

void add_rebuild(CLI::App& app, Command& command) {
    app.add_subcommand("rebuild-catalogue", "Take into the catalogue what the store has and it does not know")
        ->callback([&command] {
            command.doing = "rebuilding the catalogue";
            command.run = in_session(clean_rebuild);
        });
}

void add_make_key(CLI::App& app, Command& command, Arguments& given) {
    CLI::App* verb = app.add_subcommand("make-key", "Make the key that seals images, in store.key of this machine");
    verb->add_flag("--rotate", given.rotate, "Put a new key first in a file that is there");
    verb->callback([&command, &given] {
        command.doing = "making the key";
        command.run = [&given](const Options& options) { return clean_make_key(options, given.rotate); };
    });
}

void add_make_store(CLI::App& app, Command& command) {
    app.add_subcommand("make-store", "Make store.directory, as this node sees it, the store of this cluster")->callback([&command] {
        command.doing = "making the store";
        command.run = clean_make_store;
    });
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("The store of checkpoints: who uses it, what goes, what is wrong with it.");
    Command command;
    Arguments given;
    begin_program(app, command, "sckpt-clean");
    add_report(app, command, given);
    add_run(app, command, given);
    add_orphans(app, command, given);
    add_check(app, command, given);
    add_rebuild(app, command);
    add_make_key(app, command, given);
    add_make_store(app, command);
    return run_program(app, command, argc, argv);
}
