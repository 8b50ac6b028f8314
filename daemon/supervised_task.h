// SPDX-License-Identifier: GPL-3.0-or-later
//
// One supervised task of this node: a connection of sckpt-run, and what it has said.
#pragma once

#include <sys/types.h>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "common/fd.h"
#include "daemon/connection_limits.h"
#include "daemon/task_ends.h"
#include "rpc/local.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

struct SupervisedTask {
    local::Message hello;
    UniqueFd socket;
    UniqueFd stdio[3], status;  // kept until the payload runs
    uid_t uid = 0;              // the kernel's word
    pid_t supervisor = 0;
    pid_t root = 0;      // the payload's; 0: not running yet
    std::mutex dumping;  // two dumps of one tree would disturb each other

    // Under the agent's mutex.
    std::optional<std::string> state;  // answers `hold`
    std::optional<int> ended;          // wait status
    bool gone = false;                 // the connection has ended

    bool has_origin() const { return hello.origin_job != 0; }  // srun --ckpt-restart: it goes on from a checkpoint of that job's
    bool is_script() const { return hello.step_id == local::kBatchStep; }
    std::string name() const;   // of its images (rpc/task_name.h)
    std::string shown() const;  // "job 12" for its batch script, "task 0.3 of job 12"
    rpc::Task describe() const;
    TaskEnd as_ended(int wait_status) const;
};

rpc::Task describe(const TaskEnd& rank);

// A connection that was let in: who it is, by the kernel's word.
struct Supervisor {
    UniqueFd connection;
    uid_t uid;
    pid_t pid;
    ConnectionLimits::Place place;
};

}  // namespace sckpt
