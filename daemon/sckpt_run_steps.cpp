// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/sckpt_run_steps.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <sstream>

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/seqpacket.h"
#include "daemon/srun_exec.h"

namespace sckpt {

namespace {

using Phase = RunState::Step::Phase;
using srun::Kind;

std::string socket_path(const RunOptions& options) {
    const std::string sckptd = options.socket;
    return sckptd.substr(0, sckptd.rfind('/')) + "/run/" + std::to_string(::getuid()) + "/" + srun::supervisor_socket_name(options.job_id);
}

// On the standard error that came with `run`. When nobody reads there, the line is lost: nothing here waits.
void complain(const std::vector<UniqueFd>& fds, const std::string& text) {
    if (fds.size() <= STDERR_FILENO) return;
    const std::string line = "srun: error: sckpt " + text + "\n";
    pollfd writable{fds[STDERR_FILENO].get(), POLLOUT, 0};
    if (::poll(&writable, 1, 0) == 1) (void)!::write(writable.fd, line.data(), line.size());
}

// How many components the job has: a heterogeneous one spans as many job ids.
std::uint32_t component_count() {
    const char* size = std::getenv("SLURM_HET_SIZE");
    return size ? std::max(1U, static_cast<std::uint32_t>(std::strtoul(size, nullptr, 10))) : 1;
}

}  // namespace

StepService::StepService(const RunOptions& options)
    : options_(options), path_(socket_path(options)), events_(::epoll_create1(EPOLL_CLOEXEC)) {}

bool StepService::open() {
    listener_ = listen_seqpacket(path_);
    if (listener_ && watch(listener_.get(), Source::listener, 0)) serving_ = true;
    return static_cast<bool>(listener_);
}

void StepService::close() {
    listener_.reset();
    if (std::exchange(serving_, false)) ::unlink(path_.c_str());
}

void StepService::resume(const RunState& state, std::uint32_t number) {
    steps_.clear();
    next_key_ = state.next_key;
    resume_from_ = number;
    for (const RunState::Step& known : state.steps) {
        Step& step = steps_[known.key];
        static_cast<RunState::Step&>(step) = known;
        step.srun = 0;
    }
}

bool StepService::watch(int fd, Source source, std::uint32_t value) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = static_cast<std::uint64_t>(source) << 32 | value;
    return ::epoll_ctl(events_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

void StepService::serve() {
    std::array<epoll_event, 64> events{};
    const int count = ::epoll_wait(events_.get(), events.data(), events.size(), 0);
    for (int i = 0; i < count; ++i) {
        const std::uint64_t data = events[static_cast<std::size_t>(i)].data.u64;
        const auto value = static_cast<std::uint32_t>(data);
        switch (static_cast<Source>(data >> 32)) {
            case Source::listener: on_listener(); break;
            case Source::connection: on_connection(static_cast<int>(value)); break;
            case Source::stub: on_stub_end(value); break;
            case Source::report:
                if (Step* step = find(value)) on_report(*step);
                break;
        }
    }
}

StepService::Step* StepService::find(std::uint32_t key) {
    const auto found = steps_.find(key);
    return found == steps_.end() ? nullptr : &found->second;
}

// ---- stubs
void StepService::on_listener() {
    while (listener_) {
        UniqueFd socket(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!socket) return;
        ucred peer{};
        socklen_t size = sizeof peer;
        if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.uid != ::getuid()) continue;
        UniqueFd stub(static_cast<int>(::syscall(SYS_pidfd_open, peer.pid, 0)));
        const int fd = socket.get();
        if (stub && watch(fd, Source::connection, static_cast<std::uint32_t>(fd)))
            connections_[fd] = {std::move(socket), std::move(stub), srun::kNewStep};
    }
}

void StepService::on_connection(int fd) {
    for (auto at = connections_.find(fd); at != connections_.end(); at = connections_.find(fd)) {
        srun::Message message;
        std::vector<UniqueFd> fds;
        const ssize_t got = receive_packet(fd, &message, sizeof message, &fds);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (got != sizeof message || message.magic != srun::kMagic || message.version != srun::kVersion) return disconnect(fd);
        on_message(at->second, message, fds);
    }
}

void StepService::on_message(Connection& connection, const srun::Message& message, const std::vector<UniqueFd>& fds) {
    Step* step = find(connection.key);
    switch (message.kind) {
        case Kind::run:
            if (!held_ && !step) on_run(connection, message.key, fds);
            break;
        case Kind::signal:
            if (step && step->srun > 0) ::kill(step->srun, message.value);
            break;
        case Kind::unreplayable:
            if (step) step->unreplayable = true;
            break;
        default: break;
    }
}

void StepService::on_run(Connection& connection, std::uint32_t key, const std::vector<UniqueFd>& fds) {
    const int socket = connection.socket.get();
    if (key != srun::kNewStep && !find(key)) {  // it knows a step that its image does not
        complain(fds, "does not know what became of this step, and does not start it again");
        return send(socket, {.kind = Kind::exited, .key = key, .value = local::kRefusedExitCode << 8});
    }
    if (key == srun::kNewStep) key = next_key_++;
    Step& step = steps_[key];
    step.key = key;
    if (step.connection >= 0) disconnect(step.connection);  // whose end has not been seen yet
    step.stub = std::move(connection.stub);
    step.connection = socket;
    connection.key = key;
    watch(step.stub.get(), Source::stub, key);
    const bool fresh = step.phase != Phase::ended && !step.started;
    if (fresh) start(step, fds);
    send(socket, {.kind = Kind::accepted, .key = key, .fresh = fresh});
    if (step.phase == Phase::ended) send(socket, {.kind = Kind::exited, .key = key, .value = step.wait_status});
    else offer_input(step);
}

// A stub ends when it has been told that its srun has, or because somebody killed it, who would have killed srun.
void StepService::on_stub_end(std::uint32_t key) {
    Step* step = find(key);
    if (!step) return;
    step->stub.reset();
    step->abandoned = true;
    if (step->connection >= 0) disconnect(step->connection);
    if (step->srun > 0) ::kill(step->srun, SIGKILL);
    else steps_.erase(key);
}

void StepService::send(int connection, srun::Message message) {
    if (!send_packet(connection, &message, sizeof message)) disconnect(connection);  // it comes back
}

void StepService::disconnect(int connection) {
    const auto found = connections_.find(connection);
    if (found == connections_.end()) return;
    if (Step* step = find(found->second.key)) step->connection = -1;
    connections_.erase(found);
}

// ---- the real ones
void StepService::start(Step& step, const std::vector<UniqueFd>& fds) {
    const bool resumes = step.phase == Phase::running;
    Result<RunningSrun> srun = start_srun(fds, resume_from_ > 0 ? environ : nullptr,
                                          {.job_id = options_.job_id, .key = step.key, .resume_from = resumes ? resume_from_ : 0});
    step.started = true;
    if (!srun) {
        complain(fds, "cannot start srun: " + srun.error().text);
        step.phase = Phase::ended;
        step.wait_status = 1 << 8;
        return;
    }
    step.srun = srun->pid;
    step.report = std::move(srun->report);
    watch(step.report.get(), Source::report, step.key);
}

void StepService::on_report(Step& step) {
    std::array<char, 200> bytes{};
    ssize_t got = -1;
    while ((got = receive_packet(step.report.get(), bytes.data(), bytes.size())) > 0) {
        const std::string text(bytes.data(), static_cast<std::size_t>(got));
        if (text == "input") step.reads_input = true;
        if (text.starts_with("step ")) step.asking = text;
    }
    if (got == 0) step.report.reset();
    if (!held_) grant(step);
}

void StepService::grant(Step& step) {
    if (step.asking.empty()) return;
    std::istringstream words(std::exchange(step.asking, {}));
    std::string step_word;
    std::uint32_t job_id = 0;
    words >> step_word >> job_id >> step.step_id >> step.tasks;
    step.phase = Phase::running;
    step.granted = true;
    if (!is_ours(job_id)) step.unreplayable = true;  // it runs in another job, which no checkpoint of this one holds
    send_packet(step.report.get(), "go", 2);
    offer_input(step);
}

bool StepService::is_ours(std::uint32_t job_id) const { return job_id >= options_.job_id && job_id - options_.job_id < component_count(); }

// Not before its tasks start: an srun that fails earlier leaves the script's input alone.
void StepService::offer_input(Step& step) {
    if (!step.reads_input || !step.granted || step.fed || step.connection < 0) return;
    step.fed = true;
    send(step.connection, {.kind = Kind::feed, .key = step.key});
}

void StepService::reap() {
    std::vector<std::uint32_t> keys;
    for (const auto& [key, step] : steps_)
        if (step.srun > 0) keys.push_back(key);
    for (const std::uint32_t key : keys) {
        Step& step = *find(key);
        int wait_status = 0;
        if (::waitpid(step.srun, &wait_status, WNOHANG) == step.srun) on_srun_end(step, wait_status);
    }
}

void StepService::on_srun_end(Step& step, int wait_status) {
    step.srun = 0;
    step.report.reset();
    step.phase = Phase::ended;
    step.wait_status = wait_status;
    if (step.abandoned) steps_.erase(step.key);
    else if (step.connection >= 0) send(step.connection, {.kind = Kind::exited, .key = step.key, .value = wait_status});
}

// ---- dumps
// The socket's file stays where it is: a new srun sees that there is a supervisor, and becomes a stub that waits.
void StepService::hold() {
    if (std::exchange(held_, true)) return;
    listener_.reset();
    std::vector<int> sockets;
    for (const auto& [socket, connection] : connections_) sockets.push_back(socket);
    for (const int socket : sockets) send(socket, {.kind = Kind::let_go});
}

bool StepService::quiet() const { return held_ && connections_.empty(); }

void StepService::go_on() {
    if (!std::exchange(held_, false)) return;
    for (auto& [key, step] : steps_) grant(step);
    if (serving_) (void)open();
}

RunState StepService::state() const {
    RunState state;
    state.next_key = next_key_;
    for (const auto& [key, step] : steps_)
        if (!step.abandoned) state.steps.push_back(step);
    return state;
}

}  // namespace sckpt
