// SPDX-License-Identifier: GPL-3.0-or-later
//
// Starts the task's program exactly as slurmstepd would have without sckpt-run in front of it.
#pragma once

#include <string>

namespace sckpt {

// Where slurmstepd would look for `program`. Unlike execvp(3): "./x" becomes absolute, the first file of PATH that is no directory is
// taken whether executable or not, empty parts of PATH are skipped, and a name that is found nowhere stays as it is.
std::string resolve_program(const std::string& program, const char* path);

// Replaces this process by argv; argv[0] becomes the resolved name, as under Slurm. On failure it writes Slurm's message and ends
// with Slurm's exit code, which is errno.
[[noreturn]] void exec_program(char** argv);

}  // namespace sckpt
