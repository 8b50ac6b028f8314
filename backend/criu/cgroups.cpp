// SPDX-License-Identifier: GPL-3.0-or-later
#include "backend/criu/cgroups.h"

#include <algorithm>
#include <format>
#include <sstream>

#include <fcntl.h>

#include "common/cgroups.h"
#include "common/fd.h"

namespace sckpt::criu {

Result<std::vector<std::string>> cgroup_directories(std::string_view cgroups, std::string_view mountinfo) {
    const std::vector<CgroupMount> mounts = cgroup_mounts(mountinfo);
    std::vector<std::string> directories;
    std::istringstream lines{std::string(cgroups)};
    for (std::string text; std::getline(lines, text);) {
        const auto line = cgroup_line(text);
        if (!line) return fail(Errc::internal, "/proc/PID/cgroup has an unknown form");
        if (line->path.starts_with("/..")) return fail(Errc::unsupported, "the job's cgroups are outside of sckptd's cgroup namespace");
        for (const CgroupMount& mount : mounts) {  // a hierarchy that is not mounted has none
            if (line->controllers.empty() ? !mount.v2 : !mount.has(line->controllers)) continue;
            const auto directory = mount.directory_of(line->path);
            if (!directory) continue;
            directories.push_back(*directory);
            break;
        }
    }
    return directories;
}

Result<> join_cgroups_of(pid_t model) {
    SCKPT_ASSIGN(const std::string wanted, read_file(std::format("/proc/{}/cgroup", model)));
    SCKPT_ASSIGN(const std::string own, read_file("/proc/self/cgroup"));
    SCKPT_ASSIGN(const std::string mountinfo, read_file("/proc/self/mountinfo"));
    SCKPT_ASSIGN(const auto directories, cgroup_directories(wanted, mountinfo));
    SCKPT_ASSIGN(const auto present, cgroup_directories(own, mountinfo));
    for (const std::string& directory : directories) {
        if (std::ranges::contains(present, directory)) continue;
        SCKPT_ASSIGN(const UniqueFd processes, open_file(directory + "/cgroup.procs", O_WRONLY));
        if (const auto joined = write_all(processes.get(), "0"); !joined)
            return std::unexpected(joined.error().context("enter the job's cgroup " + directory));
    }
    return {};
}

}  // namespace sckpt::criu
