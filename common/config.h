// SPDX-License-Identifier: GPL-3.0-or-later
//
// /etc/sckpt/sckpt.yaml, the one configuration file of all programs (sckpt.yaml(5) documents every key).
// An unknown key, a key given twice or a bad value is refused with file, line and key; nothing is guessed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/result.h"

namespace sckpt {

inline constexpr const char* kDefaultConfigPath = SCKPT_SYSCONFDIR "/sckpt/sckpt.yaml";

// A missing file is an error; an empty one gives the defaults below (controller.host and store.directory have none and must be given).
struct Config {
    struct Controller {
        std::string host;                                   // where sckptctld runs
        int port = 6830;                                    // TCP
        std::string state_directory = SCKPT_LOCALSTATEDIR "/lib/sckpt";  // catalogue.sqlite; local disk, owned by SlurmUser
        std::vector<std::string> operators;                 // users that may act on every job, as Slurm's operators
        std::int64_t poll_seconds = 2;                      // how often Slurm is asked for the state of jobs
    } controller;
    struct Node {
        std::string socket = SCKPT_RUNSTATEDIR "/sckpt/sckptd.sock";
        std::string fast_tier = SCKPT_RUNSTATEDIR "/sckpt/images";  // node memory (tmpfs), root only
        std::string criu = "/usr/sbin/criu";
        std::int64_t dump_timeout_seconds = 300;            // frozen for longer than this, a dump is ended
        std::int64_t restore_timeout_seconds = 300;
        std::int64_t controller_wait_seconds = 600;         // how long a restarting task waits for sckptctld before it is given back to the queue
    } node;
    struct Store {
        std::string directory;                              // shared by all nodes, root only
    } store;
    struct Policy {
        std::int64_t interval_seconds = 900;                // of jobs with a bare --ckpt
        std::int64_t max_restarts = 3;                      // after failures of the program; --ckpt-max-restarts overrides
        std::int64_t keep = 2;                              // complete checkpoints kept per job
        std::int64_t keep_failed_seconds = 7 * 86400;       // how long those of a failed job stay after Slurm has forgotten it
    } policy;
};

Result<Config> load_config(const std::string& path = kDefaultConfigPath);

}  // namespace sckpt
