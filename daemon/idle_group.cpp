// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/idle_group.h"

#include <cerrno>
#include <sstream>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>

#include "common/cgroups.h"

namespace sckpt {
namespace {

// A twentieth of what a group has by default (cgroup-v2: cpu.weight, of 100; sched-design-CFS: cpu.shares, of 1024). Not cpu.idle: a
// three-hundredth, with which a drain beside a job that has every core would take for hours, and a checkpoint is worth nothing before it ends.
constexpr const char* kWeightV2 = "5";
constexpr const char* kSharesV1 = "51";

// In v2 the groups at the top share CPU time only if the top hands the controller on.
bool shares_cpu(const CgroupMount& mount) {
    if (!mount.v2) return mount.has("cpu");
    const auto text = read_file(mount.point + "/cgroup.subtree_control");
    std::istringstream controllers(text.value_or(""));
    for (std::string name; controllers >> name;)
        if (name == "cpu") return true;
    return false;
}

}  // namespace

Result<UniqueFd> open_idle_group(std::string_view mountinfo) {
    for (const CgroupMount& mount : cgroup_mounts(mountinfo)) {
        if (!shares_cpu(mount)) continue;
        const std::string directory = mount.point + "/" + kIdleGroup;
        if (::mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno("make the cgroup " + directory);
        SCKPT_ASSIGN(const UniqueFd weight, open_file(directory + (mount.v2 ? "/cpu.weight" : "/cpu.shares"), O_WRONLY));
        SCKPT_TRY(write_all(weight.get(), mount.v2 ? kWeightV2 : kSharesV1));
        return open_file(directory + "/cgroup.procs", O_WRONLY);
    }
    return fail(Errc::unsupported, "no cgroup hierarchy that is mounted here shares out CPU time");
}

Result<UniqueFd> open_idle_group() {
    SCKPT_ASSIGN(const std::string mountinfo, read_file("/proc/self/mountinfo"));
    return open_idle_group(mountinfo);
}

}  // namespace sckpt
