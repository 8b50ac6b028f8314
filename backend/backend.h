// SPDX-License-Identifier: GPL-3.0-or-later
//
// The contract between sckptd and what can dump and restore a process tree (CRIU first; DMTCP, application-level and others later).
//
// Rules for every backend
// - dump() leaves the tree running, whether it succeeds or fails. It never signals or stops it in a way that the tree can see.
// - An image directory is complete when dump() returned success, and worthless otherwise. It holds all that a restore on another
//   node needs but the user's files; the backend never writes outside of it, but for the roll-back of user files before a restore.
// - Calls block; each has a deadline and returns Errc::timeout after it. Calls for different trees may run at once, from any thread.
// - Error.text is one sentence for the job's user that names the cause (which file, which socket, which process); details are in `log`.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

#include "common/config.h"
#include "common/fd.h"
#include "common/page_runs.h"
#include "common/result.h"
#include "common/user_file.h"

namespace sckpt {

// What this node can do, found by trying, not by version numbers alone.
struct BackendProbe {
    bool usable = false;
    std::string name;       // "criu"
    std::string version;    // "4.2.1"
    std::string reason;     // why it is not usable, with what to do; empty when it is
    std::vector<std::string> notes;  // "dumps run as the job's user: no CAP_SYS_RESOURCE", "no dirty tracking", …
};

// How long a tree that is held frozen may wait past the deadline of its dump.
inline constexpr std::chrono::seconds kFrozenGrace{60};

struct DumpRequest {
    pid_t root = 0;               // in sckptd's PID namespace; leader of its session
    pid_t supervisor = 0;         // sckpt-run, in the same cgroup and not part of the tree
    uid_t uid = 0;                // the job's user: every process of the tree must be of this user
    std::string directory;        // exists, empty, root only; the image goes here
    std::chrono::milliseconds deadline{};
    // Of other tasks that Slurm tracks by the same cgroup: their supervisors, and the roots of their trees. These, all below them, and the PID
    // namespace that a restored root lives in, are no strays of this tree.
    std::vector<pid_t> siblings;
    // Children of the supervisor that work for the tree outside of it (srun): the files that they have open for writing are rolled back with the tree's.
    std::vector<pid_t> helpers;
    // Called in dump()'s thread once the image is written and the tree is still frozen; the tree stays so until it returns. An error gives the
    // dump up. If this process dies meanwhile, or this does not return for kFrozenGrace after the deadline (which is for what comes before), the dump
    // has failed and the tree goes on; `holds` tells whether it is still held. Not set: the tree goes on at once.
    std::function<Result<>(const std::vector<UserFile>& files, std::uint64_t bytes, const std::function<bool()>& holds)> frozen;
};
struct DumpReport {
    std::vector<UserFile> files;
    std::uint64_t bytes = 0;              // size of the image
    std::chrono::milliseconds frozen{};   // how long the tree did not run
};

struct RestoreRequest {
    std::string directory;        // a verified image
    pid_t supervisor = 0;         // sckpt-run of the new task: its cgroups, mount namespace and limits become the tree's
    uid_t uid = 0;                // must be the image's
    int stdio[3] = {-1, -1, -1};  // the new task's standard input, output, error
    int status = -1;              // the status socket's end for the tree's init process (rpc/local.h)
    std::chrono::milliseconds deadline{};
};

class Backend {
   public:
    virtual ~Backend() = default;
    virtual BackendProbe probe() = 0;
    virtual Result<DumpReport> dump(const DumpRequest& request) = 0;
    // Returns when the tree runs again: its init process has sent Status::restored. Errc tells the policy what to do:
    // corrupt = this backend cannot read it, invalid = the user's files do not fit it any more, unsupported or unavailable = this node,
    // timeout, io = unclear. The bytes were verified before, so nothing of this is held against the stored image.
    virtual Result<> restore(const RestoreRequest& request) = 0;
    // Frees what the backend keeps outside the image directory (nothing, for CRIU), then removes the directory.
    virtual Result<> destroy(const std::string& directory) = 0;
};

// Where the files of an image of this backend hold memory pages, for the image store. Reads the directory and needs no privilege. A backend
// that cannot tell answers none; Errc::invalid: the files are not in the form that is known, and the store does without.
Result<PageRuns> page_runs(const std::string& backend, int image_directory);

std::unique_ptr<Backend> make_criu_backend(const Config::Node& config);

}  // namespace sckpt
