// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a checkpoint records of the user's files: a backend finds it while the tree is frozen, the manifest and the catalogue keep it, a
// restore rolls back by it.
#pragma once

#include <cstdint>
#include <string>

namespace sckpt {

// A regular file that the tree had open for writing (or as its standard output) when it was frozen.
struct UserFile {
    std::string path;
    std::uint64_t inode = 0;
    std::uint64_t size = 0;  // bytes, while frozen
    bool append = false;     // opened O_APPEND
    bool stdio = false;      // standard output or error that Slurm opened: comes anew with the restarted task
};

}  // namespace sckpt
