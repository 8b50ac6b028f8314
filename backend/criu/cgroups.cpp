// SPDX-License-Identifier: GPL-3.0-or-later
#include "backend/criu/cgroups.h"

#include <algorithm>
#include <format>
#include <optional>
#include <ranges>
#include <sstream>

#include <fcntl.h>

#include "common/fd.h"

namespace sckpt::criu {

namespace {

struct Mount {
    std::string root, point;
    std::vector<std::string> names;  // v1: controllers or "name=systemd"; v2: none
    bool v2 = false;
};

std::vector<std::string> split(const std::string& text, char separator) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
    return parts;
}

// proc_pid_mountinfo(5): "id parent dev root point options [tags…] - type source super-options"
std::vector<Mount> cgroup_mounts(std::string_view mountinfo) {
    std::vector<Mount> mounts;
    for (const std::string& line : split(std::string(mountinfo), '\n')) {
        const auto separator = line.find(" - ");
        if (separator == std::string::npos) continue;
        const auto left = split(line.substr(0, separator), ' '), right = split(line.substr(separator + 3), ' ');
        if (left.size() < 5 || right.size() < 3 || (right[0] != "cgroup" && right[0] != "cgroup2")) continue;
        mounts.push_back({left[3], left[4], split(right[2], ','), right[0] == "cgroup2"});
    }
    return mounts;
}

// The directory of one line of /proc/PID/cgroup, "number:controllers:path"; nothing when its hierarchy is not mounted.
std::optional<std::string> directory_of(const std::string& controllers, const std::string& path, const std::vector<Mount>& mounts) {
    for (const Mount& mount : mounts) {
        const bool same =
            controllers.empty() ? mount.v2 : !mount.v2 && std::ranges::all_of(split(controllers, ','), [&](const std::string& name) {
                return std::ranges::contains(mount.names, name);
            });
        const std::string prefix = mount.root == "/" ? "" : mount.root;
        if (same && (path + "/").starts_with(prefix + "/")) return mount.point + path.substr(prefix.size());
    }
    return std::nullopt;
}

}  // namespace

Result<std::vector<std::string>> cgroup_directories(std::string_view cgroups, std::string_view mountinfo) {
    const std::vector<Mount> mounts = cgroup_mounts(mountinfo);
    std::vector<std::string> directories;
    for (const std::string& line : split(std::string(cgroups), '\n')) {
        const auto first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) return fail(Errc::internal, "/proc/PID/cgroup has an unknown form");
        const std::string path = line.substr(second + 1);
        if (path.starts_with("/..")) return fail(Errc::unsupported, "the job's cgroups are outside of sckptd's cgroup namespace");
        if (auto directory = directory_of(line.substr(first + 1, second - first - 1), path, mounts)) directories.push_back(*directory);
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
