// SPDX-License-Identifier: GPL-3.0-or-later
//
// Children (what they inherit, how their end and their failures are told), and the facts of processes.
#include "common/process.h"

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

#include "common/fd.h"

using namespace sckpt;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

struct Pipe {
    Pipe() {
        int ends[2];
        REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
        in.reset(ends[0]);
        out.reset(ends[1]);
    }
    UniqueFd in, out;
};

// What a program writes to its standard output until it ends.
std::string output_of(SpawnOptions options) {
    Pipe pipe;
    options.descriptors.emplace_back(pipe.out.get(), STDOUT_FILENO);
    auto child = ChildProcess::spawn(options);
    REQUIRE(child.has_value());
    pipe.out.reset();
    const std::string text = read_all(pipe.in.get(), "pipe").value();
    CHECK(child->wait(10s)->ok());
    return text;
}

SpawnOptions shell(const std::string& script) { return {.argv = {"/bin/sh", "-c", script}}; }

// Polls a condition, as a test that waits must.
template <class Condition>
bool eventually(Condition condition) {
    for (const auto end = std::chrono::steady_clock::now() + 10s; std::chrono::steady_clock::now() < end;
         std::this_thread::sleep_for(5ms))
        if (condition()) return true;
    return false;
}

bool exists(pid_t pid) { return ::kill(pid, 0) == 0; }

}  // namespace

TEST_CASE("an end is told as it was") {
    CHECK(ChildProcess::spawn({.argv = {"/bin/true"}})->wait(10s)->ok());
    const auto code = ChildProcess::spawn(shell("exit 7"))->wait(10s);
    CHECK_FALSE(code->ok());
    CHECK(code->text() == "exit code 7");
    const auto killed = ChildProcess::spawn(shell("kill -TERM $$"))->wait(10s);
    CHECK_FALSE(killed->ok());
    CHECK(killed->text() == "killed by SIGTERM (15)");
}

TEST_CASE("the environment is what was given, and nothing else") {
    ::setenv("SCKPT_TEST_SECRET", "1", 1);
    const std::string text = output_of({.argv = {"/usr/bin/env"}, .environment = {"A=1", "B=two words"}});
    ::unsetenv("SCKPT_TEST_SECRET");
    CHECK(text == "A=1\nB=two words\n");
    CHECK(output_of({.argv = {"/usr/bin/env"}}).empty());
}

TEST_CASE("arguments pass through untouched, and the working directory is the one asked for") {
    CHECK(output_of({.argv = {"/usr/bin/printf", "%s|", "a b", "", "$(x)", "*"}}) == "a b||$(x)|*|");
    CHECK(output_of({.argv = {"/bin/pwd"}}) == "/\n");
    CHECK(output_of({.argv = {"/bin/pwd"}, .working_directory = "/usr"}) == "/usr\n");
}

TEST_CASE("only the named descriptors are open; the standard ones are /dev/null otherwise") {
    const UniqueFd inheritable(::open("/dev/zero", O_RDONLY));  // deliberately without O_CLOEXEC
    CHECK(output_of({.argv = {"/bin/ls", "/proc/self/fd"}}) == "0\n1\n2\n3\n");  // 3 is the directory that ls reads
    CHECK(output_of({.argv = {"/bin/readlink", "/proc/self/fd/0", "/proc/self/fd/2"}}) == "/dev/null\n/dev/null\n");
}

TEST_CASE("descriptors go to the numbers asked for, whatever their own are") {
    Pipe a, b;
    // Crossed on purpose: each one's number is the other's target.
    SpawnOptions options = shell("echo to-a > /proc/self/fd/" + std::to_string(b.out.get()) + "; echo to-b > /proc/self/fd/" +
                                  std::to_string(a.out.get()) + "; echo twice");
    options.descriptors = {{a.out.get(), b.out.get()}, {b.out.get(), a.out.get()}, {a.out.get(), STDOUT_FILENO}};
    auto child = ChildProcess::spawn(options);
    REQUIRE(child.has_value());
    a.out.reset();
    b.out.reset();
    CHECK(read_all(a.in.get(), "a").value() == "to-a\ntwice\n");
    CHECK(read_all(b.in.get(), "b").value() == "to-b\n");
    CHECK(child->wait(10s)->ok());
}

TEST_CASE("what cannot be started is told to the caller, and leaves no process") {
    const auto missing = ChildProcess::spawn({.argv = {"/nonexistent/program"}});
    REQUIRE_FALSE(missing.has_value());
    CHECK(missing.error().code == Errc::not_found);
    CHECK(missing.error().text.contains("/nonexistent/program"));
    CHECK(ChildProcess::spawn({.argv = {"/etc/passwd"}}).error().code == Errc::denied);
    const auto no_directory = ChildProcess::spawn({.argv = {"/bin/true"}, .working_directory = "/nonexistent"});
    CHECK(no_directory.error().code == Errc::not_found);
    CHECK(no_directory.error().text.contains("in /nonexistent"));
    CHECK_FALSE(ChildProcess::spawn({.argv = {"true"}}).has_value());
    CHECK_FALSE(ChildProcess::spawn({}).has_value());
    CHECK_FALSE(ChildProcess::spawn({.argv = {"/bin/true"}, .descriptors = {{900, 0}}}).has_value());
    CHECK_FALSE(ChildProcess::spawn({.argv = {"/bin/true"}, .descriptors = {{0, 5}, {1, 5}}}).has_value());
    CHECK(::waitpid(-1, nullptr, WNOHANG) == -1);
}

TEST_CASE("signals are as a new program expects them, and the caller's stay the caller's") {
    sigset_t mine, before, after;
    ::sigemptyset(&mine);
    ::sigaddset(&mine, SIGUSR2);
    ::pthread_sigmask(SIG_BLOCK, &mine, &before);
    const auto handler = ::signal(SIGPIPE, SIG_IGN);
    const std::string status = output_of({.argv = {"/bin/grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"}});
    ::signal(SIGPIPE, handler);
    ::pthread_sigmask(SIG_SETMASK, &before, &after);
    CHECK(status == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    CHECK(::sigismember(&after, SIGUSR2) == 1);
    CHECK(::sigismember(&after, SIGTERM) == 0);
}

TEST_CASE("past the deadline the child lives on; a destroyed ChildProcess leaves none") {
    pid_t pid = -1;
    {
        auto child = ChildProcess::spawn({.argv = {"/bin/sleep", "1000"}});
        REQUIRE(child.has_value());
        pid = child->pid();
        CHECK(child->wait(20ms).error().code == Errc::timeout);
        CHECK(child->wait(0ms).error().code == Errc::timeout);
        CHECK(exists(pid));
        child->kill(SIGTERM);
        CHECK(child->wait(10s)->text() == "killed by SIGTERM (15)");
        CHECK_FALSE(exists(pid));
        CHECK(child->wait(10s).error().code == Errc::internal);
        child->kill(SIGTERM);  // harmless: the number is not ours any more
        auto second = ChildProcess::spawn({.argv = {"/bin/sleep", "1000"}});
        REQUIRE(second.has_value());
        pid = second->pid();
        const ChildProcess moved(std::move(*second));
        CHECK(moved.pid() == pid);
    }
    CHECK_FALSE(exists(pid));
}

TEST_CASE("children are started from many threads at once") {
    std::atomic<int> good = 0;
    {
        std::vector<std::jthread> threads;
        for (int thread = 0; thread < 8; ++thread)
            threads.emplace_back([&] {
                for (int i = 0; i < 10; ++i) {
                    auto child = ChildProcess::spawn({.argv = {"/bin/true"}});
                    if (child && child->wait(30s).transform(&ExitStatus::ok).value_or(false)) ++good;
                }
            });
    }
    CHECK(good == 80);
}

TEST_CASE("a child of another user has no privilege, and no way to one") {
    if (::geteuid() != 0) SKIP("needs root");
    SpawnOptions options{.argv = {"/bin/grep", "-E", "^(Uid|Gid|Groups|Cap...|NoNewPrivs):", "/proc/self/status"}};
    options.user = UserIds{4711, 4712};
    const std::string status = output_of(options);
    CHECK(status.contains("Uid:\t4711\t4711\t4711\t4711\n"));
    CHECK(status.contains("Gid:\t4712\t4712\t4712\t4712\n"));
    CHECK(status.contains("Groups:\t \n"));
    for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"})
        CHECK(status.contains(std::string(set) + ":\t0000000000000000\n"));
    CHECK(status.contains("NoNewPrivs:\t1\n"));
    options.user = UserIds{0, 0};
    CHECK(ChildProcess::spawn(options).error().code == Errc::internal);
    CHECK(::getuid() == 0);
}

TEST_CASE("a child can be made idle, and without core files") {
    SpawnOptions options = shell("chrt -p $$; ionice; ulimit -Hc");
    options.idle = options.no_core = true;
    const std::string text = output_of(options);
    CHECK(text.contains("SCHED_IDLE\n"));
    CHECK(text.ends_with("idle\n0\n"));
}

TEST_CASE("with a child of a PID namespace of its own ends all that it started") {
    if (::geteuid() != 0) SKIP("needs root");
    Pipe pipe;
    SpawnOptions options = shell("echo $$; sleep 1000 & exec sleep 1000");
    options.own_pid_namespace = true;
    options.descriptors = {{pipe.out.get(), STDOUT_FILENO}};
    auto child = ChildProcess::spawn(options);
    REQUIRE(child.has_value());
    pipe.out.reset();
    std::vector<pid_t> tree;
    REQUIRE(eventually([&] { tree = process_tree(child->pid()).value_or(tree); return tree.size() == 2; }));
    child->kill(SIGTERM);  // no handler: the first process of a namespace is deaf to it
    CHECK(child->wait(50ms).error().code == Errc::timeout);
    child->kill(SIGKILL);
    CHECK(child->wait(10s)->text() == "killed by SIGKILL (9)");
    for (const pid_t pid : tree) CHECK_FALSE(exists(pid));
    CHECK(read_all(pipe.in.get(), "pipe").value() == "1\n");
}

TEST_CASE("a child that is tied to its caller ends with the thread that started it") {
    for (const bool own_namespace : {false, true}) {
        if (own_namespace && ::geteuid() != 0) continue;
        std::optional<ChildProcess> child;
        std::jthread([&] {
            SpawnOptions options{.argv = {"/bin/sleep", "1000"}, .own_pid_namespace = own_namespace, .dies_with_caller = true};
            if (own_namespace) options.user = UserIds{4711, 4711};
            if (auto started = ChildProcess::spawn(options)) child.emplace(std::move(*started));
        }).join();
        REQUIRE(child.has_value());
        CHECK(child->wait(10s)->text() == "killed by SIGKILL (9)");
    }
}

TEST_CASE("a child that is tied to its caller ends with the caller's process") {
    Pipe pipe;
    const pid_t caller = ::fork();
    if (caller == 0) {
        auto child = ChildProcess::spawn({.argv = {"/bin/sleep", "1000"}, .descriptors = {{pipe.out.get(), 1}}, .dies_with_caller = true});
        ::_exit(child ? (::kill(::getpid(), SIGKILL), 0) : 1);
    }
    pipe.out.reset();
    int status = 0;
    REQUIRE(::waitpid(caller, &status, 0) == caller);
    CHECK(WIFSIGNALED(status));
    CHECK(read_all(pipe.in.get(), "pipe").value().empty());  // its end: nobody has the other side any more
}

TEST_CASE("the identity of a process") {
    const auto self = process_identity(::getpid());
    REQUIRE(self.has_value());
    CHECK(self->pid == ::getpid());
    CHECK(self->parent == ::getppid());
    CHECK(self->session == ::getsid(0));
    CHECK(self->uid == ::getuid());
    CHECK(self->same_uids);
    CHECK(self->start_time > 0);
    if (::geteuid() == 0) CHECK(self->has_capabilities);

    auto child = ChildProcess::spawn({.argv = {"/bin/sleep", "1000"}});
    const auto first = process_identity(child->pid());
    CHECK(first->parent == ::getpid());
    CHECK(first->command == "sleep");
    CHECK(first->start_time >= self->start_time);
    CHECK(process_identity(child->pid())->start_time == first->start_time);
    child->kill(SIGKILL);
    REQUIRE(child->wait(10s).has_value());
    CHECK(process_identity(child->pid()).error().code == Errc::not_found);
    CHECK_FALSE(process_identity(-1).has_value());
}

TEST_CASE("a program's name cannot forge the other fields") {
    char before[16] = {};
    ::prctl(PR_GET_NAME, before);
    ::prctl(PR_SET_NAME, ") Z 1 1 1 (");
    const auto self = process_identity(::getpid());
    ::prctl(PR_SET_NAME, before);
    REQUIRE(self.has_value());
    CHECK(self->command == ") Z 1 1 1 (");
    CHECK(self->parent == ::getppid());
}

TEST_CASE("the tree has every descendant, parents first") {
    auto child = ChildProcess::spawn(shell("sh -c 'sleep 1000 & sleep 1000 & wait' & sleep 1000 & wait"));
    REQUIRE(child.has_value());
    std::vector<pid_t> tree;
    REQUIRE(eventually([&] { tree = process_tree(child->pid()).value_or(tree); return tree.size() == 5; }));
    CHECK(tree.front() == child->pid());
    for (const pid_t pid : tree) {
        if (pid == child->pid()) continue;
        const pid_t parent = process_identity(pid)->parent;
        CHECK(std::ranges::find(tree, parent) < std::ranges::find(tree, pid));
    }
    for (const pid_t pid : tree) ::kill(pid, SIGKILL);
    REQUIRE(child->wait(10s).has_value());
    CHECK(process_tree(child->pid()).error().code == Errc::not_found);
}

TEST_CASE("the tree has the children of every thread") {
    std::atomic<pid_t> pid = -1;
    std::atomic<bool> done = false;
    std::jthread other([&] {
        auto child = ChildProcess::spawn({.argv = {"/bin/sleep", "1000"}});
        if (child) pid = child->pid();
        done.wait(false);
    });
    CHECK(eventually([&] { return pid != -1; }));
    CHECK(std::ranges::contains(process_tree(::getpid()).value(), pid.load()));
    done = true;
    done.notify_all();
}

namespace {

// Directories that stand for mounted cgroup hierarchies: cgroup.procs is a plain file there.
struct FakeCgroups {
    FakeCgroups() {
        char name[] = "/tmp/sckpt cgroup-test.XXXXXX";
        REQUIRE(::mkdtemp(name) != nullptr);
        top = name;
    }
    ~FakeCgroups() {
        std::error_code ignored;
        fs::remove_all(top, ignored);
    }
    std::string add(const std::string& group, const std::string& processes) const {
        fs::create_directories(top + group);
        std::ofstream(top + group + "/cgroup.procs") << processes;
        return top + group;
    }
    // A line of mountinfo; the space in the path is escaped as the kernel does.
    std::string mount(const std::string& point, const std::string& root, const std::string& type,
                      const std::string& options) const {
        std::string escaped = top + point;
        escaped.replace(escaped.find(' '), 1, "\\040");
        return "30 29 0:26 " + root + " " + escaped + " rw,nosuid shared:4 - " + type + " source " + options + "\n";
    }
    std::string top;
};

}  // namespace

TEST_CASE("the tracking cgroup is found in v2, in v1, and where only a part of the hierarchy is mounted") {
    const FakeCgroups fake;
    const std::string v2 = fake.mount("/v2", "/", "cgroup2", "rw");
    const std::string v1 = fake.mount("/cpu", "/", "cgroup", "rw,cpu") + fake.mount("/freezer", "/", "cgroup", "rw,freezer");
    const std::string v2_job = fake.add("/v2/system.slice/slurmstepd.scope/job_5", ""),
                      v1_job = fake.add("/freezer/slurm/job_5", "");
    const std::string service = fake.add("/v2/system.slice/slurmd.service", "");
    CHECK(find_tracking_cgroup("0::/system.slice/slurmstepd.scope/job_5\n", v2) == v2_job);
    CHECK(find_tracking_cgroup("6:freezer:/slurm/job_5\n1:cpu:/\n0::/\n", v1 + v2) == v1_job);
    CHECK(find_tracking_cgroup("6:freezer:/slurm/job_5\n0::/system.slice/slurmd.service\n", v1 + v2) == v1_job);
    CHECK(find_tracking_cgroup("6:freezer:/\n0::/system.slice/slurmd.service\n", v1 + v2) == service);
    const std::string part = fake.mount("/v2/system.slice", "/outer/system.slice", "cgroup2", "rw");
    CHECK(find_tracking_cgroup("0::/outer/system.slice/slurmstepd.scope/job_5\n", part) == v2_job);
}

TEST_CASE("a process without a cgroup of its own has none, not the node's") {
    const FakeCgroups fake;
    fake.add("/v2", "");
    const std::string v2 = fake.mount("/v2", "/", "cgroup2", "rw");
    CHECK(find_tracking_cgroup("0::/\n", v2).error().code == Errc::unsupported);
    CHECK(find_tracking_cgroup("6:freezer:/\n0::/\n", v2).error().code == Errc::unsupported);
    CHECK(find_tracking_cgroup("", v2).error().code == Errc::unsupported);
    CHECK(find_tracking_cgroup("0::/../other\n", v2).error().code == Errc::unsupported);
    CHECK(find_tracking_cgroup("0::/gone (deleted)\n", v2).error().code == Errc::not_found);
    CHECK(find_tracking_cgroup("0::/outer-other/x\n", fake.mount("/v2", "/outer", "cgroup2", "rw")).error().code ==
          Errc::not_found);
    CHECK(tracking_cgroup(-1).error().code == Errc::not_found);
}

TEST_CASE("the processes of a cgroup are those of its sub-groups too, each once") {
    const FakeCgroups fake;
    fake.add("/job", "");
    fake.add("/job/step_batch", "12\n10\n");
    fake.add("/job/step_0/task_0", "11\n12\n");
    fs::create_directories(fake.top + "/job/step_0");
    std::ofstream(fake.top + "/job/step_0/cgroup.procs");
    CHECK(cgroup_processes(fake.top + "/job").value() == std::vector<pid_t>{10, 11, 12});
    CHECK(cgroup_processes(fake.top + "/missing").error().code == Errc::not_found);
    fake.add("/job/foreign", "0\n");
    CHECK(cgroup_processes(fake.top + "/job").error().code == Errc::unsupported);
}

TEST_CASE("a cgroup is frozen, about to be, or not, in v1 and in v2") {
    char name[] = "/tmp/sckpt-frozen-XXXXXX";
    const std::string directory = ::mkdtemp(name);
    CHECK_FALSE(cgroup_is_frozen(directory).has_value());  // neither
    const auto write = [&](const char* file, const char* text) { REQUIRE(write_file_durable(directory + "/" + file, text, 0600).has_value()); };
    write("cgroup.events", "populated 1\nfrozen 0\n");
    write("cgroup.freeze", "0\n");
    CHECK_FALSE(cgroup_is_frozen(directory).value());
    write("cgroup.freeze", "1\n");
    CHECK(cgroup_is_frozen(directory).value());
    write("cgroup.freeze", "0\n");
    write("cgroup.events", "populated 1\nfrozen 1\n");  // by a group above
    CHECK(cgroup_is_frozen(directory).value());
    for (const auto& [state, frozen] : {std::pair("THAWED\n", false), {"FREEZING\n", true}, {"FROZEN\n", true}}) {
        write("freezer.state", state);
        CHECK(cgroup_is_frozen(directory).value() == frozen);
    }
    REQUIRE(remove_tree(directory).has_value());
}
