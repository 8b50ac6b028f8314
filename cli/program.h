// SPDX-License-Identifier: GPL-3.0-or-later
//
// What sckpt and sckpt-clean have in common as programs: the options that every verb has, `help`, and how the end of a verb is
// told.
#pragma once

#include <functional>
#include <string>

#include "cli/session.h"

namespace CLI {
class App;
}

namespace sckpt::cli {

// How a verb ended well: what goes to standard output, and the exit code.
struct Outcome {
    Outcome(std::string shown, ExitCode how = ExitCode::ok) : text(std::move(shown)), code(how) {}  // most verbs have only a text
    std::string text;
    ExitCode code;
};
using Verb = std::function<Result<Outcome>(const Options&)>;
Verb in_session(std::function<Result<Outcome>(const Session&)> verb);  // one that asks sckptctld

// The verb that was chosen; its CLI11 callback fills in the last two.
struct Command {
    Options options;
    std::string doing;  // for error texts: "listing jobs"
    Verb run;
};

// Before the verbs are added, and after: parses, runs, and answers the exit code of the program.
void begin_program(CLI::App& app, Command& command, const std::string& name);
int run_program(CLI::App& app, Command& command, int argc, char** argv);

// CLI11's form of a check: the text of what is wrong, or nothing.
std::string check_job(const std::string& text);
std::string check_step_checkpoint(const std::string& text);

}  // namespace sckpt::cli
