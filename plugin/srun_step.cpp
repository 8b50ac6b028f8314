// SPDX-License-Identifier: GPL-3.0-or-later
#include "plugin/srun_step.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "plugin/submission.h"
#include "rpc/srun.h"

namespace sckpt::plugin {

namespace {

constexpr int kLongestHoldMs = 900'000;  // sckpt-run itself gives a hold up before that

int report_descriptor = -1;
int components = 0;  // that srun has understood the options of

// The environment travels further than the job: sbatch exports it to other jobs, and so may a user.
bool has_supervisor() {
    const char* path = std::getenv(srun::kSupervisorVariable);
    const char* job = std::getenv("SLURM_JOB_ID");
    struct stat st {};
    if (!path || !job || ::lstat(path, &st) != 0 || !S_ISSOCK(st.st_mode) || st.st_uid != ::getuid()) return false;
    const auto id = static_cast<std::uint32_t>(std::strtoul(job, nullptr, 10));
    return std::string_view(path).ends_with("/" + srun::supervisor_socket_name(id));
}

std::string read_link(const char* path) {
    char target[4096];
    const ssize_t size = ::readlink(path, target, sizeof target);
    return size > 0 ? std::string(target, static_cast<std::size_t>(size)) : std::string();
}

std::string read_command_line() {
    std::string bytes;
    const int fd = ::open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    char piece[4096];
    for (ssize_t got; fd >= 0 && (got = ::read(fd, piece, sizeof piece)) > 0;) bytes.append(piece, static_cast<std::size_t>(got));
    if (fd >= 0) ::close(fd);
    return bytes;
}

bool report(const std::string& words) {
    return report_descriptor >= 0 && ::send(report_descriptor, words.data(), words.size(), MSG_NOSIGNAL) > 0;
}

}  // namespace

void become_stub(const std::string& stub, std::string& problem) {
    if (!has_supervisor()) return;
    std::string program = read_link("/proc/self/exe"), command = read_command_line(), name = stub;
    if (!program.starts_with('/') || command.empty()) return;
    std::vector<char*> argv{name.data(), program.data()};
    for (std::size_t at = 0; at < command.size(); at = command.find('\0', at) + 1) argv.push_back(command.data() + at);
    argv.push_back(nullptr);
    ::execv(name.c_str(), argv.data());
    problem =
        "cannot run " + stub + ": " + std::strerror(errno) +
        ". srun runs without it, and the job is not checkpointed as long. Install sckpt on this node, or correct stub= in plugstack.conf";
}

void take_report_descriptor() {
    const char* number = std::getenv(srun::kReportVariable);
    if (!number) return;
    const int fd = std::atoi(number);
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) == 0) report_descriptor = fd;
    ::unsetenv(srun::kReportVariable);
}

// The words that srun has for its --input: "none" is nobody's, "all", "-" and a task's rank are standard input, the rest is a file's name.
void report_component() {
    ++components;
    const std::string input = option_text("input");
    const bool rank = std::ranges::all_of(input, [](unsigned char c) { return std::isdigit(c) != 0; });
    std::string word = input.substr(0, 3);
    std::ranges::transform(word, word.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (rank || word == "all" || word.starts_with('-')) report("input");
}

int component_count() { return components; }

void report_step(std::uint32_t job_id, std::uint32_t step_id, std::uint32_t tasks) {
    const char* all = components > 1 ? std::getenv("SLURM_NTASKS") : nullptr;  // by now of the step, with all of its components
    if (all) tasks = static_cast<std::uint32_t>(std::strtoul(all, nullptr, 10));
    if (!report("step " + std::to_string(job_id) + " " + std::to_string(step_id) + " " + std::to_string(tasks))) return;
    pollfd answer{report_descriptor, POLLIN, 0};
    while (::poll(&answer, 1, kLongestHoldMs) < 0 && errno == EINTR) {  // also ready when sckpt-run has ended
    }
}

}  // namespace sckpt::plugin
