// SPDX-License-Identifier: GPL-3.0-or-later
//
// All that a process is started with, but for its descriptors: what the stub got in srun's place, for the srun that is started in its own.
// It travels in a memfd beside `run` (rpc/srun.h), since an environment may be larger than a message.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>
#include <string>
#include <string_view>
#include <vector>

#include "common/fd.h"
#include "common/result.h"
#include "daemon/sckpt_run_signals.h"

namespace sckpt {

inline constexpr std::size_t kMaxLaunch = 64u << 20;  // bytes; far more than execve(2) takes

struct SrunLaunch {
    std::string program;    // srun itself, absolute
    std::string directory;  // name of the working directory; "" where it has none
    std::vector<std::string> argv, environment;
    std::vector<int> descriptors;  // the numbers, in the stub, of those that come after kRunFds; above 2
    mode_t file_mask = 0;
    int nice = 0;
    SignalSet ignored = 0, blocked = 0;
    std::vector<rlimit> limits;  // by RLIMIT_ number
};

std::string to_bytes(const SrunLaunch& launch);
Result<SrunLaunch> parse_srun_launch(std::string_view bytes);  // Errc::invalid

Result<UniqueFd> memory_file(const char* name, std::string_view bytes);  // its offset is 0

}  // namespace sckpt
