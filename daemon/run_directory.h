// SPDX-License-Identifier: GPL-3.0-or-later
//
// Where the sckpt-runs of batch scripts make the sockets that the stubs of their sruns come to: BASE/run (root's) and below it a directory for
// each user, which is his alone.
#pragma once

#include <sys/types.h>
#include <string>

#include "common/result.h"

namespace sckpt {

// BASE/run is there afterwards, root's and 0755, and BASE/run/UID, that user's and 0700. BASE is root's alone; no symbolic link below it is followed.
Result<> make_run_directory(const std::string& base, uid_t uid);

}  // namespace sckpt
