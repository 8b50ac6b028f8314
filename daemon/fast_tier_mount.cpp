// SPDX-License-Identifier: GPL-3.0-or-later
//
// The fast tier's file system. It is mounted once after the node has booted, and outlives sckptd. Jobs must see it under the same path, as
// criu runs in their mount namespace: so the mount has to be there before they start, or to be propagated to them (sckptd before slurmd).
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>
#include <format>

#include "common/bytes.h"
#include "common/fd.h"
#include "daemon/fast_tier.h"

namespace sckpt {
namespace {

constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

std::uint64_t size_wanted(std::uint64_t configured) {
    if (configured != 0) return configured;
    struct sysinfo memory {};
    sysinfo(&memory);
    return std::uint64_t{memory.totalram} * memory.mem_unit / 4;
}

// Page tables of huge pages are what makes reading back fast; a kernel without them takes the option for an error.
Result<> mount_new(const std::string& directory, std::uint64_t bytes, MountedTier& tier) {
    const std::string options = std::format("mode=0700,size={}", bytes);
    if (mount("sckpt", directory.c_str(), "tmpfs", kFlags, (options + ",huge=always").c_str()) == 0) return {};
    if (errno == EINVAL && mount("sckpt", directory.c_str(), "tmpfs", kFlags, options.c_str()) == 0) {
        tier.notes.push_back("fast tier: without huge pages, which this kernel's tmpfs does not have");
        return {};
    }
    return fail(
        errno == EPERM || errno == EACCES ? Errc::denied : Errc::io,
        std::format("no tmpfs can be mounted at {}, the fast tier: {}; sckptd needs CAP_SYS_ADMIN for it, or an administrator mounts a "
                    "tmpfs there before sckptd starts",
                    directory, std::strerror(errno)));
}

Result<bool> is_mount_point(const std::string& directory) {
    struct statx status {};
    if (statx(AT_FDCWD, directory.c_str(), AT_SYMLINK_NOFOLLOW, STATX_TYPE, &status) != 0) return fail_errno(directory);
    if (!S_ISDIR(status.stx_mode))
        return fail(Errc::invalid, directory + " (node.fast_tier) is no directory: remove it, or name another place");
    return (status.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
}

Result<struct statfs> file_system(const std::string& directory) {
    struct statfs found {};
    if (statfs(directory.c_str(), &found) != 0) return fail_errno(directory);
    return found;
}

std::uint64_t size_of(const struct statfs& found) { return found.f_blocks * static_cast<std::uint64_t>(found.f_bsize); }

// Of an earlier sckptd, or of the administrator's.
Result<> resize(const std::string& directory, std::uint64_t bytes, MountedTier& tier) {
    SCKPT_ASSIGN(const struct statfs found, file_system(directory));
    if (found.f_type != TMPFS_MAGIC)
        return fail(Errc::invalid, directory +
                                       " (node.fast_tier) is the mount point of something that is no tmpfs: unmount it, or name "
                                       "another directory");
    constexpr std::uint64_t kPage = 4096;
    if (size_of(found) / kPage == bytes / kPage) return {};
    if (mount(nullptr, directory.c_str(), nullptr, MS_REMOUNT | kFlags, std::format("size={}", bytes).c_str()) != 0)
        tier.notes.push_back(std::format("fast tier: it keeps its size of {}, as it cannot be made {}: {}", format_bytes(size_of(found)),
                                         format_bytes(bytes), std::strerror(errno)));
    return {};
}

}  // namespace

Result<MountedTier> mount_fast_tier(const std::string& directory, std::uint64_t bytes) {
    MountedTier tier;
    SCKPT_TRY(make_directories(directory, 0700));
    SCKPT_ASSIGN(const bool mounted, is_mount_point(directory));
    const std::uint64_t wanted = size_wanted(bytes);
    SCKPT_TRY(mounted ? resize(directory, wanted, tier) : mount_new(directory, wanted, tier));
    if (chown(directory.c_str(), 0, 0) != 0 || chmod(directory.c_str(), 0700) != 0)
        return fail_errno("make " + directory + " root's alone");
    SCKPT_ASSIGN(const struct statfs found, file_system(directory));
    tier.bytes = size_of(found);
    return tier;
}

}  // namespace sckpt
