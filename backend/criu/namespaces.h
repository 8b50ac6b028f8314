// SPDX-License-Identifier: GPL-3.0-or-later
//
// PID and mount namespaces of other processes. A job may have a /tmp of its own; a restored one always has both.
#pragma once

#include <sys/types.h>
#include <string>

#include "common/fd.h"
#include "common/result.h"

namespace sckpt::criu {

bool same_namespace(pid_t a, pid_t b, const char* kind);          // "pid", "mnt"
Result<UniqueFd> foreign_namespace(pid_t pid, const char* kind);  // none when it is the caller's own
// No namespace: stay. Errc::unsupported when `directory` is not the same directory inside.
Result<> enter_mount_namespace(const UniqueFd& target, const std::string& directory);
Result<pid_t> inner_pid(pid_t pid);  // the number of a process in its own PID namespace

}  // namespace sckpt::criu
