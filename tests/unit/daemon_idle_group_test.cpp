// SPDX-License-Identifier: GPL-3.0-or-later
//
// The cgroup of drains: where it is made, and that what runs there leaves the CPU to others.
#include "daemon/idle_group.h"

#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <format>
#include <fstream>
#include <sstream>
#include <thread>
#include <unistd.h>

#include "common/cgroups.h"
#include "common/process.h"

using namespace sckpt;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

// A folder that looks like the top of a v2 hierarchy, with the group in it, whose files a kernel would make.
struct FakeTop {
    explicit FakeTop(const char* controllers) {
        fs::create_directories(path / kIdleGroup);
        std::ofstream(path / "cgroup.subtree_control") << controllers;
        std::ofstream(path / kIdleGroup / "cpu.weight");
        std::ofstream(path / kIdleGroup / "cgroup.procs");
    }
    ~FakeTop() { fs::remove_all(path); }
    std::string mountinfo() const { return std::format("30 23 0:26 / {} rw - cgroup2 cgroup2 rw\n", path.string()); }
    fs::path path = fs::temp_directory_path() / std::format("sckpt-idle-{}", ::getpid());
};

std::string text_of(const fs::path& path) { return (std::stringstream() << std::ifstream(path).rdbuf()).str(); }

// Clock ticks that a process has had; proc(5): utime is the 12th field behind the name.
unsigned long ticks_of(pid_t pid) {
    std::string text = text_of(std::format("/proc/{}/stat", pid));
    std::istringstream fields(text.substr(text.rfind(')') + 1));
    std::string field;
    for (int n = 0; n < 12; ++n) fields >> field;
    return field.empty() ? 0 : std::stoul(field);
}

SpawnOptions busy() { return {.argv = {"/usr/bin/taskset", "-c", "0", "/bin/sh", "-c", "while :; do :; done"}}; }

// What an idle child has of a CPU for each tick that another one has there.
double share_beside_another(int group) {
    SpawnOptions idle = busy();
    idle.idle = true;
    idle.idle_group = group;
    const auto patient = ChildProcess::spawn(idle), other = ChildProcess::spawn(busy());
    REQUIRE((patient && other));
    const auto end = std::chrono::steady_clock::now() + 60s;
    while (ticks_of(other->pid()) < 100 && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(10ms);
    REQUIRE(ticks_of(other->pid()) >= 100);
    return static_cast<double>(ticks_of(patient->pid())) / static_cast<double>(ticks_of(other->pid()));
}

}  // namespace

TEST_CASE("the group of drains has little weight, at the top of the hierarchy that shares out CPU time") {
    const FakeTop top("cpu memory");
    REQUIRE(open_idle_group(top.mountinfo()));
    CHECK(text_of(top.path / kIdleGroup / "cpu.weight") == "5");
}

TEST_CASE("where no hierarchy shares out CPU time there is no group, and nobody to be told") {
    const FakeTop top("memory pids");
    CHECK(open_idle_group(top.mountinfo()).error().code == Errc::unsupported);
    CHECK(open_idle_group("31 23 0:27 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n").error().code == Errc::unsupported);
    CHECK(open_idle_group("").error().code == Errc::unsupported);
}

TEST_CASE("a group that cannot be used is an error that names it") {
    const auto group = open_idle_group("31 23 0:27 / /nowhere rw - cgroup cgroup rw,cpu,cpuacct\n");
    REQUIRE_FALSE(group);
    CHECK(group.error().code != Errc::unsupported);
    CHECK(group.error().text.contains("/nowhere/sckpt-drain"));
}

TEST_CASE("an idle child leaves its CPU to a child that is busy, in whatever session that is") {
    if (::geteuid() != 0) SKIP("needs root");
    CHECK(share_beside_another(-1) < 0.2);
}

TEST_CASE("an idle child enters its group, and leaves its CPU to others") {
    const auto group = open_idle_group();
    if (!group) SKIP("no cgroup for it here: " + group.error().text);
    CHECK(share_beside_another(group->get()) < 0.2);
    SpawnOptions options{.argv = {"/bin/sh", "-c", std::format("grep -q :/{}$ /proc/self/cgroup", kIdleGroup)}};
    options.idle = true;
    options.idle_group = group->get();
    auto child = ChildProcess::spawn(options);
    REQUIRE(child);
    CHECK(child->wait(10s)->ok());
    std::error_code in_use;  // by drains of a real sckptd
    for (const CgroupMount& mount : cgroup_mounts(read_file("/proc/self/mountinfo").value())) fs::remove(mount.point + "/" + kIdleGroup, in_use);
}
