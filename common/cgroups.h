// SPDX-License-Identifier: GPL-3.0-or-later
//
// The cgroup hierarchies that are mounted here, v1 and v2, from the text of /proc/self/mountinfo (proc_pid_mountinfo(5), cgroups(7)).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sckpt {

struct CgroupMount {
    std::string root;   // which cgroup is at the mount point; "/" except in containers
    std::string point;
    std::vector<std::string> names;  // v1: controllers or "name=systemd"; v2: none that count
    bool v2 = false;

    // v1 alone: it has all of these, "cpu,cpuacct".
    bool has(std::string_view controllers) const;
    // Of a cgroup, by its path in the hierarchy as /proc/PID/cgroup tells it; nothing when this mount does not show it.
    std::optional<std::string> directory_of(const std::string& path) const;
};
std::vector<CgroupMount> cgroup_mounts(std::string_view mountinfo);

// A line of /proc/PID/cgroup, "number:controllers:path". v2's has no controllers.
struct CgroupLine {
    std::string controllers, path;
};
// Nothing for a line of another form.
std::optional<CgroupLine> cgroup_line(const std::string& line);

}  // namespace sckpt
