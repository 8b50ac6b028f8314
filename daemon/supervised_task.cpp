// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/supervised_task.h"

#include <format>

#include "rpc/task_name.h"

namespace sckpt {

std::string SupervisedTask::name() const { return is_script() ? kBatchTask : task_name(hello.step_key, hello.task_id); }

std::string SupervisedTask::shown() const {
    return is_script() ? std::format("job {}", hello.job_id) : std::format("task {} of job {}", name(), hello.job_id);
}

rpc::Task SupervisedTask::describe() const {
    rpc::Task task;
    task.set_job_id(hello.job_id);
    task.set_step_id(hello.step_id);
    task.set_task_id(hello.task_id);
    task.set_uid(uid);
    task.set_restart_count(hello.restart_count);
    task.set_interval_seconds(hello.interval_seconds);
    task.set_max_restarts(hello.max_restarts);
    task.set_resuming(root == 0);
    task.set_step_key(hello.step_key);
    task.set_tasks(hello.tasks);
    task.set_resume_from(hello.resume_from);
    task.set_origin_job(hello.origin_job);
    task.set_origin_key(hello.origin_key);
    task.set_ended(ended.has_value());
    task.set_wait_status(ended.value_or(0));
    return task;
}

TaskEnd SupervisedTask::as_ended(int wait_status) const {
    return {uid, hello.job_id, hello.step_key, hello.task_id, hello.step_id, hello.tasks, hello.restart_count, hello.resume_from, wait_status};
}

rpc::Task describe(const TaskEnd& rank) {
    rpc::Task task;
    task.set_job_id(rank.job_id);
    task.set_step_id(rank.step_id);
    task.set_task_id(rank.rank);
    task.set_uid(rank.uid);
    task.set_restart_count(rank.restart_count);
    task.set_step_key(rank.step_key);
    task.set_tasks(rank.tasks);
    task.set_resume_from(rank.resume_from);
    task.set_ended(true);
    task.set_wait_status(rank.wait_status);
    return task;
}

}  // namespace sckpt
