// SPDX-License-Identifier: GPL-3.0-or-later
//
// The process at the other end of a session with the store (daemon/store_session.h): an sckpt-store, which is believed nothing.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/config.h"
#include "common/fd.h"
#include "common/process.h"
#include "common/result.h"

namespace sckpt {

class StoreProcess {
   public:
    virtual ~StoreProcess() = default;
    virtual void kill() = 0;
    virtual std::optional<std::string> wait(std::chrono::milliseconds deadline) = 0;  // how it has ended; none: it has not
};

// Starts one with its end of the socket; idle: in the idle classes of CPU and I/O scheduling. Tests bring a thread in place of a process.
using StartStoreProcess = std::function<Result<std::unique_ptr<StoreProcess>>(UniqueFd socket, bool idle)>;

// The program as the service user of the configuration, alone in a PID namespace of its own. It ends with the thread that started it.
StartStoreProcess store_program(const Config& config, std::string program);

// The service user of the configuration. For a caller that is not root (a test) it is the caller.
Result<UserIds> service_user(const Config& config);

}  // namespace sckpt
