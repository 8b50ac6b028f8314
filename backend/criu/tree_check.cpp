// SPDX-License-Identifier: GPL-3.0-or-later
#include "backend/criu/tree_check.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <format>
#include <sstream>

#include <unistd.h>

#include "backend/criu/namespaces.h"
#include "common/fd.h"
#include "common/process.h"

namespace sckpt::criu {

namespace {

constexpr const char* kSrunHint =
    "the batch script is running srun ({}): sckpt checkpoints the batch script's own processes only, "
    "so it waits until the step has ended";

bool is_srun(const ProcessIdentity& process) {
    std::error_code gone;
    const auto program = std::filesystem::read_symlink(std::format("/proc/{}/exe", process.pid), gone);
    return process.command == "srun" || (!gone && program.filename() == "srun");
}

std::string status_field(pid_t pid, std::string_view key) {
    const auto status = read_file(std::format("/proc/{}/status", pid));
    if (!status) return "";
    std::istringstream lines(*status);
    for (std::string line; std::getline(lines, line);)
        if (line.starts_with(key)) return line.substr(key.size());
    return "";
}

// A debugger holds the one place that criu needs.
Result<> check_tracer(pid_t pid, const std::string& who) {
    const long tracer = std::strtol(status_field(pid, "TracerPid:").c_str(), nullptr, 10);
    if (tracer == 0 || tracer == ::getppid()) return {};  // the hook is criu's child, and criu traces the tree by then
    return fail(Errc::unsupported,
                std::format("{} is being traced by {} (a debugger or strace), and cannot be checkpointed until that ends", who,
                            describe(static_cast<pid_t>(tracer))));
}

Result<> check_process(const ProcessIdentity& process, uid_t uid) {
    const std::string who = std::format("process {} ({})", process.pid, process.command);
    if (process.uid != uid) return fail(Errc::denied, std::format("{} runs as user {}, not as the job's user {}", who, process.uid, uid));
    if (!process.same_uids) return fail(Errc::denied, who + " is a set-user-id or set-group-id program, which cannot be checkpointed");
    if (!same_namespace(process.pid, ::getpid(), "user"))
        return fail(Errc::unsupported, who +
                                           " lives in a user namespace of its own (a container or sandbox inside the job), "
                                           "which cannot be checkpointed");
    if (process.has_capabilities) return fail(Errc::denied, who + " has privileges (capabilities), and cannot be checkpointed");
    if (is_srun(process)) return fail(Errc::unsupported, std::format(kSrunHint, who));
    return check_tracer(process.pid, who);
}

// PID 1 of the namespace that a restored tree lives in: its last number, in the innermost namespace, is 1.
bool is_namespace_init(pid_t pid, pid_t root) {
    if (!same_namespace(pid, root, "pid") || same_namespace(pid, ::getpid(), "pid")) return false;
    std::istringstream numbers(status_field(pid, "NSpid:"));
    pid_t last = 0;
    for (pid_t number = 0; numbers >> number;) last = number;
    return last == 1;
}

// What may be in the job's cgroup and not in the tree.
bool is_explained(const ProcessIdentity& process, pid_t root, pid_t supervisor) {
    if (process.pid == supervisor || is_namespace_init(process.pid, root)) return true;
    if (process.parent == supervisor && ::getpgid(process.pid) == ::getpgid(supervisor)) return true;  // the supervisor's own helper
    if (process.uid == 0 && process.command == "slurmstepd") return true;
    return status_field(process.pid, "State:").contains('Z');  // dead already, nothing to lose
}

}  // namespace

std::string describe(pid_t pid) {
    const auto process = process_identity(pid);
    return std::format("process {} ({})", pid, process ? process->command : "ended");
}

Result<> check_processes(const std::vector<pid_t>& tree, uid_t uid) {
    for (const pid_t pid : tree) {
        const auto process = process_identity(pid);
        if (!process && process.error().code == Errc::not_found && pid != tree.front()) continue;
        if (!process) return std::unexpected(process.error());
        const bool dead = status_field(pid, "State:").contains('Z');
        if (dead && pid == tree.front())
            return fail(Errc::unsupported, describe(pid) + " has ended, or its main thread has, and cannot be checkpointed");
        if (!dead) SCKPT_TRY(check_process(*process, uid));
    }
    return {};
}

Result<> check_cgroup(const std::vector<pid_t>& tree, pid_t supervisor) {
    SCKPT_ASSIGN(const std::string cgroup, tracking_cgroup(supervisor));
    SCKPT_ASSIGN(const std::vector<pid_t> processes, cgroup_processes(cgroup));
    if (!std::ranges::contains(processes, tree.front()))
        return fail(Errc::unsupported, describe(tree.front()) + " is not in the job's cgroup " + cgroup);
    for (const pid_t pid : processes) {
        if (std::ranges::contains(tree, pid)) continue;
        const auto process = process_identity(pid);
        if (!process && process.error().code == Errc::not_found) continue;
        if (!process) return std::unexpected(process.error());
        if (is_explained(*process, tree.front(), supervisor)) continue;
        // it may have been started after the tree was listed
        SCKPT_ASSIGN(const auto now, process_tree(tree.front()));
        if (std::ranges::contains(now, pid)) continue;
        return fail(Errc::unsupported,
                    std::format("process {} ({}) of the job is a daemon: it left the batch script's process tree, and would be lost; "
                                "start it in the foreground",
                                pid, process->command));
    }
    return {};
}

}  // namespace sckpt::criu
