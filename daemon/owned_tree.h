// SPDX-License-Identifier: GPL-3.0-or-later
//
// Whom a directory tree of an image belongs to. Only descriptors are used, no symbolic link is followed, and what is neither a directory
// nor a regular file is refused.
#pragma once

#include <sys/types.h>

#include "common/result.h"

namespace sckpt {

// The tree becomes the caller's, and readable (not writable) by the group `reader`.
Result<> let_read(int directory, gid_t reader);

// The tree becomes the caller's alone: directories 0700, files 0600.
Result<> take_back(int directory);

// The same for a tree that another user could write until now. Errc::denied if a process still has a file of it open for writing, whoever
// that may be: it could change the file after it was verified.
Result<> take_over(int directory);

}  // namespace sckpt
