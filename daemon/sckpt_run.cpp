// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-run: the task as Slurm sees it. It asks sckptd whether to start the program or to wait for its restored process tree, passes
// signals on, and ends exactly as the program ends. Whatever sckptd does (hang, die, come back), a running program does not notice.
#include "daemon/sckpt_run_exec.h"
#include "daemon/sckpt_run_link.h"
#include "daemon/sckpt_run_options.h"
#include "daemon/sckpt_run_signals.h"
#include "daemon/sckpt_run_stdin.h"
#include "daemon/sckpt_run_steps.h"
#include "daemon/srun_launch.h"

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
constexpr std::int64_t kListenAgainMs = 1'000;
constexpr std::int64_t kQuietWaitMs = 2'000;    // for the stubs, before a dump begins that they will make fail
constexpr std::int64_t kHoldLimitMs = 600'000;  // sckptd hangs, and the script shall have its sruns
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
    Supervisor(const RunOptions& options, SignalSet entry_mask)
        : options_(options), entry_mask_(entry_mask), link_(options), steps_(options) {}
    [[noreturn]] void run();

   private:
    enum class Phase { asking, restoring, running };
    enum class Hold { none, begun, answered };

    void connect();
    void lost_link();
    void on_deadline();
    void on_messages();
    void on_order(NodeOrder order);
    void on_restoring(const NodeOrder& order);
    void on_status();
    void on_signals();
    void launch();
    [[noreturn]] void become_payload();
    void adopt(UniqueFd pidfd);
    void payload_runs();
    void hold();
    void follow_hold();
    void go_on();
    void wait_for_events();
    void reap();
    [[noreturn]] void payload_ended(int wait_status);
    [[noreturn]] void end(int wait_status);
    [[noreturn]] void refuse(const std::string& text);
    bool first_start() const { return options_.first_start(); }
    bool listening_due() const { return hold_ == Hold::none && steps_.serving() && !steps_.listening(); }  // it failed, and stubs wait
    bool overdue_at(std::int64_t time) const { return phase_ == Phase::asking && (answer_due_ || !link_.connected()) && time >= deadline_; }

    const RunOptions& options_;
    const SignalSet entry_mask_;
    NodeLink link_;
    SignalSource signals_;
    StepService steps_;                 // of the batch script
    InputRelay input_;                  // of a step's task
    std::uint64_t consumed_ = 0;        // of the input, by the restored payload
    struct sigaction child_action_ {};  // for SIGCHLD, as we were started
    Phase phase_ = Phase::asking;
    Hold hold_ = Hold::none;
    std::int64_t hold_deadline_ = 0;
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
    struct sigaction wait_for_it {};
    wait_for_it.sa_handler = SIG_DFL;
    ::sigaction(SIGCHLD, &wait_for_it, &child_action_);  // were it ignored, the kernel would reap our children for us
    if (!options_.is_batch() && !input_.open()) refuse(std::string("cannot relay standard input: ") + std::strerror(errno));
    for (;;) {
        if (!link_.connected() && now_ms() >= next_try_) connect();
        if (overdue_at(now_ms())) on_deadline();
        wait_for_events();
        reap();
        follow_hold();
        if (listening_due()) (void)steps_.open();
    }
}

void Supervisor::wait_for_events() {
    std::int64_t wake = link_.connected() ? kNever : next_try_;
    if (overdue_at(kNever)) wake = std::min(wake, deadline_);
    if (hold_ != Hold::none) wake = std::min(wake, hold_deadline_);
    if (listening_due()) wake = std::min(wake, now_ms() + kListenAgainMs);
    const std::int64_t timeout = wake == kNever ? -1 : std::max<std::int64_t>(0, wake - now_ms());
    pollfd ready[] = {{signals_.fd(), POLLIN, 0}, {link_.fd(), POLLIN, 0},     {status_.get(), POLLIN, 0},
                      {steps_.fd(), POLLIN, 0},   {input_.input(), POLLIN, 0}, {input_.output(), POLLOUT, 0}};  // poll(2) skips -1
    if (::poll(ready, std::size(ready), static_cast<int>(timeout)) <= 0) return;
    if (ready[0].revents) on_signals();
    if (ready[1].revents || ready[2].revents) on_messages();  // sckptd speaks first, then the restore that it has begun
    if (ready[2].revents && status_) on_status();
    if (ready[3].revents) steps_.serve();
    if (ready[4].revents && input_.input() >= 0) input_.serve_input();
    if (ready[5].revents && input_.output() >= 0) input_.serve_output();
}

// The end of what we started; SIGCHLD has ended the wait.
void Supervisor::reap() {
    int wait_status = 0;
    if (phase_ == Phase::running && !restored_ && ::waitpid(pid_, &wait_status, WNOHANG) == pid_) payload_ended(wait_status);
    steps_.reap();
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
    go_on();
    const bool ask = phase_ == Phase::asking;
    next_try_ = now_ms() + (ask ? kAskAgainMs : backoff_);
    if (!ask) backoff_ = std::min(backoff_ * 2, kMaxBackoffMs);
    if (ask && !first_start() && now_ms() - connected_at_ > kStableMs && connected_at_ > 0) deadline_ = now_ms() + kRestartWaitMs;
    // A script may start hundreds of steps, and it was its own start that waited for sckptd.
    if (ask && first_start() && !options_.is_batch() && link_.socket_missing()) deadline_ = now_ms();
    if (phase_ == Phase::restoring) next_try_ = kNever;  // the init of the restored tree still holds the status socket: its word counts
}

void Supervisor::on_deadline() {
    const std::string why = link_.connected() ? "it did not answer" : link_.why_not();
    if (options_.origin_job != 0)
        refuse("this node has no sckptd to restore the task (" + why + "): start sckptd, or have srun use another node");
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
        std::optional<NodeOrder> order = link_.receive();
        if (order) on_order(std::move(*order));
        else if (link_.connected()) return;  // no more for now
        else lost_link();
    }
}

void Supervisor::on_order(NodeOrder order) {
    const bool asking = phase_ == Phase::asking;
    switch (order.message.kind) {
        case local::Kind::launch:
            if (asking) launch();
            break;
        case local::Kind::restoring:
            if (asking) on_restoring(order);
            break;
        case local::Kind::finish:
            if (asking) end(order.message.wait_status);
            break;
        case local::Kind::refused:
            if (phase_ != Phase::running) refuse(order.message.text);
            say(order.message.text);
            link_.close("it refused this job");
            next_try_ = kNever;
            break;
        case local::Kind::note: say(order.message.text); break;
        case local::Kind::hold:
            if (phase_ == Phase::running) hold();
            break;
        case local::Kind::go_on: go_on(); break;
        default: break;
    }
}

// The stubs of a restored script ask at once, so what they will be answered has to be known before.
void Supervisor::on_restoring(const NodeOrder& order) {
    phase_ = Phase::restoring;
    const Result<std::string> text = order.state ? read_all(order.state.get(), "the state of sckpt-run", kMaxRunState) : std::string();
    const Result<RunState> state = text ? parse_run_state(*text) : std::unexpected(text.error());
    if (!state) refuse(state.error().text);
    consumed_ = state->stdin_consumed;
    if (!options_.is_batch()) return;
    steps_.resume(*state, order.message.resume_from);
    if (!steps_.open() && !state->steps.empty()) refuse("cannot serve the script's srun at " + steps_.path() + ": " + std::strerror(errno));
}

void Supervisor::on_status() {
    RestoreEvent event = read_restore_event(status_.get());
    switch (event.what) {
        case RestoreEvent::What::nothing: break;
        case RestoreEvent::What::restored: adopt(std::move(event.pidfd)); break;
        case RestoreEvent::What::exited: payload_ended(event.wait_status);
        case RestoreEvent::What::closed:
            if (restored_) payload_ended(SIGKILL);  // the init of its namespace was killed, and the whole tree with it
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
    signals_.watch_group();
    if (options_.is_batch()) {
        steps_.resume({}, 0);
        (void)steps_.open();  // without it the script's sruns run as they are
    }
    int session_made[2] = {-1, -1};
    (void)!::pipe2(session_made, O_CLOEXEC);  // sckptd refuses a program that does not lead its session yet
    pid_ = ::fork();
    if (pid_ < 0) {
        say(std::string("cannot fork (") + std::strerror(errno) + "): job runs without checkpoints");
        signals_.close();
        steps_.close();
        input_.undo();
    }
    if (pid_ <= 0) {
        if (pid_ == 0) ::setsid();  // a checkpoint is of a whole session
        for (const int end : session_made) ::close(end);
        become_payload();
    }
    char none = 0;
    ::close(session_made[1]);
    (void)!::read(session_made[0], &none, 1);  // ends when the child has closed its end
    ::close(session_made[0]);
    status_.reset();
    pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
    input_.start(0);
    payload_runs();
}

void Supervisor::become_payload() {
    // Slurm names the task's process here, and the task is now this one.
    if (std::getenv("SLURM_TASK_PID")) ::setenv("SLURM_TASK_PID", std::to_string(::getpid()).c_str(), 1);
    if (steps_.serving()) ::setenv(srun::kSupervisorVariable, steps_.path().c_str(), 1);
    else ::unsetenv(srun::kSupervisorVariable);  // of the job that has submitted this one
    ::sigaction(SIGCHLD, &child_action_, nullptr);
    set_blocked_signals(entry_mask_);
    exec_program(options_.program);
}

void Supervisor::adopt(UniqueFd pidfd) {
    signals_.watch_group();
    pidfd_ = std::move(pidfd);
    pid_ = pid_of(pidfd_.get());
    restored_ = true;
    input_.start(consumed_);
    if (pid_ > 0) payload_runs();
}

void Supervisor::payload_runs() {
    phase_ = Phase::running;
    deadline_ = kNever;
    if (link_.connected()) link_.started(pid_, pidfd_.get());
    if (!link_.connected()) next_try_ = now_ms() + backoff_;
}

// ---- dumps
void Supervisor::hold() {
    steps_.hold();
    input_.hold();
    hold_ = Hold::begun;
    hold_deadline_ = now_ms() + kQuietWaitMs;
}

void Supervisor::follow_hold() {
    if (hold_ == Hold::begun && (steps_.quiet() || now_ms() >= hold_deadline_)) {
        RunState state = steps_.state();
        state.stdin_consumed = input_.consumed();
        const Result<UniqueFd> file = memory_file(kRunStateName, to_text(state));
        hold_ = Hold::answered;
        hold_deadline_ = now_ms() + kHoldLimitMs;
        if (file) link_.held(file->get());
        else link_.close(file.error().text);
        if (!link_.connected()) lost_link();
    } else if (hold_ == Hold::answered && now_ms() >= hold_deadline_) {
        link_.close("it never said that its dump was made");
        lost_link();
    }
}

void Supervisor::go_on() {
    if (std::exchange(hold_, Hold::none) == Hold::none) return;
    steps_.go_on();
    input_.go_on();
}

void Supervisor::payload_ended(int wait_status) {
    link_.ended(wait_status);
    end(wait_status);
}

void Supervisor::end(int wait_status) {
    steps_.close();
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
    const bool terminal = ::isatty(STDIN_FILENO);  // it belongs to one session, and that is Slurm's
    if (terminal && !options->first_start()) {
        say("a task that has a terminal (srun --pty) cannot be restored: give it none");
        return local::kRefusedExitCode;
    }
    if (terminal) exec_program(options->program);
    Supervisor(*options, set_blocked_signals(~SignalSet{0})).run();
}

}  // namespace

}  // namespace sckpt

int main(int argc, char** argv) { return sckpt::supervise(argc, argv); }
