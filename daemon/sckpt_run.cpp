// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-run: the task as Slurm sees it. It asks sckptd whether to start the program or to wait for its restored process tree, passes
// signals on, and ends exactly as the program ends. Whatever sckptd does (hang, die, come back), a running program does not notice.
#include "daemon/sckpt_run_exec.h"
#include "daemon/sckpt_run_link.h"
#include "daemon/sckpt_run_options.h"
#include "daemon/sckpt_run_signals.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

namespace sckpt {

namespace {

constexpr std::int64_t kFirstStartWaitMs = 2'000;  // for sckptd's answer, before the job runs unprotected
constexpr std::int64_t kRestartWaitMs = 60'000;    // for a connection, before a restarted job is given back
constexpr std::int64_t kAskAgainMs = 50;
constexpr std::int64_t kMinBackoffMs = 1'000, kMaxBackoffMs = 5'000;
constexpr int kStderrWaitMs = 2'000;
constexpr std::int64_t kStableMs = 5'000;  // a connection that lasted this long was a good one
constexpr std::int64_t kNever = INT64_MAX;

std::int64_t now_ms() {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1'000'000;
}

// A line on the job's standard error. When nobody reads there, the line is lost: signals have to be passed on meanwhile.
void say(const std::string& text) {
    const std::string line = ("sckpt: " + text).substr(0, local::kTextSize) + "\n";
    pollfd writable{STDERR_FILENO, POLLOUT, 0};
    if (::poll(&writable, 1, kStderrWaitMs) == 1) (void)!::write(STDERR_FILENO, line.data(), line.size());
}

class Supervisor {
   public:
    Supervisor(const RunOptions& options, SignalSet entry_mask) : options_(options), entry_mask_(entry_mask), link_(options) {}
    [[noreturn]] void run();

   private:
    enum class Phase { asking, restoring, running };

    void connect();
    void lost_link();
    void on_deadline();
    void on_messages();
    void on_message(const local::Message& message);
    void on_status();
    void on_signals();
    void launch();
    void adopt(UniqueFd pidfd);
    void payload_runs();
    void wait_for_events();
    void reap();
    [[noreturn]] void end(int wait_status);
    [[noreturn]] void refuse(const std::string& text);
    bool first_start() const { return options_.restart_count == 0; }
    bool overdue_at(std::int64_t time) const { return phase_ == Phase::asking && (answer_due_ || !link_.connected()) && time >= deadline_; }

    const RunOptions& options_;
    const SignalSet entry_mask_;
    NodeLink link_;
    SignalSource signals_;
    Phase phase_ = Phase::asking;
    bool restored_ = false;  // the payload is a restored tree, not our child
    pid_t pid_ = -1;
    UniqueFd pidfd_;             // of the payload
    UniqueFd status_;            // from the restored tree's init
    bool answer_due_ = false;    // the deadline holds for an answer too, not just for a connection
    std::int64_t deadline_ = 0;  // of the asking
    std::int64_t connected_at_ = 0;
    std::int64_t next_try_ = 0;  // of a connection
    std::int64_t backoff_ = kMinBackoffMs;
};

void Supervisor::run() {
    answer_due_ = first_start();  // a restart may wait for sckptctld, and sckptd has limits of its own for that
    deadline_ = now_ms() + (first_start() ? kFirstStartWaitMs : kRestartWaitMs);
    if (!signals_.open()) refuse(std::string("cannot read signals: ") + std::strerror(errno));
    for (;;) {
        if (!link_.connected() && now_ms() >= next_try_) connect();
        if (overdue_at(now_ms())) on_deadline();
        wait_for_events();
        reap();
    }
}

void Supervisor::wait_for_events() {
    std::int64_t wake = link_.connected() ? kNever : next_try_;
    if (overdue_at(kNever)) wake = std::min(wake, deadline_);
    const std::int64_t timeout = wake == kNever ? -1 : std::max<std::int64_t>(0, wake - now_ms());
    pollfd ready[] = {{signals_.fd(), POLLIN, 0}, {link_.fd(), POLLIN, 0}, {status_.get(), POLLIN, 0}};  // poll(2) skips -1
    if (::poll(ready, std::size(ready), static_cast<int>(timeout)) <= 0) return;
    if (ready[0].revents) on_signals();
    if (ready[1].revents || ready[2].revents) on_messages();  // sckptd speaks first, then the restore that it has begun
    if (ready[2].revents && status_) on_status();
}

// The end of a program that we started; SIGCHLD has ended the wait.
void Supervisor::reap() {
    int wait_status = 0;
    if (phase_ == Phase::running && !restored_ && ::waitpid(pid_, &wait_status, WNOHANG) == pid_) end(wait_status);
}

// Asks, or tells that the program runs already. Each question comes with a status socket of its own, unless a restore that an
// earlier sckptd began is still under way or done.
void Supervisor::connect() {
    const bool ask = phase_ == Phase::asking;
    int ends[2] = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) return lost_link();
    UniqueFd ours(ends[0]);
    const UniqueFd theirs(ends[1]);
    if (!link_.open(!ask, theirs.get())) return lost_link();
    connected_at_ = now_ms();
    if (ask) {
        status_ = std::move(ours);
    } else {
        link_.started(pid_, pidfd_.get());
        backoff_ = kMinBackoffMs;
    }
}

void Supervisor::lost_link() {
    const bool ask = phase_ == Phase::asking;
    next_try_ = now_ms() + (ask ? kAskAgainMs : backoff_);
    if (!ask) backoff_ = std::min(backoff_ * 2, kMaxBackoffMs);
    if (ask && !first_start() && now_ms() - connected_at_ > kStableMs && connected_at_ > 0) deadline_ = now_ms() + kRestartWaitMs;
    // A script may start hundreds of steps, and it was its own start that waited for sckptd.
    if (ask && first_start() && options_.step_id != local::kBatchStep && link_.socket_missing()) deadline_ = now_ms();
    if (phase_ == Phase::restoring) next_try_ = kNever;  // the init of the restored tree still holds the status socket: its word counts
}

void Supervisor::on_deadline() {
    const std::string why = link_.connected() ? "it did not answer" : link_.why_not();
    if (!first_start())
        refuse("the job was restarted, but this node has no sckptd to resume it (" + why +
               "). It is not started from the beginning; start sckptd and requeue the job");
    say("this node has no sckptd (" + why + "): job runs without checkpoints");
    link_.close(why);
    status_.reset();
    next_try_ = now_ms() + backoff_;
    launch();
}

void Supervisor::on_messages() {
    while (link_.connected()) {
        const std::optional<local::Message> message = link_.receive();
        if (message) on_message(*message);
        else if (link_.connected()) return;  // no more for now
        else lost_link();
    }
}

void Supervisor::on_message(const local::Message& message) {
    switch (message.kind) {
        case local::Kind::launch:
            if (phase_ == Phase::asking) launch();
            break;
        case local::Kind::restoring:
            if (phase_ == Phase::asking) phase_ = Phase::restoring;
            break;
        case local::Kind::refused:
            if (phase_ != Phase::running) refuse(message.text);
            say(message.text);
            link_.close("it refused this job");
            next_try_ = kNever;
            break;
        case local::Kind::note: say(message.text); break;
        default: break;
    }
}

void Supervisor::on_status() {
    RestoreEvent event = read_restore_event(status_.get());
    switch (event.what) {
        case RestoreEvent::What::nothing: break;
        case RestoreEvent::What::restored: adopt(std::move(event.pidfd)); break;
        case RestoreEvent::What::exited: end(event.wait_status);
        case RestoreEvent::What::closed:
            if (restored_) end(SIGKILL);  // the init of its namespace was killed, and the whole tree with it
            status_.reset();
            if (phase_ != Phase::restoring) break;
            phase_ = Phase::asking;  // the restore was given up: sckptd says why, or it is gone and will be asked again
            answer_due_ = true;
            deadline_ = now_ms() + kRestartWaitMs;
            next_try_ = now_ms();
            break;
    }
}

void Supervisor::on_signals() {
    for (const SentSignal& signal : signals_.take()) {
        if (phase_ == Phase::running) pass_on(signal, {pid_, restored_ ? pidfd_.get() : -1});
        else if (is_deadly(signal.number) && !(entry_mask_ & signal_bit(signal.number))) end(signal.number);
    }
}

void Supervisor::launch() {
    struct sigaction child_action{}, wait_for_it{};
    wait_for_it.sa_handler = SIG_DFL;
    ::sigaction(SIGCHLD, &wait_for_it, &child_action);  // were it ignored, the kernel would reap the program for us
    signals_.watch_group();
    int session_made[2] = {-1, -1};
    (void)!::pipe2(session_made, O_CLOEXEC);  // sckptd refuses a program that does not lead its session yet
    pid_ = ::fork();
    if (pid_ < 0) {
        say(std::string("cannot fork (") + std::strerror(errno) + "): job runs without checkpoints");
        signals_.close();
    }
    if (pid_ <= 0) {
        if (pid_ == 0) ::setsid();  // a checkpoint is of a whole session
        for (const int end : session_made) ::close(end);
        // Slurm names the task's process here, and the task is now this one.
        if (std::getenv("SLURM_TASK_PID")) ::setenv("SLURM_TASK_PID", std::to_string(::getpid()).c_str(), 1);
        ::sigaction(SIGCHLD, &child_action, nullptr);
        set_blocked_signals(entry_mask_);
        exec_program(options_.program);
    }
    char none = 0;
    ::close(session_made[1]);
    (void)!::read(session_made[0], &none, 1);  // ends when the child has closed its end
    ::close(session_made[0]);
    status_.reset();
    pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    payload_runs();
}

void Supervisor::adopt(UniqueFd pidfd) {
    signals_.watch_group();
    pidfd_ = std::move(pidfd);
    pid_ = pid_of(pidfd_.get());
    restored_ = true;
    if (pid_ > 0) payload_runs();
}

void Supervisor::payload_runs() {
    phase_ = Phase::running;
    deadline_ = kNever;
    if (link_.connected()) link_.started(pid_, pidfd_.get());
    if (!link_.connected()) next_try_ = now_ms() + backoff_;
}

void Supervisor::end(int wait_status) {
    signals_.close();
    end_like(wait_status);
}

void Supervisor::refuse(const std::string& text) {
    say(text);
    end(local::kRefusedExitCode << 8);
}

int supervise(int argc, char** argv) {
    const Result<RunOptions> options = parse_run_options(argc, argv);
    if (!options) {
        say("sckpt-run: " + options.error().text);
        return 1;
    }
    if (::isatty(STDIN_FILENO)) exec_program(options->program);  // a terminal belongs to one session, and it is Slurm's
    Supervisor(*options, set_blocked_signals(~SignalSet{0})).run();
}

}  // namespace

}  // namespace sckpt

int main(int argc, char** argv) { return sckpt::supervise(argc, argv); }
