// SPDX-License-Identifier: GPL-3.0-or-later
#include <catch2/catch_test_macros.hpp>

#include "backend/criu/cgroups.h"

using namespace sckpt;
using namespace sckpt::criu;

TEST_CASE("cgroup v1: each mounted hierarchy, found by its controllers") {
    const char* mountinfo =
        "30 23 0:26 / /sys/fs/cgroup/freezer rw,nosuid shared:9 - cgroup cgroup rw,freezer\n"
        "31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "32 23 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n";
    const char* cgroups =
        "12:freezer:/slurm/uid_1000/job_7/step_batch\n11:cpu,cpuacct:/slurm\n10:memory:/slurm/job_7\n1:name=systemd:/system.slice\n0::/x\n";
    const auto directories = cgroup_directories(cgroups, mountinfo);
    REQUIRE(directories);
    CHECK(*directories == std::vector<std::string>{"/sys/fs/cgroup/freezer/slurm/uid_1000/job_7/step_batch",
                                                   "/sys/fs/cgroup/cpu,cpuacct/slurm", "/sys/fs/cgroup/systemd/system.slice"});
}

TEST_CASE("cgroup v2, also where the mount shows only a part") {
    const auto whole = cgroup_directories("0::/system.slice/job_7/step_batch/user/task_0\n",
                                          "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n");
    REQUIRE(whole);
    CHECK(*whole == std::vector<std::string>{"/sys/fs/cgroup/system.slice/job_7/step_batch/user/task_0"});
    const auto part = cgroup_directories("0::/docker/ab/job_7\n", "30 23 0:26 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    REQUIRE(part);
    CHECK(*part == std::vector<std::string>{"/sys/fs/cgroup/job_7"});
    CHECK_FALSE(cgroup_directories("0::/../other\n", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"));
}
