// SPDX-License-Identifier: GPL-3.0-or-later
//
// Open descriptors that make a dump pointless: criu would refuse them late and dimly (io_uring), or dump them and fail at the restore,
// when the job is gone already (connections to programs outside of the tree by Unix sockets), or restore unsafely (Unix sockets bound
// to a path).
#pragma once

#include <sys/types.h>
#include <vector>

#include "common/result.h"

namespace sckpt::criu {

Result<> check_descriptors(const std::vector<pid_t>& tree);

}  // namespace sckpt::criu
