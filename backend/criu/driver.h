// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-criu: one process per dump or restore, started by sckptd as root. It has one thread and may die without harm to the daemon, so it
// is the one that enters namespaces and cgroups, changes credentials and forks. Its answer is one JSON object on a descriptor.
#pragma once

#include <sys/types.h>
#include <string>

#include <nlohmann/json.hpp>

#include "backend/criu/child.h"
#include "backend/criu/credentials.h"
#include "backend/criu/record.h"
#include "common/result.h"

namespace sckpt::criu {

// Descriptors that sckptd passes. Streams that the task has closed are absent. A dump that is held frozen has a control socket where a restore
// has the status socket: the driver writes a line of JSON, {"files": …, "bytes": …}, and waits; kGo lets the tree go on, the end gives it up.
inline constexpr int kReportFd = 3, kStatusFd = 4, kControlFd = 4, kStreamFds = 5;
inline constexpr char kGo = 'g';

// After the deadline criu has this long to let go of a half-dumped tree by itself; only then it is killed. sckptd waits still longer.
inline constexpr std::chrono::seconds kLetGo{10}, kDriverGrace{20};

struct Tree {
    std::string criu;       // the program
    std::string cache;      // directory of what criu knows about the kernel
    std::string directory;  // of the image
    pid_t supervisor = 0;
    uid_t uid = 0;
    Deadline deadline;
    // of a dump
    pid_t root = 0;
    std::vector<pid_t> siblings, helpers;  // as DumpRequest has them
    bool hold = false;                     // stays frozen until sckptd says go
};

Result<nlohmann::json> dump(const Tree& tree);
Result<nlohmann::json> dump_unchecked(const Tree& tree);  // without the question whether the tree is all of the job
Result<nlohmann::json> restore(const Tree& tree);
Result<pid_t> restore_tree(const Tree& tree, const ImageRecord& record);  // → the tree's init; its namespace dies with it
Result<nlohmann::json> probe(const std::string& criu, const std::string& cache);

// A restored tree's init, in its new PID namespace: makes the namespace ready, runs criu, closes `answer` when the tree runs and then
// lives until the tree's root has ended. `user` is what the supervisor is.
Result<> run_init(const Tree& tree, const ImageRecord& record, const Credentials& user, UniqueFd& answer);

// The criu process: its arguments, and what is run in the child before it becomes criu.
struct CriuCall {
    std::vector<std::string> arguments;
    std::vector<std::string> environment;
    std::vector<int> inherited;  // descriptors for criu beside 0, 1 and 2
    std::function<Result<>()> enter;
};
Result<pid_t> start_criu(const Tree& tree, CriuCall call);
std::string helper_program(const char* name);  // beside the driver itself

// Why criu failed, from its log in the image directory.
Error explain_failure(const Tree& tree, const char* log, const std::string& how_it_ended);

}  // namespace sckpt::criu
