// SPDX-License-Identifier: GPL-3.0-or-later
//
// What both daemons do before they serve: options, configuration, --check-config.
#pragma once

#include <csignal>

#include "common/config.h"
#include "common/fd.h"
#include "common/result.h"

namespace sckpt {

// What the program does instead when it is given this option.
struct OtherMode {
    const char *option, *help;
    Result<> (*serve)(const Config&);
};

// The body of main(). `serve` runs until the daemon is told to stop, or answers why it could not start.
// Exit codes: 0 after a proper end, 1 when it could not serve, 2 when the options or the configuration are wrong.
int daemon_main(int argc, char** argv, const char* name, const char* purpose, Result<> (*serve)(const Config&),
                const OtherMode* other = nullptr);

// The lock is held as long as the process lives. `taken`: what to say when another one holds it.
Result<UniqueFd> take_lock(const std::string& path, const std::string& taken);

// SIGTERM and SIGINT, blocked in this thread and all that it starts, to be waited for; SIGPIPE is ignored.
void block_end_signals(sigset_t& set);

}  // namespace sckpt
