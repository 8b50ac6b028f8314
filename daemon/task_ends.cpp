// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/task_ends.h"

#include <algorithm>
#include <format>
#include <sstream>

#include <fcntl.h>

#include "common/fd.h"
#include "common/log.h"
#include "rpc/task_name.h"

namespace sckpt {

// The last word marks a whole line.
std::string to_line(const TaskEnd& task) {
    return std::format("{} {} {} {} {} {} {} {} {} .\n", task.uid, task.job_id, task.step_key, task.rank, task.step_id, task.tasks,
                       task.restart_count, task.resume_from, task.wait_status);
}

std::optional<TaskEnd> parse_task_end(const std::string& line) {
    TaskEnd task;
    std::string end, more;
    std::istringstream fields(line);
    fields >> task.uid >> task.job_id >> task.step_key >> task.rank >> task.step_id >> task.tasks >> task.restart_count >> task.resume_from >>
        task.wait_status >> end;
    if (!fields || end != "." || fields >> more) return std::nullopt;
    return task;
}

TaskEnds::TaskEnds(std::string file) : file_(std::move(file)) {
    const auto text = read_file(file_, 256u << 20);
    if (!text) return;
    std::istringstream lines(*text);
    for (std::string line; std::getline(lines, line);)
        if (const auto task = parse_task_end(line)) ends_[key_of(*task)] = *task;
}

void TaskEnds::add(const TaskEnd& task) {
    const std::lock_guard lock(mutex_);
    const auto of_user = std::ranges::count(ends_, task.uid, [](const auto& item) { return item.second.uid; });
    if (std::cmp_greater_equal(of_user, kMaxOfUser)) return;
    ends_[key_of(task)] = task;
    const auto file = open_file(file_, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0600);
    const auto written = file ? write_all(file->get(), to_line(task)) : std::unexpected(file.error());
    if (!written) log_warning("an ended task will be forgotten if sckptd is restarted: {}", written.error().text);
}

void TaskEnds::begins(const TaskEnd& task) {
    const std::lock_guard lock(mutex_);
    erase_if([&](const TaskEnd& known) { return key_of(known) == key_of(task); });
}

void TaskEnds::forget_runs_before(uid_t uid, std::uint32_t job_id, std::uint32_t restart_count) {
    const std::lock_guard lock(mutex_);
    erase_if([&](const TaskEnd& known) { return known.uid == uid && known.job_id == job_id && known.restart_count < restart_count; });
}

std::optional<int> TaskEnds::find(uid_t uid, std::uint32_t job_id, std::uint32_t restart_count, std::uint32_t step_key, std::uint32_t rank) const {
    const std::lock_guard lock(mutex_);
    const auto found = ends_.find({uid, job_id, step_key, rank});
    if (found == ends_.end()) return std::nullopt;
    const TaskEnd& task = found->second;
    const bool foreign = (step_key & kForeignStep) != 0;
    return foreign || task.restart_count == restart_count ? std::optional(task.wait_status) : std::nullopt;
}

void TaskEnds::forget_job(std::uint32_t job_id) {
    const std::lock_guard lock(mutex_);
    erase_if([&](const TaskEnd& known) { return known.job_id == job_id; });
}

std::vector<TaskEnd> TaskEnds::all() const {
    const std::lock_guard lock(mutex_);
    std::vector<TaskEnd> list;
    for (const auto& [key, task] : ends_) list.push_back(task);
    return list;
}

template <class Condition>
void TaskEnds::erase_if(Condition condition) {
    if (std::erase_if(ends_, [&](const auto& item) { return condition(item.second); }) != 0) write_all_again();
}

void TaskEnds::write_all_again() const {
    std::string text;
    for (const auto& [key, task] : ends_) text += to_line(task);
    if (const auto written = write_file_durable(file_, text, 0600); !written) log_warning("{}", written.error().text);
}

}  // namespace sckpt
