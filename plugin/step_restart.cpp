// SPDX-License-Identifier: GPL-3.0-or-later
#include "plugin/step_restart.h"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "rpc/srun.h"

namespace sckpt::plugin {

namespace {

constexpr std::int64_t kPatienceMs = 30'000;
constexpr std::size_t kMostAnswer = 200;

std::int64_t now_ms() {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1'000'000;
}

// The child's signals are as in a program that was started from a shell: srun blocks most of them.
pid_t start(const std::string& command, const std::vector<std::string>& words, int output) {
    std::vector<char*> argv{const_cast<char*>(command.c_str())};
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    ::posix_spawn_file_actions_init(&files);
    ::posix_spawnattr_init(&attributes);
    ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
    sigset_t none;
    ::sigemptyset(&none);
    ::posix_spawnattr_setsigmask(&attributes, &none);
    ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    pid_t pid = -1;
    const int error = ::posix_spawn(&pid, command.c_str(), &files, &attributes, argv.data(), environ);
    ::posix_spawn_file_actions_destroy(&files);
    ::posix_spawnattr_destroy(&attributes);
    errno = error;
    return error == 0 ? pid : -1;
}

// Until its end of file, which is the program's end; nothing when it takes too long.
std::optional<std::string> read_answer(int fd) {
    std::string answer;
    const std::int64_t begin = now_ms();
    for (;;) {
        const std::int64_t left = kPatienceMs - (now_ms() - begin);
        pollfd item{fd, POLLIN, 0};
        const int ready = left > 0 ? ::poll(&item, 1, static_cast<int>(left)) : 0;
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) return std::nullopt;
        char piece[kMostAnswer];
        const ssize_t got = ::read(fd, piece, sizeof piece);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return answer;
        if (answer.size() < kMostAnswer) answer.append(piece, static_cast<std::size_t>(got));
    }
}

}  // namespace

Result<StepCheckpoint> find_step(const std::string& command, const StepCheckpoint& wanted, std::uint32_t tasks) {
    int ends[2] = {-1, -1};
    if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("make a pipe");
    const UniqueFd answer_end(ends[0]);
    UniqueFd child_end(ends[1]);
    const pid_t child = start(command, {"find-step", to_string(wanted), "--tasks", std::to_string(tasks)}, child_end.get());
    if (child < 0) return fail_errno("run " + command + " (install sckpt here, or correct command= in plugstack.conf)");
    child_end.reset();
    const std::optional<std::string> answer = read_answer(answer_end.get());
    if (!answer) ::kill(child, SIGKILL);
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (!answer) return fail(Errc::timeout, "sckptctld was asked, and did not answer in time");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return fail(Errc::not_found, "nothing was started");
    const auto found = parse_step_checkpoint(std::string_view(*answer).substr(0, answer->find(':')));
    if (!found || found->number == 0) return fail(Errc::internal, command + " has answered something else than a checkpoint");
    return *found;
}

void announce_origin(const StepCheckpoint& found) { ::setenv(srun::kOriginVariable, to_string(found).c_str(), 1); }

std::optional<StepCheckpoint> announced_origin(const std::string& announced) {
    const auto origin = parse_step_checkpoint(announced);
    return origin && origin->number != 0 ? origin : std::nullopt;
}

std::string judge_restart(int components) {
    if (components > 1) return "--ckpt-restart is for a step of one component: start all of its tasks by one, with --ntasks";
    return "";
}

}  // namespace sckpt::plugin
