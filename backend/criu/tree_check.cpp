// SPDX-License-Identifier: GPL-3.0-or-later
#include "backend/criu/tree_check.h"

#include <algorithm>
#include <array>
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
    "{} is an srun that sckpt does not run itself, as it does for a batch script with --ckpt and SCKPT_SUPERVISOR in its environment: "
    "its step would be lost, so the job is checkpointed only once it has ended";
constexpr const char* kLibraryHint =
    "{} uses Slurm's library ({}) and may have started steps by it, which would be lost: programs that start steps have to run srun";

// Slurm's own commands use that library too, and start no step.
constexpr std::array<std::string_view, 13> kHarmless = {"sbatch", "scancel", "scontrol", "squeue", "sinfo",   "sacct", "sacctmgr",
                                                        "sstat",  "sprio",   "sshare",   "sdiag",  "sreport", "sbcast"};

std::string program_name(const ProcessIdentity& process) {
    std::error_code gone;
    return std::filesystem::read_symlink(std::format("/proc/{}/exe", process.pid), gone).filename();
}

// The library that starts steps, if the process has it: libslurm.so.42 or libslurmfull.so, and not libslurm_pmi.so, by which tasks find
// each other.
std::string slurm_library(pid_t pid) {
    const auto maps = read_file(std::format("/proc/{}/maps", pid), 64u << 20);
    for (const char* library : {"/libslurm.so", "/libslurmfull"}) {
        const std::size_t at = maps ? maps->find(library) : std::string::npos;
        if (at != std::string::npos) return maps->substr(at + 1, maps->find('\n', at) - at - 1);
    }
    return "";
}

Result<> check_steps(const ProcessIdentity& process, const std::string& who) {
    const std::string program = program_name(process);
    if (process.command == "srun" || program == "srun") return fail(Errc::busy, std::format(kSrunHint, who));
    if (std::ranges::contains(kHarmless, program)) return {};
    const std::string library = slurm_library(process.pid);
    if (!library.empty()) return fail(Errc::unsupported, std::format(kLibraryHint, who, library));
    return {};
}

std::string status_field(pid_t pid, std::string_view key) {
    const auto status = read_file(std::format("/proc/{}/status", pid));
    if (!status) return "";
    std::istringstream lines(*status);
    for (std::string line; std::getline(lines, line);)
        if (line.starts_with(key)) return line.substr(key.size());
    return "";
}

bool is_dead(pid_t pid) {
    const std::string state = status_field(pid, "State:");
    return state.empty() || state.contains('Z') || state.contains('X');
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
    SCKPT_TRY(check_steps(process, who));
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

// Below one of these, or one of them itself. sckpt-run is no subreaper: what is below it was started by it or by its tree.
bool descends(pid_t pid, const std::vector<pid_t>& from) {
    for (int depth = 0; pid > 1 && depth < 4096; ++depth) {
        if (std::ranges::contains(from, pid)) return true;
        const auto process = process_identity(pid);
        if (!process) return false;
        pid = process->parent;
    }
    return false;
}

// What may be in the job's cgroup and not in the tree. A restored tree does not hang below its supervisor, but below the init of its namespace.
bool is_explained(const ProcessIdentity& process, pid_t root, pid_t supervisor, const std::vector<pid_t>& siblings) {
    if (is_namespace_init(process.pid, root) || descends(process.pid, {supervisor}) || descends(process.pid, siblings)) return true;
    const auto shares_namespace = [&](pid_t sibling) { return same_namespace(process.pid, sibling, "pid"); };
    if (!same_namespace(process.pid, ::getpid(), "pid") && std::ranges::any_of(siblings, shares_namespace)) return true;
    if (process.uid == 0 && process.command == "slurmstepd") return true;
    return is_dead(process.pid);  // nothing to lose
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
        if (is_dead(pid) && pid == tree.front())
            return fail(Errc::unsupported, describe(pid) + " has ended, or its main thread has, and cannot be checkpointed");
        if (is_dead(pid)) continue;
        const auto checked = check_process(*process, uid);
        if (!checked && (pid == tree.front() || !is_dead(pid))) return checked;  // of one that has just ended /proc tells strange things
    }
    return {};
}

Result<> check_cgroup(const std::vector<pid_t>& tree, pid_t supervisor, const std::vector<pid_t>& siblings) {
    SCKPT_ASSIGN(const std::string cgroup, tracking_cgroup(supervisor));
    SCKPT_ASSIGN(const std::vector<pid_t> processes, cgroup_processes(cgroup));
    if (!std::ranges::contains(processes, tree.front()))
        return fail(Errc::unsupported, describe(tree.front()) + " is not in the job's cgroup " + cgroup);
    for (const pid_t pid : processes) {
        if (std::ranges::contains(tree, pid)) continue;
        const auto process = process_identity(pid);
        if (!process && process.error().code == Errc::not_found) continue;
        if (!process) return std::unexpected(process.error());
        if (is_explained(*process, tree.front(), supervisor, siblings)) continue;
        // it may have been started after the tree was listed
        SCKPT_ASSIGN(const auto now, process_tree(tree.front()));
        if (std::ranges::contains(now, pid)) continue;
        return fail(Errc::unsupported,
                    std::format("process {} ({}) of the job is a daemon: it left the process tree of its task, and would be lost; "
                                "start it in the foreground",
                                pid, process->command));
    }
    return {};
}

}  // namespace sckpt::criu
