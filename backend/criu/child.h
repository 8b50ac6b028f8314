// SPDX-License-Identifier: GPL-3.0-or-later
//
// Forked children of the driver and of the restored tree's init. Both have one thread, so a child may run any code.
#pragma once

#include <sys/types.h>
#include <chrono>
#include <cstddef>
#include <functional>
#include <initializer_list>

#include "common/fd.h"
#include "common/process.h"
#include "common/result.h"

namespace sckpt::criu {

using Deadline = std::chrono::steady_clock::time_point;

// Starts a child that runs `body` and then ends, or becomes another program in it. Returns the child's pid once the body has closed
// `answer`, executed a program or succeeded; the body's error otherwise. After an error or past the deadline no child is left.
using ChildBody = std::function<Result<>(UniqueFd& answer)>;
Result<pid_t> start_child(const ChildBody& body, Deadline deadline = Deadline::max());
// Runs `body` in a child and waits for it.
Result<> in_child(const std::function<Result<>()>& body);

// Waits for a child's end. Errc::timeout: it still runs.
Result<ExitStatus> wait_until(pid_t child, Deadline deadline);
void kill_and_reap(pid_t child);

// Waits until one of the descriptors has something to read, or has reached its end; its place in the list. Errc::timeout.
Result<std::size_t> wait_readable(std::initializer_list<int> fds, Deadline deadline);

Result<UniqueFd> open_pidfd(pid_t pid);

}  // namespace sckpt::criu
