// SPDX-License-Identifier: GPL-3.0-or-later
//
// All that sckpt asks of Slurm, in one small file: the API's structs differ between Slurm releases, so everything else stays clear
// of slurm.h. Calls block until slurmctld answers (its MessageTimeout) and may be made from any thread after slurm_start().
#pragma once

#include <sys/types.h>
#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"

namespace sckpt {

enum class SlurmJobState { pending, running, suspended, completed, failed, node_fail, cancelled, timed_out, out_of_memory, other };

// Names of nodes, which may be very many: a copy shares them, and a look-up is quick.
class NodeNames {
   public:
    NodeNames() = default;
    explicit NodeNames(std::vector<std::string> names);
    void add(const NodeNames& others);
    bool contains(const std::string& name) const { return names_ && std::ranges::binary_search(*names_, name); }

   private:
    std::shared_ptr<const std::vector<std::string>> names_;  // sorted; null: none
};

struct SlurmJob {
    std::uint32_t job_id = 0;
    uid_t uid = 0;
    SlurmJobState state{};
    std::string state_name;   // "RUNNING", as squeue prints it
    bool completing = false;  // its nodes are not free yet
    bool batch = false;
    bool may_requeue = false;
    bool held = false;  // priority 0
    std::uint32_t restart_count = 0;
    std::int64_t submit_time = 0;
    std::int64_t begin_time = 0;     // of a pending job: when it may start at the earliest
    int exit_status = 0;             // as waitpid(2); of an ended job
    std::uint32_t array_job_id = 0;  // of a task of a job array: the array's number, which all of its jobs have
    std::optional<std::uint32_t> array_task;
    std::string account;             // "" where there is no accounting
    std::string user;                // name; filled by slurm_job() alone when slurmctld does not tell it
    std::string batch_host;          // NodeName that the batch script runs on, "" when none
    std::uint32_t het_job_id = 0;    // of a component of a heterogeneous job: its first component's, which is the whole job to sckpt; else 0
    NodeNames nodes;                 // of a heterogeneous job's first component those of all components
};

void slurm_start();                                // once, before the rest
Result<std::string> slurm_version();               // of slurmctld: "24.11.5"
Result<std::string> slurm_cluster_name();          // ClusterName
Result<std::vector<SlurmJob>> slurm_jobs();        // all of them
Result<SlurmJob> slurm_job(std::uint32_t job_id);  // Errc::not_found when Slurm does not know it
// The tasks of the job array of this number that have jobs of their own by now; none when it is no array, or Slurm does not know it.
Result<std::vector<SlurmJob>> slurm_array(std::uint32_t array_job_id);
std::string user_name(uid_t uid);                  // or the number, for a user that this host does not know
Result<> slurm_requeue_job(std::uint32_t job_id, bool hold);
Result<> slurm_end_step(std::uint32_t job_id, std::uint32_t step_id);  // kills its tasks
Result<> slurm_start_now(std::uint32_t job_id);  // begin time := now, for a pending job that waits out its 121 s
Result<> slurm_set_admin_comment(std::uint32_t job_id, const std::string& text);
Result<std::map<std::string, std::string>> slurm_node_addresses();  // NodeName → NodeAddr, of all nodes
Result<uid_t> slurm_user_id();                                    // SlurmUser
Result<bool> slurm_appends_output();                              // JobFileAppend=1: output written before a requeue survives it
Result<std::string> slurm_local_node_name();                      // NodeName of the node whose NodeHostname is this host's name

}  // namespace sckpt
