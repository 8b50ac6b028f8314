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
        std::string fast_tier = SCKPT_RUNSTATEDIR "/sckpt/images";  // a tmpfs that sckptd mounts there, root only
        std::uint64_t fast_tier_bytes = 0;                  // its size; 0: a quarter of the node's memory
        std::string criu = "/usr/sbin/criu";
        std::int64_t dump_timeout_seconds = 300;            // frozen for longer than this, a dump is ended
        std::int64_t dump_streams = 0;                      // criu's that write at once; 0: as many as there are cores
        std::int64_t restore_timeout_seconds = 300;         // the fetch and the restore, each
        std::int64_t controller_wait_seconds = 600;         // how long a restarting task waits for sckptctld before it is given back to the queue
    } node;
    struct Relay {
        std::vector<std::string> hosts;                     // may run sckptctld --relay, and nodes dial one of them; none: nodes dial sckptctld
        int port = 6831;                                    // TCP
        std::string upstream;                               // the relay that a relay dials; "": sckptctld
    } relay;
    struct Store {
        std::string directory;                              // shared by all nodes; of the service user, 0700
        std::string user = "sckpt";                         // the service user: reads and writes the store, never root
        std::string key = SCKPT_SYSCONFDIR "/sckpt/sckpt.key";  // seals images; root only; sckpt-clean make-key makes it
        std::int64_t timeout_seconds = 300;                 // a store that does not move for this long is taken as gone
    } store;
    struct Drain {
        std::int64_t streams = 1;                           // at once on a node
        std::int64_t urgent_streams = 4;                    // of urgent ones, besides
        std::int64_t threads = 2;                           // of one drain
        std::uint64_t bandwidth = 0;                        // bytes per second of a node; 0: no limit
        std::int64_t cluster_streams = 64;                  // at once in the cluster
        std::int64_t cluster_urgent_streams = 256;          // of urgent ones
        std::uint64_t cluster_bandwidth = 0;                // bytes per second of the cluster; 0: no limit
    } drain;
    struct Policy {
        std::int64_t interval_seconds = 900;                // of jobs with a bare --ckpt
        std::int64_t max_restarts = 3;                      // after failures of the program; --ckpt-max-restarts overrides
    } policy;
    struct Retention {
        std::int64_t keep = 2;                              // complete checkpoints kept per job
        std::int64_t keep_success_seconds = 0;              // after the end of a job that succeeded or was cancelled
        std::int64_t keep_failed_seconds = 7 * 86400;       // after the end of a job that failed, or that Slurm has forgotten
        std::int64_t max_age_seconds = 0;                   // of a checkpoint; 0: no limit, as for the sizes below
        std::uint64_t max_size = 0;                         // bytes of the whole store
        std::uint64_t user_quota = 0, account_quota = 0;    // bytes of each user, of each account
        std::int64_t interval_seconds = 600;                // how often the collector runs
        std::int64_t backup_interval_seconds = 3600;        // how often the catalogue is copied to the store
    } retention;
};

Result<Config> load_config(const std::string& path = kDefaultConfigPath);

}  // namespace sckpt
