// SPDX-License-Identifier: GPL-3.0-or-later
//
// The rules are those of slurmstepd's exec_task(): people's scripts and tests depend on its exit codes (2 for a missing program,
// 13 for one that may not be executed, 8 for a script without "#!").
#include "daemon/sckpt_run_exec.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sckpt {

namespace {

bool is_file(const std::string& path) {
    struct stat st{};
    return ::stat(path.c_str(), &st) == 0 && !S_ISDIR(st.st_mode);
}

std::string from_environment(const char* name) {
    const char* value = std::getenv(name);
    return value ? value : "";
}

// `srun --bcast=DIRECTORY/` has put the program there under this name.
std::string broadcast_name() {
    return "slurm_bcast_" + from_environment("SLURM_JOB_ID") + "." + from_environment("SLURM_STEP_ID") + "_" +
           from_environment("SLURMD_NODENAME");
}

// ENOENT although the script is there: its interpreter is missing. Empty when that is not the case.
std::string missing_interpreter(const char* script) {
    char head[256] = {};
    const int fd = ::open(script, O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd < 0 ? 0 : ::read(fd, head, sizeof head - 1);
    if (got < 3 || head[0] != '#' || head[1] != '!') return {};
    const std::string_view line(head + 2);
    return std::string(line.substr(0, line.find('\n')));
}

}  // namespace

std::string resolve_program(const std::string& program, const char* path) {
    if (program.starts_with('/')) return program;
    if (program.starts_with('.')) {
        char* directory = ::getcwd(nullptr, 0);
        std::string found = std::string(directory ? directory : "") + "/" + program;
        std::free(directory);
        return found;
    }
    std::string_view rest = path ? path : "";
    while (!rest.empty()) {
        const std::string_view directory = rest.substr(0, rest.find(':'));
        rest.remove_prefix(std::min(rest.size(), directory.size() + 1));
        if (directory.empty()) continue;
        std::string candidate = std::string(directory) + "/" + program;
        if (is_file(candidate)) return candidate;
    }
    return program;
}

void exec_program(char** argv) {
    std::string program = resolve_program(argv[0], std::getenv("PATH"));
    if (program.ends_with('/')) program += broadcast_name();
    argv[0] = program.data();
    ::execve(argv[0], argv, environ);
    const int error = errno;
    const std::string interpreter = error == ENOENT ? missing_interpreter(argv[0]) : "";
    if (!interpreter.empty())
        ::dprintf(STDERR_FILENO, "slurmstepd: error: execve(): bad interpreter(%s): %s\n", interpreter.c_str(), std::strerror(error));
    else ::dprintf(STDERR_FILENO, "slurmstepd: error: execve(): %s: %s\n", argv[0], std::strerror(error));
    ::_exit(error);
}

}  // namespace sckpt
