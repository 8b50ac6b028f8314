// SPDX-License-Identifier: GPL-3.0-or-later
//
// The supervisors of this node: who they are, what runs under them, and what becomes of a task that is not running yet.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <format>
#include <thread>

#include "common/log.h"
#include "common/process.h"
#include "daemon/node_agent.h"
#include "daemon/run_directory.h"
#include "daemon/run_state.h"
#include "daemon/slurm_api.h"

namespace sckpt {
namespace {

constexpr int kHelloDeadlineMs = 5000;
constexpr int kSendSeconds = 2;
constexpr std::chrono::seconds kHoldLimit{10}, kEndedLimit{1};
constexpr std::chrono::minutes kWatchEnded{10};
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

std::string run_base(const Config& config) { return std::filesystem::path(config.node.socket).parent_path().string(); }

}  // namespace

Result<> NodeAgent::tell(const SupervisedTask& task, local::Kind kind, const std::string& text) {
    local::Message message;
    message.kind = kind;
    text.copy(message.text, sizeof message.text - 1);
    return send(task, message);
}

Result<> NodeAgent::send(const SupervisedTask& task, const local::Message& message, const UniqueFd* descriptor) {
    const int fd = descriptor != nullptr ? descriptor->get() : -1;
    return send_message(task.socket.get(), {reinterpret_cast<const char*>(&message), sizeof message}, &fd, descriptor != nullptr ? 1 : 0);
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

Result<NodeAgent::TaskPtr> NodeAgent::greet(Supervisor& supervisor) {
    auto task = std::make_shared<SupervisedTask>();
    std::vector<UniqueFd> fds;
    SCKPT_ASSIGN(task->hello, receive_local(supervisor.connection.get(), kHelloDeadlineMs, &fds));
    if (task->hello.kind != local::Kind::hello || fds.size() != 4) return fail(Errc::invalid, "not the hello of a sckpt-run");
    task->socket = std::move(supervisor.connection);
    const timeval patience{kSendSeconds, 0};  // whoever does not read what he is told holds up nobody
    if (setsockopt(task->socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0) return fail_errno("limit the time of a message");
    task->uid = supervisor.uid;
    task->supervisor = supervisor.pid;
    for (int i = 0; i < 3; ++i) task->stdio[i] = std::move(fds[static_cast<std::size_t>(i)]);
    task->status = std::move(fds[3]);
    return task;
}

// What is dumped later on this word: a process of the same user, leader of its session, in the cgroup that Slurm tracks the task by.
Result<> NodeAgent::accept_started(const TaskPtr& task, const local::Message& message) {
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
    ended_.forget_runs_before(task->uid, task->hello.job_id, task->hello.restart_count);
    if (!task->is_script()) ended_.begins(task->as_ended(0));
    const std::lock_guard lock(mutex_);
    tasks_[key_of(*task)] = task;  // not before: nobody takes a task's place by a mere hello
    return {};
}

// Once only: a supervisor has one payload, and each report costs questions to slurmctld.
Result<> NodeAgent::wait_started(const TaskPtr& task, ConnectionLimits::Place& place) {
    SCKPT_ASSIGN(const local::Message message, receive_local(task->socket.get(), kStartedDeadlineMs, nullptr));
    if (message.kind != local::Kind::started) return fail(Errc::invalid, "an unexpected message of sckpt-run");
    SCKPT_TRY(accept_started(task, message));
    place.identified();
    rpc::NodeMessage report;
    *report.mutable_task_started()->mutable_task() = task->describe();
    link_.send(std::move(report));
    return listen(task);
}

// What a running task's sckpt-run says. The answer to `hold` comes in memory, which is read without asking anybody else for it: a descriptor of a
// file system that its user serves could hang.
Result<> NodeAgent::listen(const TaskPtr& task) {
    for (;;) {
        std::vector<UniqueFd> fds;
        SCKPT_ASSIGN(const local::Message message, receive_local(task->socket.get(), -1, &fds));
        if (message.kind == local::Kind::held && fds.size() == 1 && fcntl(fds[0].get(), F_GET_SEALS) >= 0) {
            if (lseek(fds[0].get(), 0, SEEK_SET) != 0) return fail_errno("read the state of sckpt-run");
            SCKPT_ASSIGN(std::string state, read_all(fds[0].get(), "the state of sckpt-run", kMaxRunState));
            const std::lock_guard lock(mutex_);
            task->state = std::move(state);
        } else if (message.kind == local::Kind::ended) {
            if (!task->is_script()) ended_.add(task->as_ended(message.wait_status));
            const std::lock_guard lock(mutex_);
            task->ended = message.wait_status;
        } else {
            return fail(Errc::invalid, "an unexpected message of sckpt-run");
        }
        task_changed_.notify_all();
    }
}

// ---------------------------------------------------------------- while a dump is made

void NodeAgent::Hold::end() {
    for (const TaskPtr& task : std::exchange(tasks_, {})) (void)agent_->tell(*task, local::Kind::go_on);
}

// What does not run cannot get ready, and would be dumped as stopped, for ever.
Result<> NodeAgent::check_not_suspended(const std::vector<TaskPtr>& tasks) {
    for (const TaskPtr& task : tasks)
        if (is_suspended(task->supervisor))
            return fail(Errc::busy, std::format("the job is suspended, and its processes cannot get ready for a checkpoint: `scontrol resume {}` first",
                                                task->hello.job_id));
    return {};
}

Result<NodeAgent::Hold> NodeAgent::hold(std::vector<TaskPtr> tasks) {
    SCKPT_TRY(check_not_suspended(tasks));
    Hold held(this, tasks);
    const Result<> asked = ask_states(tasks);
    if (!asked) SCKPT_TRY(check_not_suspended(tasks));  // meanwhile
    SCKPT_TRY(asked);
    return held;
}

// Of this moment. What ends meanwhile has no state any more, and nothing is moved for it.
Result<> NodeAgent::ask_states(const std::vector<TaskPtr>& tasks) {
    {
        const std::lock_guard lock(mutex_);
        for (const TaskPtr& task : tasks) task->state.reset();
    }
    for (const TaskPtr& task : tasks)
        if (auto told = tell(*task, local::Kind::hold); !told) log_info("{}: {}", task->shown(), told.error().text);
    const auto answered = [](const TaskPtr& task) { return task->state || task->ended; };
    std::unique_lock lock(mutex_);
    const auto done = [&] { return std::ranges::all_of(tasks, [&](const TaskPtr& task) { return answered(task) || task->gone; }); };
    task_changed_.wait_for(lock, kHoldLimit, done);
    const auto silent = std::ranges::find_if_not(tasks, answered);
    if (silent == tasks.end()) return {};
    return fail((*silent)->gone ? Errc::unavailable : Errc::timeout,
                std::format("the sckpt-run of task {} {}", (*silent)->name(),
                            (*silent)->gone ? "has lost its connection to sckptd" : "did not get ready for the dump in time"));
}

std::string NodeAgent::state_of(const SupervisedTask& task) const {
    const std::lock_guard lock(mutex_);
    return task.state.value_or("");
}

// A task whose dump failed may have failed it by ending: its sckpt-run says so a moment later.
std::optional<int> NodeAgent::ended_by_now(const SupervisedTask& task) {
    std::unique_lock lock(mutex_);
    task_changed_.wait_for(lock, kEndedLimit, [&] { return task.ended || task.gone; });
    return task.ended;
}

// ---------------------------------------------------------------- what becomes of a task

// What becomes of a task that is not running yet.
Result<> NodeAgent::answer(const TaskPtr& task) {
    const bool is_new = task->is_script() ? task->hello.restart_count == 0 : task->hello.resume_from == 0;
    if (is_new) return tell(*task, local::Kind::launch);
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
    const TaskPtr& task = *greeted;
    if (const auto made = make_run_directory(run_base(config_), task->uid); !made) log_warning("{}", made.error().text);
    Result<> done;
    if (task->hello.reconnect == 0) done = answer(task);
    if (done) done = wait_started(task, supervisor.place);
    if (!done && done.error().code != Errc::not_found)
        log_warning("{} of uid {}: {}", task->shown(), task->uid, done.error().text);
    forget(task);
}

void NodeAgent::forget(const TaskPtr& task) {
    rpc::NodeMessage report;
    {
        const std::lock_guard lock(mutex_);
        task->gone = true;
        task_changed_.notify_all();
        const auto found = tasks_.find(key_of(*task));
        if (found == tasks_.end() || found->second != task) return;  // it did not come to run, or a newer connection has taken its place
        tasks_.erase(found);
        *report.mutable_task_ended()->mutable_task() = task->describe();
    }
    link_.send(std::move(report));
}

// How tasks ended is forgotten with their job, or that run of it. Slurm is asked about those of which nothing runs here any more, and seldom: it
// costs slurmctld a question, and us a few bytes to wait.
void NodeAgent::watch_ended() {
    for (;;) {
        std::this_thread::sleep_for(kWatchEnded);
        std::map<std::uint32_t, std::uint32_t> runs;  // by job
        for (const TaskEnd& end : ended_.all()) runs[end.job_id] = std::max(runs[end.job_id], end.restart_count);
        {
            const std::lock_guard lock(mutex_);
            for (const auto& [key, task] : tasks_) runs.erase(task->hello.job_id);
        }
        for (const auto& [job_id, run] : runs) {
            const auto job = slurm_job(job_id);
            const bool lives = job && (job->state == SlurmJobState::running || job->state == SlurmJobState::suspended) && job->restart_count == run;
            if (!lives && (job || job.error().code == Errc::not_found)) ended_.forget_job(job_id);
        }
    }
}

}  // namespace sckpt
