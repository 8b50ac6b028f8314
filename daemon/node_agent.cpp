// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/node_agent.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <cstring>
#include <filesystem>
#include <format>
#include <nlohmann/json.hpp>
#include <thread>

#include "common/log.h"
#include "common/process.h"

namespace sckpt {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kHelloDeadlineMs = 5000;
constexpr int kStartedDeadlineMs = 30'000;  // a sckpt-run that is slower than that (the job was suspended) connects anew
constexpr milliseconds kProgressEvery{500};
constexpr const char* kCapturedName = "captured.json";  // written last: without it the directory is a half-written image

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

// A thread of its own; what goes wrong in it (no memory, no thread) ends that work and not the daemon.
template <class Work>
void in_background(Work work) {
    try {
        std::thread([work = std::move(work)] {
            try {
                work();
            } catch (const std::exception& e) {
                log_error("work in the background failed: {}", e.what());
            }
        }).detach();
    } catch (const std::exception& e) {
        log_error("no thread for work in the background: {}", e.what());
    }
}

std::uint64_t random_start() { return static_cast<std::uint64_t>(steady_clock::now().time_since_epoch().count()); }

void lower_priority() {
    // This thread only: Linux counts nice by thread. The job's own threads come first wherever the processor is short.
    setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), 10);
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

NodeAgent::NodeAgent(Config config, std::unique_ptr<Backend> backend)
    : config_(std::move(config)),
      backend_(std::move(backend)),
      link_(config_.controller,
            {[this] { return hello(); }, [this] { reconnected(); }, [this](const auto& message) { received(message); }}),
      next_query_(random_start()) {}

Result<> NodeAgent::start() {
    SCKPT_TRY(make_directories(config_.node.fast_tier, 0700));
    probe_ = backend_->probe();
    if (probe_.usable) log_info("backend {} {}", probe_.name, probe_.version);
    else log_error("no checkpoints on this node: {}", probe_.reason);
    for (const std::string& text : probe_.notes) log_info("backend: {}", text);
    recover();
    link_.start();
    return {};
}

std::string NodeAgent::image_directory(std::uint64_t checkpoint_id) const {
    return std::format("{}/ckpt-{}", config_.node.fast_tier, checkpoint_id);
}

// An earlier sckptd may have left captured images, whose drain goes on, and half-written ones, which are dropped.
void NodeAgent::recover() {
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(config_.node.fast_tier, ignored)) {
        if (!entry.is_directory(ignored)) continue;  // criu's own cache
        const std::string directory = entry.path().string();
        const auto text = read_file(directory + "/" + kCapturedName);
        const auto json = text ? nlohmann::json::parse(*text, nullptr, false) : nlohmann::json();
        const std::uint64_t id = json.is_object() ? json.value("checkpoint_id", 0ULL) : 0;
        // an image that was fetched for a restore has that file too, but another name
        if (id != 0 && entry.path().filename() == std::filesystem::path(image_directory(id)).filename()) {
            HeldImage image{id, json.value("job_id", 0U), json.value("path", std::string()), std::nullopt};
            log_info("image of checkpoint row {} found: its drain goes on", image.checkpoint_id);
            {
                const std::lock_guard lock(mutex_);
                held_[image.checkpoint_id] = image;
            }
            in_background([this, image] { drain(image); });
        } else if (entry.is_directory(ignored)) {
            const std::lock_guard lock(mutex_);
            ++leftovers_;
            in_background([this, directory] { remove_leftover(directory); });
        }
    }
}

// The driver of an earlier sckptd may still be at work there, and must not be ended: it holds the job's processes, or is about to bring
// them back. It keeps its image directory locked.
void NodeAgent::remove_leftover(const std::string& directory) {
    if (const auto open = open_file(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW); open && flock(open->get(), LOCK_EX | LOCK_NB) != 0) {
        log_info("{}: an earlier sckptd's dump or restore is still under way", directory);
        while (flock(open->get(), LOCK_EX) != 0 && errno == EINTR) {
        }
    }
    if (auto removed = remove_tree(directory); !removed) log_warning("a half-written image stays: {}", removed.error().text);
    const std::lock_guard lock(mutex_);
    --leftovers_;
    leftover_ended_.notify_all();
}

// Two dumps of one tree would disturb each other.
Result<> NodeAgent::wait_for_leftovers() {
    std::unique_lock lock(mutex_);
    if (leftover_ended_.wait_for(lock, std::chrono::seconds(config_.node.dump_timeout_seconds), [&] { return leftovers_ == 0; })) return {};
    return fail(Errc::busy, "a dump that an earlier sckptd began on this node does not end");
}

rpc::NodeInfo NodeAgent::info() const {
    rpc::NodeInfo info;
    info.set_version(SCKPT_VERSION);
    info.set_backend_usable(probe_.usable);
    info.set_backend(probe_.name + " " + probe_.version);
    info.set_backend_reason(probe_.reason);
    for (const std::string& text : probe_.notes) info.add_backend_notes(text);
    struct statvfs space{};
    if (statvfs(config_.node.fast_tier.c_str(), &space) == 0) {
        info.set_fast_tier_bytes(space.f_blocks * space.f_frsize);
        info.set_fast_tier_used((space.f_blocks - space.f_bfree) * space.f_frsize);
    }
    const std::lock_guard lock(mutex_);
    info.set_tasks(static_cast<std::uint32_t>(tasks_.size()));
    return info;
}

void NodeAgent::send_info() {
    if (!link_.connected()) return;
    rpc::NodeMessage message;
    *message.mutable_info() = info();
    link_.send(std::move(message));
}

Result<rpc::NodeHello> NodeAgent::hello() {
    rpc::NodeHello hello;
    hello.set_version(SCKPT_VERSION);
    *hello.mutable_info() = info();
    const std::lock_guard lock(mutex_);
    for (const auto& [key, task] : tasks_) *hello.add_tasks() = task->describe();
    for (const auto& [id, image] : held_) {
        rpc::HeldImage& entry = *hello.add_images();
        entry.set_checkpoint_id(id);
        entry.set_job_id(image.job_id);
    }
    return hello;
}

void NodeAgent::reconnected() {
    const std::lock_guard lock(mutex_);
    for (const auto& [query, pending] : resumes_) {
        rpc::NodeMessage message;
        message.mutable_resume_query()->set_query(query);
        *message.mutable_resume_query()->mutable_task() = pending.task;
        link_.send(std::move(message));
    }
    for (const auto& [id, image] : held_) {
        if (!image.outcome) continue;
        rpc::NodeMessage message;
        *message.mutable_store_done() = *image.outcome;
        link_.send(std::move(message));
    }
}

void NodeAgent::received(const rpc::ControllerMessage& message) {
    switch (message.what_case()) {
        case rpc::ControllerMessage::kDump: return in_background([this, order = message.dump()] { dump(order); });
        case rpc::ControllerMessage::kDrop: return in_background([this, id = message.drop().checkpoint_id()] { drop(id); });
        case rpc::ControllerMessage::kRemove: return in_background([this, order = message.remove()] { remove(order); });
        case rpc::ControllerMessage::kResume: {
            const std::lock_guard lock(mutex_);
            const auto pending = resumes_.find(message.resume().query());
            if (pending == resumes_.end()) return;
            pending->second.order = message.resume();
            answered_.notify_all();
            return;
        }
        case rpc::ControllerMessage::kWelcome:
        case rpc::ControllerMessage::WHAT_NOT_SET: return;
    }
}

// ---------------------------------------------------------------- tasks

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

// ---------------------------------------------------------------- dumps and drains

// Copies a log of CRIU to where it stays after the image is gone (the fast tier may be a file system of its own); answers where, for the
// user's message.
std::string NodeAgent::keep_log(const std::string& directory, const char* name, const std::string& as) const {
    const std::string logs = std::filesystem::path(config_.node.fast_tier).parent_path().string() + "/logs";
    const std::string target = logs + "/" + as;
    std::error_code error;
    if (!make_directories(logs, 0700)) return "";
    std::filesystem::copy_file(directory + "/" + name, target, std::filesystem::copy_options::overwrite_existing, error);
    if (error) return "";
    return std::format(" (log: {})", target);
}

Result<DumpReport> NodeAgent::dump_task(const rpc::DumpOrder& order, const std::string& directory) {
    std::shared_ptr<SupervisedTask> task;
    {
        const std::lock_guard lock(mutex_);
        const auto found = tasks_.find({order.uid(), order.job_id(), order.step_id(), order.task_id()});
        if (found != tasks_.end()) task = found->second;
    }
    if (!task || task->root == 0) return fail(Errc::not_found, "its batch script does not run under sckpt on this node (any more)");
    if (!probe_.usable) return fail(Errc::unsupported, probe_.reason);
    SCKPT_TRY(wait_for_leftovers());
    SCKPT_TRY(make_directories(directory, 0700));
    DumpRequest request;
    request.root = task->root;
    request.supervisor = task->supervisor;
    request.uid = task->uid;
    request.directory = directory;
    request.deadline = std::chrono::seconds(config_.node.dump_timeout_seconds);
    return backend_->dump(request);
}

void NodeAgent::dump(const rpc::DumpOrder& order) {
    const std::string directory = image_directory(order.checkpoint_id());
    const HeldImage image{order.checkpoint_id(), order.job_id(), order.path(), std::nullopt};
    rpc::NodeMessage message;
    rpc::DumpDone& done = *message.mutable_dump_done();
    done.set_checkpoint_id(order.checkpoint_id());
    Result<DumpReport> report = dump_task(order, directory);
    if (report) {
        const nlohmann::json captured{{"checkpoint_id", image.checkpoint_id}, {"job_id", image.job_id}, {"path", image.path}};
        if (auto written = write_file_durable(directory + "/" + kCapturedName, captured.dump(), 0600); !written)
            report = std::unexpected(written.error());
    }
    if (!report) {
        const std::string log = keep_log(directory, "dump.log", std::format("job-{}-ckpt-{}.dump.log", order.job_id(), order.number()));
        done.set_error(report.error().text + log);
        log_warning("dump of job {}: {}", order.job_id(), done.error());
        if (auto removed = remove_tree(directory); !removed) log_warning("{}", removed.error().text);
        return link_.send(std::move(message));
    }
    {
        const std::lock_guard lock(mutex_);
        held_[image.checkpoint_id] = image;
    }
    done.set_ok(true);
    done.set_bytes(report->bytes);
    done.set_frozen_ms(static_cast<std::uint32_t>(report->frozen.count()));
    for (const FileRecord& file : report->files) {
        rpc::File& entry = *done.add_files();
        entry.set_path(file.path);
        entry.set_inode(file.inode);
        entry.set_size(file.size);
        entry.set_append(file.append);
        entry.set_stdio(file.stdio);
    }
    link_.send(std::move(message));
    drain(image);
}

void NodeAgent::drain(const HeldImage& image) {
    lower_priority();
    auto last = steady_clock::now();
    const auto progress = [&](std::uint64_t bytes) {
        if (steady_clock::now() - last < kProgressEvery) return;
        last = steady_clock::now();
        rpc::NodeMessage message;
        message.mutable_store_progress()->set_checkpoint_id(image.checkpoint_id);
        message.mutable_store_progress()->set_bytes_stored(bytes);
        link_.send(std::move(message));
    };
    const auto put = [&]() -> Result<StoredImage> {
        SCKPT_ASSIGN(const Store store, Store::open(config_.store.directory));
        // what died with a node or with a sckptd would fill the store for good
        if (auto swept = store.sweep(); !swept) log_warning("the store's half-written images: {}", swept.error().text);
        return store.put(image_directory(image.checkpoint_id), image.path, progress);
    };
    const Result<StoredImage> stored = put();
    rpc::NodeMessage message;
    rpc::StoreDone& done = *message.mutable_store_done();
    done.set_checkpoint_id(image.checkpoint_id);
    done.set_ok(stored.has_value());
    if (stored) {
        done.mutable_image()->set_digest(stored->digest);
        done.mutable_image()->set_bytes(stored->bytes);
    } else {
        done.set_error(stored.error().text);
        log_warning("checkpoint row {} of job {} was not stored: {}", image.checkpoint_id, image.job_id, stored.error().text);
    }
    {
        const std::lock_guard lock(mutex_);
        const auto held = held_.find(image.checkpoint_id);
        if (held == held_.end()) return;  // dropped meanwhile
        held->second.outcome = done;
    }
    link_.send(std::move(message));
}

void NodeAgent::drop(std::uint64_t checkpoint_id) {
    {
        const std::lock_guard lock(mutex_);
        held_.erase(checkpoint_id);
    }
    // First of all it stops to be a captured image: what is left of it after a crash must not be drained over the stored one.
    const std::string directory = image_directory(checkpoint_id);
    if (unlink((directory + "/" + kCapturedName).c_str()) != 0 && errno != ENOENT) log_warning("{}: {}", directory, std::strerror(errno));
    if (auto removed = backend_->destroy(directory); !removed) log_warning("{}", removed.error().text);
}

void NodeAgent::remove(const rpc::RemoveOrder& order) {
    const auto removed = [&]() -> Result<> {
        SCKPT_ASSIGN(const Store store, Store::open(config_.store.directory));
        return store.remove(order.path());
    }();
    rpc::NodeMessage message;
    rpc::Removed& report = *message.mutable_removed();
    report.set_checkpoint_id(order.checkpoint_id());
    report.set_ok(removed.has_value());
    if (!removed) report.set_error(removed.error().text);
    link_.send(std::move(message));
}

}  // namespace sckpt
