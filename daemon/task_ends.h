// SPDX-License-Identifier: GPL-3.0-or-later
//
// How the tasks of steps ended on this node, for as long as their job runs: a checkpoint of a step some of whose ranks have ended already needs
// their wait statuses. Kept in a small file beside sckptd's socket, one line a task, so that a restart of sckptd forgets none; a reboot, which ends the
// jobs, does. Safe from any thread.
#pragma once

#include <sys/types.h>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

namespace sckpt {

struct TaskEnd {
    uid_t uid = 0;
    std::uint32_t job_id = 0, step_key = 0, rank = 0;
    std::uint32_t step_id = 0, tasks = 0;  // of its step: Slurm's id, and how many there are
    std::uint32_t restart_count = 0;  // of its job
    std::uint32_t resume_from = 0;
    int wait_status = 0;  // as waitpid(2) gave it
};

class TaskEnds {
   public:
    static constexpr std::size_t kMaxOfUser = 65536;

    explicit TaskEnds(std::string file);  // reads what an earlier sckptd has left

    void add(const TaskEnd& task);  // in place of what is known of the same task; nothing when its user has kMaxOfUser already
    void begins(const TaskEnd& task);  // it runs (again)
    void forget_runs_before(uid_t uid, std::uint32_t job_id, std::uint32_t restart_count);  // this run of the job
    // Its wait status, if it was in this run of the job; which run a foreign step (rpc/task_name.h) was in is not known.
    std::optional<int> find(uid_t uid, std::uint32_t job_id, std::uint32_t restart_count, std::uint32_t step_key, std::uint32_t rank) const;
    void forget_job(std::uint32_t job_id);
    std::vector<TaskEnd> all() const;

   private:
    using Key = std::tuple<uid_t, std::uint32_t, std::uint32_t, std::uint32_t>;  // uid, job, step key, rank
    static Key key_of(const TaskEnd& task) { return {task.uid, task.job_id, task.step_key, task.rank}; }
    template <class Condition>
    void erase_if(Condition condition);  // with the lock held
    void write_all_again() const;

    const std::string file_;
    mutable std::mutex mutex_;
    std::map<Key, TaskEnd> ends_;
};

// One line, and back; nothing for a line that is none of ours, or cut off.
std::string to_line(const TaskEnd& task);
std::optional<TaskEnd> parse_task_end(const std::string& line);

}  // namespace sckpt
