// SPDX-License-Identifier: GPL-3.0-or-later
//
// What works on this node: found by dumping and restoring a small process, not from version numbers.
#include <array>
#include <csignal>
#include <format>
#include <sstream>

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/criu/driver.h"
#include "common/fd.h"
#include "common/process.h"

namespace sckpt::criu {

using nlohmann::json;
using namespace std::chrono;

namespace {

constexpr const char* kAdvice = "install CRIU 4.2 or newer (Debian: package criu, from testing or backports)";
constexpr uid_t kNobody = 65534;

// Runs criu with one of its own small commands; what it printed.
Result<std::string> ask_criu(const std::string& criu, std::vector<std::string> arguments) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno("make a pipe");
    const UniqueFd in(ends[0]);
    UniqueFd out(ends[1]);
    arguments.insert(arguments.begin(), criu);
    SCKPT_ASSIGN(ChildProcess child,
                 ChildProcess::spawn(
                     {std::move(arguments), {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}, {{out.get(), 1}, {out.get(), 2}}}));
    out.reset();
    SCKPT_ASSIGN(const ExitStatus end, child.wait(20s));  // its answer is far less than a pipe holds
    std::array<char, 4096> buffer;
    const ssize_t got = ::read(in.get(), buffer.data(), buffer.size());
    const std::string text(buffer.data(), got > 0 ? static_cast<std::size_t>(got) : 0);
    if (!end.ok()) return fail(Errc::unsupported, text.substr(0, text.find('\n')));
    return text;
}

// "Version: 4.2.1\n…"
std::string version_in(const std::string& text) {
    std::istringstream words(text);
    for (std::string word; words >> word;)
        if (word == "Version:" && words >> word) return word;
    return "unknown";
}

// A child of an unprivileged user that waits for ever, as supervisor and as tree.
Result<pid_t> start_waiting_process() {
    return start_child([](UniqueFd& answer) -> Result<> {
        if (::setsid() < 0) return fail_errno("setsid");
        SCKPT_TRY(become_user({kNobody, kNobody, {}}));
        const int last = answer.get();
        answer.reset();
        if (::close_range(3, static_cast<unsigned>(last) + 64, 0) != 0) return fail_errno("close descriptors");
        for (;;) ::pause();
    });
}

struct Child {
    pid_t pid;
    explicit Child(pid_t child) : pid(child) {}
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    ~Child() { end(); }
    void end() {
        if (pid > 0) kill_and_reap(std::exchange(pid, -1));
    }
};

// Our end; the other one is where the restored tree's init looks for it.
Result<UniqueFd> make_status_socket() {
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) return fail_errno("make a socket pair");
    UniqueFd first(ends[0]), second(ends[1]);
    UniqueFd ours(::fcntl(first.get(), F_DUPFD_CLOEXEC, kStreamFds + 3));
    const UniqueFd theirs(::fcntl(second.get(), F_DUPFD_CLOEXEC, kStreamFds + 3));
    first.reset();  // one of them may have that very number
    second.reset();
    if (!ours || !theirs || ::dup3(theirs.get(), kStatusFd, O_CLOEXEC) < 0) return fail_errno("place descriptors");
    return ours;
}

// Dumps and restores a process; leaves nothing behind but the files in `directory`.
Result<milliseconds> try_it(const std::string& criu, const std::string& cache, const std::string& directory) {
    const auto start = steady_clock::now();
    SCKPT_ASSIGN(const pid_t supervisor_pid, start_waiting_process());
    const Child supervisor(supervisor_pid);
    SCKPT_ASSIGN(const pid_t root, start_waiting_process());
    Child tree(root);
    const Tree what{.criu = criu,
                    .cache = cache,
                    .directory = directory,
                    .supervisor = supervisor_pid,
                    .uid = kNobody,
                    .deadline = start + 15s,
                    .root = root,
                    .siblings = {},
                    .helpers = {}};
    SCKPT_TRY(dump_unchecked(what));
    tree.end();
    SCKPT_ASSIGN(const UniqueFd ours, make_status_socket());
    SCKPT_ASSIGN(const ImageRecord record, read_record(directory));
    SCKPT_ASSIGN(const pid_t init, restore_tree(what, record));
    const Child namespace_init(init);
    SCKPT_ASSIGN(const Received message, receive_message(ours.get(), 1000));
    if (message.fds.size() != 1) return fail(Errc::internal, "the restored process was not announced");
    return ceil<milliseconds>(steady_clock::now() - start);
}

}  // namespace

Result<json> probe(const std::string& criu, const std::string& cache) {
    json answer = {{"usable", false}, {"version", ""}, {"reason", ""}, {"notes", json::array()}};
    const auto version = ask_criu(criu, {"--version"});
    if (!version) {
        answer["reason"] =
            std::format("{} cannot be run ({}); {}, or name it in sckpt.yaml (node.criu)", criu, version.error().text, kAdvice);
        return answer;
    }
    answer["version"] = version_in(*version);
    const std::string place = cache + "/probe." + std::to_string(::getpid());
    SCKPT_TRY(make_directories(place, 0700));
    const auto took = try_it(criu, cache, place);
    const auto removed = remove_tree(place);
    if (!took) {
        answer["reason"] =
            std::format("a test process could not be dumped and restored with CRIU {} on this kernel: {}; if CRIU is old, {}",
                        version_in(*version), took.error().text, kAdvice);
        return answer;
    }
    SCKPT_TRY(removed);
    answer["usable"] = true;
    answer["notes"] = {may_read_foreign_limits() ? "dumps run as root"
                                                 : "dumps run as the job's user with some capabilities: root lacks CAP_SYS_RESOURCE here",
                       ask_criu(criu, {"check", "--feature", "mem_dirty_track"})
                           ? "the kernel can track changed memory"
                           : "the kernel cannot track changed memory: every dump is a full one",
                       std::format("a test process was dumped and restored in {} ms", took->count())};
    return answer;
}

}  // namespace sckpt::criu
