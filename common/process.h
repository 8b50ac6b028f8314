// SPDX-License-Identifier: GPL-3.0-or-later
//
// Children of the daemons: started with an argument vector, an absolute program and a fixed environment; never through a shell.
// A ChildProcess that is destroyed while its child lives kills and reaps it.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <sys/types.h>
#include <utility>
#include <vector>

#include "common/fd.h"
#include "common/result.h"

namespace sckpt {

// How a child ended, as waitpid(2) tells it.
struct ExitStatus {
    int wait_status = 0;
    bool ok() const;
    std::string text() const;  // "exit code 1", "killed by SIGKILL (9)"
};

struct UserIds {
    uid_t uid = 0;
    gid_t gid = 0;
};

struct SpawnOptions {
    std::vector<std::string> argv;                  // argv[0] is an absolute path
    std::vector<std::string> environment;           // "NAME=value"; nothing is inherited
    std::vector<std::pair<int, int>> descriptors;   // (ours, the child's number); 0, 1, 2 not named here are /dev/null, all else is closed
    std::string working_directory = "/";
    std::optional<UserIds> user;     // becomes this user, never root: no other group, no capability, none to be had (no_new_privs, bounding set)
    bool own_pid_namespace = false;  // it is the first process of one: whatever it started ends with it, and it can signal nobody else
    // SIGKILL when the *thread* that called spawn() ends (PR_SET_PDEATHSIG), and so when this process does, however it ends. Only for a
    // caller that stays in that thread until the child has ended or was killed.
    bool dies_with_caller = false;
    // Idle CPU and I/O scheduling classes, a session of its own, and a twentieth of the weight of others in autogroup (sched(7)), where the system lets it.
    bool idle = false;
    int idle_group = -1;             // with idle: cgroup.procs of a cgroup that it enters, open for writing
    bool no_core = false;            // never leaves a core file: its memory has what belongs to users
};

class ChildProcess {
   public:
    ChildProcess(ChildProcess&& other) noexcept;
    ChildProcess& operator=(ChildProcess&&) = delete;
    ~ChildProcess();

    static Result<ChildProcess> spawn(const SpawnOptions& options);

    pid_t pid() const { return pid_; }
    int pidfd() const { return pidfd_.get(); }
    // Waits for the end. Past the deadline the child is left running and the answer is Errc::timeout.
    Result<ExitStatus> wait(std::chrono::milliseconds deadline);
    void kill(int signal);

   private:
    ChildProcess(pid_t pid, UniqueFd pidfd) : pid_(pid), pidfd_(std::move(pidfd)) {}
    pid_t pid_ = -1;
    UniqueFd pidfd_;
};

// Facts of a live process from /proc.
struct ProcessIdentity {
    pid_t pid = 0, parent = 0, session = 0;
    uid_t uid = 0;                 // real uid
    bool same_uids = false;        // real, effective, saved and file-system uid are one, and so are the gids
    bool has_capabilities = false; // any permitted capability
    std::uint64_t start_time = 0;  // clock ticks after boot: with pid it names a process once and for all (proc(5), field 22)
    std::string command;           // comm
};
Result<ProcessIdentity> process_identity(pid_t pid);
// The process and all its descendants, parents first (children of every thread).
Result<std::vector<pid_t>> process_tree(pid_t root);
// Every process of the cgroup that Slurm tracks `pid` in (v2, or v1's freezer), from /proc/PID/cgroup; its path never is built from a job id.
// A process in the root group is tracked by nobody: Errc::unsupported, for "its" processes would be all of the node.
Result<std::string> tracking_cgroup(pid_t pid);  // absolute path of its directory
Result<std::vector<pid_t>> cgroup_processes(const std::string& cgroup_directory);  // with all sub-groups
// Whether what is in this cgroup stands still, or is about to: Slurm suspends a job so.
Result<bool> cgroup_is_frozen(const std::string& directory);
bool is_suspended(pid_t pid);  // its tracking cgroup is; false where that cannot be told
// The work of tracking_cgroup, on the texts of /proc/PID/cgroup and /proc/self/mountinfo.
Result<std::string> find_tracking_cgroup(const std::string& cgroups, const std::string& mountinfo);

}  // namespace sckpt
