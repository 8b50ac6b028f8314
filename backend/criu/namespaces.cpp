// SPDX-License-Identifier: GPL-3.0-or-later
#include "backend/criu/namespaces.h"

#include <cstdlib>
#include <format>

#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sckpt::criu {

bool same_namespace(pid_t a, pid_t b, const char* kind) {
    struct stat first{}, second{};
    return ::stat(std::format("/proc/{}/ns/{}", a, kind).c_str(), &first) == 0 &&
           ::stat(std::format("/proc/{}/ns/{}", b, kind).c_str(), &second) == 0 && first.st_ino == second.st_ino &&
           first.st_dev == second.st_dev;
}

// Root enters these namespaces and starts programs in there: in a mount namespace that a user could make, in a user namespace of his
// own, he would choose what /usr/sbin/criu is. Asked of the open namespace, so that the process cannot change it in between.
Result<UniqueFd> foreign_namespace(pid_t pid, const char* kind) {
    if (same_namespace(pid, ::getpid(), kind)) return UniqueFd();
    SCKPT_ASSIGN(UniqueFd found, open_file(std::format("/proc/{}/ns/{}", pid, kind), O_RDONLY));
    const UniqueFd owner(::ioctl(found.get(), NS_GET_USERNS));
    struct stat owners{}, ours{};
    if (!owner || ::fstat(owner.get(), &owners) != 0 || ::stat("/proc/self/ns/user", &ours) != 0 || owners.st_ino != ours.st_ino ||
        owners.st_dev != ours.st_dev)
        return fail(Errc::denied,
                    std::format("process {} runs in a user namespace of its own (a container?), which sckptd does not enter", pid));
    return found;
}

Result<> enter_mount_namespace(const UniqueFd& target, const std::string& directory) {
    struct stat before{}, after{};
    if (::stat(directory.c_str(), &before) != 0) return fail_errno(directory);
    if (target && ::setns(target.get(), CLONE_NEWNS) != 0) return fail_errno("enter the job's mount namespace");
    if (::stat(directory.c_str(), &after) != 0 || before.st_ino != after.st_ino || before.st_dev != after.st_dev)
        return fail(Errc::unsupported, std::format("the image directory {} is not visible inside the job's mount namespace", directory));
    return {};
}

// The last number of the line NSpid.
Result<pid_t> inner_pid(pid_t pid) {
    SCKPT_ASSIGN(const std::string status, read_file(std::format("/proc/{}/status", pid)));
    const auto at = status.find("\nNSpid:");
    if (at == std::string::npos) return fail(Errc::unsupported, "this kernel's /proc/PID/status has no NSpid");
    const std::string line = status.substr(at + 1, status.find('\n', at + 1) - at - 1);
    return static_cast<pid_t>(std::strtol(line.substr(line.find_last_of(" \t") + 1).c_str(), nullptr, 10));
}

}  // namespace sckpt::criu
