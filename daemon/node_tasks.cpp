// SPDX-License-Identifier: GPL-3.0-or-later
//
// The supervisors of this node: who they are, what runs under them, and what becomes of a task that is not running yet.
#include <sys/socket.h>
#include <cstring>
#include <format>

#include "common/log.h"
#include "common/process.h"
#include "daemon/node_agent.h"

namespace sckpt {
namespace {

constexpr int kHelloDeadlineMs = 5000;
constexpr int kStartedDeadlineMs = 30'000;  // a sckpt-run that is slower than that (the job was suspended) connects anew

Result<local::Message> receive_local(int socket, int deadline_ms, std::vector<UniqueFd>* fds) {
    SCKPT_ASSIGN(Received received, receive_message(socket, deadline_ms, sizeof(local::Message)));
    if (received.bytes.empty()) return fail(Errc::not_found, "sckpt-run has gone");
    local::Message message;
    if (received.bytes.size() != sizeof message) return fail(Errc::invalid, "a message of another size");
    std::memcpy(&message, received.bytes.data(), sizeof message);
    if (message.magic != local::kMagic || message.version != local::kVersion)
        return fail(Errc::unsupported, "sckpt-run and sckptd are of different versions: install both anew");
    if (fds != nullptr) *fds = std::move(received.fds);
    return message;
}

}  // namespace

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
    return task;
}

Result<> NodeAgent::tell(const SupervisedTask& task, local::Kind kind, const std::string& text) {
    local::Message message;
    message.kind = kind;
    text.copy(message.text, sizeof message.text - 1);
    return send_message(task.socket.get(), {reinterpret_cast<const char*>(&message), sizeof message});
}

NodeAgent::TaskKey NodeAgent::key_of(const SupervisedTask& task) {
    return {task.uid, task.hello.job_id, task.hello.step_id, task.hello.task_id};
}

std::optional<Supervisor> NodeAgent::admit(UniqueFd connection) {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (getsockopt(connection.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return std::nullopt;
    auto place = limits_.enter(peer.uid);
    if (!place) return std::nullopt;  // not logged: that would be one more thing to flood
    return Supervisor{std::move(connection), peer.uid, peer.pid, std::move(*place)};
}

Result<std::shared_ptr<SupervisedTask>> NodeAgent::greet(Supervisor& supervisor) {
    auto task = std::make_shared<SupervisedTask>();
    std::vector<UniqueFd> fds;
    SCKPT_ASSIGN(task->hello, receive_local(supervisor.connection.get(), kHelloDeadlineMs, &fds));
    if (task->hello.kind != local::Kind::hello || fds.size() != 4) return fail(Errc::invalid, "not the hello of a sckpt-run");
    task->socket = std::move(supervisor.connection);
    task->uid = supervisor.uid;
    task->supervisor = supervisor.pid;
    for (int i = 0; i < 3; ++i) task->stdio[i] = std::move(fds[static_cast<std::size_t>(i)]);
    task->status = std::move(fds[3]);
    return task;
}

// What is dumped later on this word: a process of the same user, leader of its session, in the cgroup that Slurm tracks the task by.
Result<> NodeAgent::accept_started(const std::shared_ptr<SupervisedTask>& task, const local::Message& message) {
    const pid_t root = static_cast<pid_t>(message.pid);
    SCKPT_ASSIGN(const ProcessIdentity identity, process_identity(root));
    if (identity.uid != task->uid || identity.session != root)
        return fail(Errc::denied, std::format("process {} is not a session leader of uid {}", root, task->uid));
    SCKPT_ASSIGN(const std::string ours, tracking_cgroup(task->supervisor));
    SCKPT_ASSIGN(const std::string its, tracking_cgroup(root));
    if (ours != its) return fail(Errc::denied, std::format("process {} is not in the cgroup of its supervisor", root));
    task->root = root;
    for (UniqueFd& fd : task->stdio) fd.reset();
    task->status.reset();
    const std::lock_guard lock(mutex_);
    tasks_[key_of(*task)] = task;  // not before: nobody takes a task's place by a mere hello
    return {};
}

// Once only: a supervisor has one payload, and each report costs questions to slurmctld.
Result<> NodeAgent::wait_started(const std::shared_ptr<SupervisedTask>& task, ConnectionLimits::Place& place) {
    SCKPT_ASSIGN(const local::Message message, receive_local(task->socket.get(), kStartedDeadlineMs, nullptr));
    if (message.kind != local::Kind::started) return fail(Errc::invalid, "an unexpected message of sckpt-run");
    SCKPT_TRY(accept_started(task, message));
    place.identified();
    rpc::NodeMessage report;
    *report.mutable_task_started()->mutable_task() = task->describe();
    link_.send(std::move(report));
    SCKPT_TRY(receive_local(task->socket.get(), -1, nullptr));
    return fail(Errc::invalid, "an unexpected message of sckpt-run");
}

// What becomes of a task that is not running yet.
Result<> NodeAgent::answer(const std::shared_ptr<SupervisedTask>& task) {
    if (task->hello.restart_count == 0) return tell(*task, local::Kind::launch);
    // A restore puts the tree into the supervisor's cgroup: who is in none that Slurm tracks is no task, and may ask for nothing.
    if (const auto cgroup = tracking_cgroup(task->supervisor); !cgroup) {
        SCKPT_TRY(tell(*task, local::Kind::refused, cgroup.error().text));
        return std::unexpected(cgroup.error());
    }
    return resume(task);
}

void NodeAgent::serve(Supervisor supervisor) {
    const auto greeted = greet(supervisor);
    if (!greeted) return log_warning("a supervisor of uid {} was refused: {}", supervisor.uid, greeted.error().text);
    const std::shared_ptr<SupervisedTask>& task = *greeted;
    Result<> done;
    if (task->hello.reconnect == 0) done = answer(task);
    if (done) done = wait_started(task, supervisor.place);
    if (!done && done.error().code != Errc::not_found)
        log_warning("job {} of uid {}: {}", task->hello.job_id, task->uid, done.error().text);
    forget(task);
}

void NodeAgent::forget(const std::shared_ptr<SupervisedTask>& task) {
    {
        const std::lock_guard lock(mutex_);
        const auto found = tasks_.find(key_of(*task));
        if (found == tasks_.end() || found->second != task) return;  // it did not come to run, or a newer connection has taken its place
        tasks_.erase(found);
    }
    rpc::NodeMessage report;
    *report.mutable_task_ended()->mutable_task() = task->describe();
    link_.send(std::move(report));
}

}  // namespace sckpt
