// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-srun SRUN ARGV0 [ARGUMENT...]: the stub. The plug-in executes it from within srun, in srun's place. It has the script's sckpt-run
// start the real one, outside of the script's tree, with all that this process was given, passes signals and standard input on to it, and
// ends as it ends. It is part of the tree that is dumped, so it is small, and while it holds no connection it may be dumped at any moment.
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/sckpt_run_signals.h"
#include "daemon/sckpt_srun_input.h"
#include "daemon/seqpacket.h"
#include "daemon/srun_launch.h"
#include "rpc/srun.h"

namespace sckpt {

namespace {

constexpr int kAskAgainMs = 20;
using srun::Kind;

// srun has blocked these before it loaded the plug-in, whatever mask it was started with, and unblocks them when it waits for them: to the
// real one it is all the same.
SignalSet blocked_by_srun() {
    SignalSet set = 0;
    for (const int signal : {SIGINT, SIGQUIT, SIGCONT, SIGTERM, SIGHUP, SIGALRM, SIGUSR1, SIGUSR2, SIGPIPE, SIGWINCH})
        set |= signal_bit(signal);
    return set;
}

[[noreturn]] void give_up(const std::string& why) {
    ::dprintf(STDERR_FILENO, "srun: error: sckpt %s\n", why.c_str());
    ::_exit(1);
}

// What whoever started srun has left open for it.
std::vector<int> inherited_descriptors() {
    constexpr std::size_t kMost = kMaxPassedFds - srun::kRunFds;
    std::vector<int> numbers;
    const std::unique_ptr<DIR, int (*)(DIR*)> listing(::opendir("/proc/self/fd"), ::closedir);
    for (const dirent* entry = nullptr; listing && numbers.size() < kMost && (entry = ::readdir(listing.get()));) {
        const int number = std::atoi(entry->d_name);  // 0 for "." and ".."
        if (number > STDERR_FILENO && number != ::dirfd(listing.get())) numbers.push_back(number);
    }
    return numbers;
}

// Else what is opened next would be taken for them.
void fill_standard_descriptors() {
    for (int number = 0; number <= STDERR_FILENO; ++number)
        if (::fcntl(number, F_GETFD) < 0) (void)!::open("/dev/null", O_RDWR);  // the lowest free number: this one
}

class Stub {
   public:
    Stub(const char* supervisor, char** command);
    [[noreturn]] void run();

   private:
    void connect();
    bool ask();
    bool cannot(const std::string& what) const;
    void wait_for_events();
    void on_messages();
    void on_message(const srun::Message& message);
    void on_signals();
    void serve_input();
    void send(Kind kind, std::int32_t value);
    std::string launch() const;

    const std::string supervisor_;
    char** const command_;  // srun's path, then its argument vector
    const std::vector<int> inherited_;
    const SignalSet ignored_, blocked_;
    StubInput input_;
    SignalSource signals_;
    UniqueFd socket_;
    std::uint32_t key_ = srun::kNewStep;
    bool told_unreplayable_ = false;
};

// Signals are passed on whatever this process would do with them: the real srun has been given the dispositions and the mask.
Stub::Stub(const char* supervisor, char** command)
    : supervisor_(supervisor),
      command_(command),
      inherited_(inherited_descriptors()),
      ignored_(ignored_signals(::getpid())),
      blocked_(set_blocked_signals(~SignalSet{0}) & ~blocked_by_srun()) {
    for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
    if (!signals_.open()) give_up(std::string("cannot read signals: ") + std::strerror(errno));
}

// Without a supervisor there is nothing but to wait: it is making a dump, or this tree has just been restored and it is about to listen.
void Stub::run() {
    for (;; ::poll(nullptr, 0, kAskAgainMs)) {
        connect();
        while (socket_) wait_for_events();
    }
}

void Stub::connect() {
    socket_ = connect_seqpacket(supervisor_);
    if (!socket_) return;
    ucred peer{};
    socklen_t size = sizeof peer;
    const bool trusted = ::getsockopt(socket_.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == ::getuid();
    if (!trusted || !ask()) socket_.reset();
}

bool Stub::ask() {
    const UniqueFd directory(::open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!directory) return cannot(std::string("open the working directory: ") + std::strerror(errno));
    const Result<UniqueFd> file = memory_file("srun", launch());
    if (!file) return cannot(file.error().text);
    const int input = input_.offer();
    if (input < 0) return cannot(std::string("make a pipe for standard input: ") + std::strerror(errno));
    std::vector<int> fds{input, STDOUT_FILENO, STDERR_FILENO, directory.get(), file->get()};
    fds.insert(fds.end(), inherited_.begin(), inherited_.end());
    const srun::Message message{.kind = Kind::run, .key = key_};
    return send_packet(socket_.get(), &message, sizeof message, fds.data(), fds.size());
}

// An srun that runs already is not given up for a moment without memory or descriptors.
bool Stub::cannot(const std::string& what) const {
    if (key_ == srun::kNewStep) give_up("cannot " + what);
    return false;
}

std::string Stub::launch() const {
    SrunLaunch launch;
    launch.program = command_[0];
    if (char* name = ::getcwd(nullptr, 0)) {
        if (*name == '/') launch.directory = name;
        std::free(name);
    }
    for (char** argument = command_ + 1; *argument; ++argument) launch.argv.emplace_back(*argument);
    for (char** variable = environ; *variable; ++variable) launch.environment.emplace_back(*variable);
    launch.descriptors = inherited_;
    launch.file_mask = ::umask(0);
    ::umask(launch.file_mask);
    launch.nice = ::getpriority(PRIO_PROCESS, 0);
    launch.ignored = ignored_;
    launch.blocked = blocked_;
    launch.limits.resize(RLIMIT_NLIMITS);
    for (std::size_t i = 0; i < launch.limits.size(); ++i) ::getrlimit(static_cast<__rlimit_resource>(i), &launch.limits[i]);
    return to_bytes(launch);
}

// Signals are left where they are until it is known whose they are: they are the kernel's to keep, also in an image.
void Stub::wait_for_events() {
    const bool accepted = key_ != srun::kNewStep;
    std::array<pollfd, 4> ready{{{socket_.get(), POLLIN, 0},
                                 {accepted ? signals_.fd() : -1, POLLIN, 0},
                                 {input_.input(), POLLIN, 0},
                                 {input_.output(), POLLOUT, 0}}};
    if (::poll(ready.data(), ready.size(), -1) <= 0) return;
    if (ready[0].revents) on_messages();
    if (ready[1].revents && socket_) on_signals();
    if (ready[2].revents && socket_ && input_.input() >= 0) serve_input();
    if (ready[3].revents && socket_ && input_.output() >= 0) input_.serve_output();
}

void Stub::on_messages() {
    while (socket_) {
        srun::Message message;
        const ssize_t got = receive_packet(socket_.get(), &message, sizeof message);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
        if (got != sizeof message || message.magic != srun::kMagic || message.version != srun::kVersion) return socket_.reset();
        on_message(message);
    }
}

void Stub::on_message(const srun::Message& message) {
    switch (message.kind) {
        case Kind::accepted:
            key_ = message.key;
            input_.settle(message.fresh != 0);
            break;
        case Kind::feed: input_.feed(); break;
        case Kind::let_go: socket_.reset(); break;
        case Kind::exited: end_like(message.value);
        default: break;
    }
}

// What stops a process stops this one too, as whoever waits for it expects. SIGSTOP: the orphaned group of a batch script would not
// stop by SIGTSTP itself.
void Stub::on_signals() {
    for (const SentSignal& signal : signals_.take()) {
        send(Kind::signal, signal.number);
        if (signal.number == SIGTSTP || signal.number == SIGTTIN || signal.number == SIGTTOU) ::kill(::getpid(), SIGSTOP);
    }
}

void Stub::serve_input() {
    input_.serve_input();
    if (input_.replayable() || told_unreplayable_) return;
    send(Kind::unreplayable, 0);
    told_unreplayable_ = true;
}

void Stub::send(Kind kind, std::int32_t value) {
    const srun::Message message{.kind = kind, .key = key_, .value = value};
    if (socket_ && !send_packet(socket_.get(), &message, sizeof message)) socket_.reset();
}

}  // namespace

}  // namespace sckpt

int main(int argc, char** argv) {
    const char* supervisor = std::getenv(sckpt::srun::kSupervisorVariable);
    if (argc < 3 || !supervisor) {
        ::dprintf(STDERR_FILENO, "sckpt-srun: it is started by srun within a batch job with --ckpt, and not by hand\n");
        return 1;
    }
    sckpt::fill_standard_descriptors();
    sckpt::Stub(supervisor, argv + 1).run();
}
