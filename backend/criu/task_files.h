// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a tree has open, read from /proc: the task's standard streams that are external to an image, and while the tree is frozen
// the files whose state belongs to the image.
#pragma once

#include <sys/types.h>
#include <array>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/criu/record.h"
#include "common/result.h"

namespace sckpt::criu {

// Standard input, output and error of the supervisor, which are those that Slurm gave the task. Not those of the tree's root: a script
// that says `exec >file` has its own file there, which belongs to the image.
Result<std::array<TaskStream, 3>> task_streams(pid_t supervisor, pid_t root);

// Resources to name to CRIU as external, each once: "file[MOUNT:INODE]" of regular files.
std::vector<std::string> external_resources(const std::array<TaskStream, 3>& streams);

// Files, script, directories and sizes of streams; the tree must be frozen. `streams` come from task_streams.
struct TreeFiles {
    std::vector<UserFile> files;
    std::array<TaskStream, 3> streams;
    std::string script;         // path of the spooled script
    std::string script_source;  // a name under /proc to read its bytes from
    std::vector<std::string> directories;
};
Result<TreeFiles> tree_files(const std::vector<pid_t>& tree, const std::array<TaskStream, 3>& streams, uid_t uid);

// What processes outside of the tree that work for it, and all below them, have open for writing, but for the task's streams. Their user is the
// tree's. One that ended meanwhile is no error.
Result<std::vector<UserFile>> helper_files(const std::vector<pid_t>& helpers, const std::array<TaskStream, 3>& streams, uid_t uid);

}  // namespace sckpt::criu
