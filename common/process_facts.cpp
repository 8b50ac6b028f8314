// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the kernel says about processes: /proc and the cgroup file systems. A process may end between any two reads:
// that is Errc::not_found for the process that was asked about, and no error for one that was met on the way.
#include "common/process.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <format>
#include <ranges>
#include <set>
#include <sstream>

#include <fcntl.h>
#include <unistd.h>

#include "common/cgroups.h"

namespace sckpt {

namespace {

std::string proc_path(pid_t pid) { return std::format("/proc/{}", pid); }

// A read of /proc answers ESRCH or ENOENT for a process that is gone: both are Errc::not_found.
bool is_gone(const Error& error) { return error.code == Errc::not_found; }

// ---- identity ----

// proc(5): "pid (comm) state ppid pgrp session …"; comm may hold spaces and brackets, so the fields begin after the last ')'.
Result<> parse_stat(const std::string& stat, ProcessIdentity& identity) {
    const auto open = stat.find('('), close = stat.rfind(')');
    if (open == std::string::npos || close == std::string::npos || close < open)
        return fail(Errc::internal, "/proc/PID/stat is not in the form that proc(5) tells");
    identity.command = stat.substr(open + 1, close - open - 1);
    std::istringstream fields(stat.substr(close + 1));
    std::string state, skipped;
    pid_t group = 0;
    fields >> state >> identity.parent >> group >> identity.session;
    for (int field = 7; field < 22; ++field) fields >> skipped;
    fields >> identity.start_time;
    if (!fields) return fail(Errc::internal, "/proc/PID/stat is not in the form that proc(5) tells");
    return {};
}

// The lines "Uid:" and "Gid:" have the real, effective, saved and file-system id.
Result<> parse_status(const std::string& status, ProcessIdentity& identity) {
    bool uids_alike = false, gids_alike = false;
    int seen = 0;
    std::istringstream lines(status);
    for (std::string line; std::getline(lines, line);) {
        std::istringstream fields(line);
        std::string key;
        fields >> key;
        if (key == "Uid:" || key == "Gid:") {
            std::int64_t real = -1, effective = -2, saved = -3, file_system = -4;
            fields >> real >> effective >> saved >> file_system;
            const bool alike = real == effective && real == saved && real == file_system;
            (key == "Uid:" ? uids_alike : gids_alike) = alike;
            if (key == "Uid:") identity.uid = static_cast<uid_t>(real);
        } else if (key == "CapPrm:") {
            std::uint64_t permitted = ~0ULL;
            fields >> std::hex >> permitted;
            identity.has_capabilities = permitted != 0;
        } else {
            continue;
        }
        if (!fields) return fail(Errc::internal, "/proc/PID/status is not in the form that proc(5) tells: " + line);
        ++seen;
    }
    if (seen != 3) return fail(Errc::internal, "/proc/PID/status lacks Uid, Gid or CapPrm");
    identity.same_uids = uids_alike && gids_alike;
    return {};
}

Result<std::string> read_at(const UniqueFd& directory, const std::string& name, const std::string& shown) {
    auto fd = open_at(directory.get(), name, O_RDONLY);
    if (!fd) return std::unexpected(fd.error().context(shown));
    return read_all(fd->get(), shown + "/" + name);
}

}  // namespace

// Both files are read through one descriptor of the directory, so that they are the same process's even if the number is used
// again.
Result<ProcessIdentity> process_identity(pid_t pid) {
    const std::string path = proc_path(pid);
    SCKPT_ASSIGN(const UniqueFd directory, open_file(path, O_RDONLY | O_DIRECTORY));
    ProcessIdentity identity;
    identity.pid = pid;
    SCKPT_ASSIGN(const std::string stat, read_at(directory, "stat", path));
    SCKPT_TRY(parse_stat(stat, identity));
    SCKPT_ASSIGN(const std::string status, read_at(directory, "status", path));
    SCKPT_TRY(parse_status(status, identity));
    return identity;
}

// ---- trees ----

namespace {

Result<std::vector<std::string>> list_directories(const std::string& path) {
    std::vector<std::string> names;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
        std::error_code gone;  // an entry that vanished meanwhile is no directory
        if (entry->is_directory(gone) && !entry->is_symlink(gone)) names.push_back(entry->path().filename());
    }
    if (error) return fail_errno("list " + path, error.value());
    return names;
}

// A kernel without CONFIG_PROC_CHILDREN has no such file: that must not look like a process without children.
Result<std::string> read_children(const std::string& thread) {
    auto children = read_file(thread + "/children");
    if (children || !is_gone(children.error())) return children;
    if (::access((thread + "/stat").c_str(), F_OK) != 0 || ::access("/proc/thread-self/children", F_OK) == 0) return "";
    return fail(Errc::unsupported,
                "this kernel has no /proc/PID/task/TID/children (CONFIG_PROC_CHILDREN), which checkpoints need");
}

Result<std::vector<pid_t>> children_of(pid_t pid) {
    const std::string tasks = proc_path(pid) + "/task";
    SCKPT_ASSIGN(const auto threads, list_directories(tasks));
    std::vector<pid_t> children;
    for (const std::string& thread : threads) {
        SCKPT_ASSIGN(const std::string text, read_children(tasks + "/" + thread));
        std::istringstream numbers(text);
        for (pid_t child = 0; numbers >> child;) children.push_back(child);
    }
    return children;
}

}  // namespace

Result<std::vector<pid_t>> process_tree(pid_t root) {
    std::vector<pid_t> tree{root};
    std::set<pid_t> known{root};
    for (std::size_t next = 0; next < tree.size(); ++next) {
        const pid_t pid = tree[next];
        auto children = children_of(pid);
        if (!children && is_gone(children.error()) && pid != root) continue;
        if (!children) return std::unexpected(children.error().context(std::format("the processes below {}", root)));
        for (const pid_t child : *children)
            if (known.insert(child).second) tree.push_back(child);
    }
    return tree;
}

// ---- cgroups ----

namespace {

// The process's path in v2, or in v1's freezer; empty when it is in none.
std::string path_in_hierarchy(const std::string& cgroups, bool v2) {
    std::istringstream lines(cgroups);
    for (std::string text; std::getline(lines, text);) {
        const auto line = cgroup_line(text);
        if (line && (v2 ? line->controllers.empty() : ("," + line->controllers + ",").contains(",freezer,"))) return line->path;
    }
    return "";
}

Result<std::string> directory_of(const std::string& path, bool v2, const std::string& mountinfo) {
    for (const CgroupMount& mount : cgroup_mounts(mountinfo)) {
        if (v2 ? !mount.v2 : !mount.has("freezer")) continue;
        const auto directory = mount.directory_of(path);
        if (directory && ::access((*directory + "/cgroup.procs").c_str(), F_OK) == 0) return *directory;
    }
    return fail(Errc::not_found,
                std::format("the cgroup {} ({}) is not visible at any mount point", path, v2 ? "v2" : "freezer"));
}

Result<> collect_processes(const std::string& directory, std::set<pid_t>& found) {
    SCKPT_ASSIGN(const std::string text, read_file(directory + "/cgroup.procs"));
    std::istringstream numbers(text);
    for (pid_t pid = 0; numbers >> pid;) {
        if (pid == 0)
            return fail(Errc::unsupported, directory + " holds a process of another PID namespace, which cannot be named here");
        found.insert(pid);
    }
    SCKPT_ASSIGN(const auto groups, list_directories(directory));
    for (const std::string& group : groups) {
        const auto collected = collect_processes(directory + "/" + group, found);
        if (!collected && !is_gone(collected.error())) return collected;
    }
    return {};
}

}  // namespace

// With cgroup v1, Slurm tracks by the freezer, which nothing else on a node uses; the v2 path of such a machine may well be the
// service manager's, shared by all jobs. So the freezer goes first. The root group of a hierarchy tracks nobody: with it, "the
// job's processes" would be every process of the node.
Result<std::string> find_tracking_cgroup(const std::string& cgroups, const std::string& mountinfo) {
    for (const bool v2 : {false, true}) {
        const std::string path = path_in_hierarchy(cgroups, v2);
        if (path.empty() || path == "/") continue;
        if (path.starts_with("/.."))
            return fail(Errc::unsupported, "its cgroup " + path + " is outside the cgroup namespace of this daemon");
        return directory_of(path, v2, mountinfo);
    }
    return fail(Errc::unsupported, "it is in no cgroup of its own: Slurm needs ProctrackType=proctrack/cgroup");
}

Result<std::string> tracking_cgroup(pid_t pid) {
    SCKPT_ASSIGN(const std::string cgroups, read_file(proc_path(pid) + "/cgroup"));
    SCKPT_ASSIGN(const std::string mountinfo, read_file("/proc/self/mountinfo"));
    auto directory = find_tracking_cgroup(cgroups, mountinfo);
    if (!directory) return std::unexpected(directory.error().context(std::format("the cgroup of process {}", pid)));
    return directory;
}

// The freezer of cgroup v1 has a state; with v2 a group tells of itself and what is above it as an event, and what it is told a moment before.
Result<bool> cgroup_is_frozen(const std::string& directory) {
    if (const auto state = read_file(directory + "/freezer.state")) return !state->starts_with("THAWED");
    SCKPT_ASSIGN(const std::string wanted, read_file(directory + "/cgroup.freeze"));
    SCKPT_ASSIGN(const std::string events, read_file(directory + "/cgroup.events"));
    return wanted.starts_with('1') || events.contains("frozen 1");
}

bool is_suspended(pid_t pid) {
    const auto cgroup = tracking_cgroup(pid);
    return cgroup && cgroup_is_frozen(*cgroup).value_or(false);
}

Result<std::vector<pid_t>> cgroup_processes(const std::string& cgroup_directory) {
    std::set<pid_t> found;
    SCKPT_TRY(collect_processes(cgroup_directory, found));
    return std::vector<pid_t>(found.begin(), found.end());
}

}  // namespace sckpt
