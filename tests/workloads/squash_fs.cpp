// SPDX-License-Identifier: GPL-3.0-or-later
//
// A shared file system with root squash, for the test bed: squash_fs DIRECTORY MOUNTPOINT passes everything on to DIRECTORY under the
// file-system ids and groups of whoever asks, and for uid 0 and gid 0 under those of nobody. That is what most sites' NFS servers do:
// root of a node has fewer rights on it than anyone. Nothing is cached by the kernel, so that what one node writes the next one sees.
//
// It stays in the foreground, and unmounts at SIGTERM. DIRECTORY and MOUNTPOINT may be the same. Stopped (SIGSTOP) it is a server that
// hangs, killed one that is gone.
#define FUSE_USE_VERSION 35
#include <dirent.h>
#include <fcntl.h>
#include <fuse.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace {

constexpr uid_t kNobody = 65534;
constexpr int kMostGroups = 1024;

int top = -1;  // DIRECTORY, opened before anything is mounted over it

gid_t squashed(gid_t id) { return id == 0 ? kNobody : id; }

// This thread does what follows as the caller does. Each request that names a path does this; open files carry their own rights.
void become_caller() {
    const fuse_context& caller = *fuse_get_context();
    std::array<gid_t, kMostGroups> groups{};
    int count = caller.uid == 0 ? 0 : fuse_getgroups(kMostGroups, groups.data());
    if (count < 0 || count > kMostGroups) count = 0;  // the caller has gone, or /proc is not ours to read
    std::transform(groups.begin(), groups.begin() + count, groups.begin(), squashed);
    // the system calls, not the functions of the C library: those change all threads
    syscall(SYS_setgroups, count, groups.data());
    syscall(SYS_setfsgid, squashed(caller.gid));
    syscall(SYS_setfsuid, squashed(caller.uid));
}

// "/a/b" as seen from `top`. "" is `top` itself, which may be looked at without the right to search it.
const char* below(const char* path) { return path + 1; }
const char* below_or_dot(const char* path) { return path[1] == '\0' ? "." : path + 1; }

int answer(long result) { return result < 0 ? -errno : 0; }
int descriptor(const fuse_file_info* file) { return static_cast<int>(file->fh); }
DIR* directory(const fuse_file_info* file) { return reinterpret_cast<DIR*>(file->fh); }

void* start(fuse_conn_info*, fuse_config* config) {
    config->use_ino = 1;
    config->nullpath_ok = 1;
    config->hard_remove = 1;
    config->entry_timeout = config->attr_timeout = config->negative_timeout = 0;
    return nullptr;
}

int get_attributes(const char* path, struct stat* to, fuse_file_info* file) {
    if (file != nullptr) return answer(fstat(descriptor(file), to));
    become_caller();
    return answer(fstatat(top, below(path), to, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH));
}

int check_access(const char* path, int mask) {
    become_caller();
    return answer(faccessat(top, below(path), mask, AT_EACCESS | AT_EMPTY_PATH));
}

int read_link(const char* path, char* to, size_t size) {
    become_caller();
    const ssize_t length = readlinkat(top, below(path), to, size - 1);
    if (length < 0) return -errno;
    to[length] = '\0';
    return 0;
}

// ---- names
int make_directory(const char* path, mode_t mode) {
    become_caller();
    return answer(mkdirat(top, below(path), mode));
}

int remove_file(const char* path) {
    become_caller();
    return answer(unlinkat(top, below(path), 0));
}

int remove_directory(const char* path) {
    become_caller();
    return answer(unlinkat(top, below(path), AT_REMOVEDIR));
}

int make_symlink(const char* target, const char* path) {
    become_caller();
    return answer(symlinkat(target, top, below(path)));
}

int make_link(const char* from, const char* to) {
    become_caller();
    return answer(linkat(top, below(from), top, below(to), 0));
}

int rename_it(const char* from, const char* to, unsigned flags) {
    become_caller();
    return answer(renameat2(top, below(from), top, below(to), flags));
}

// ---- attributes
int change_mode(const char* path, mode_t mode, fuse_file_info*) {
    become_caller();
    return answer(fchmodat(top, below_or_dot(path), mode, 0));
}

int change_owner(const char* path, uid_t uid, gid_t gid, fuse_file_info*) {
    become_caller();
    return answer(fchownat(top, below(path), uid, gid, AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH));
}

int change_times(const char* path, const timespec times[2], fuse_file_info*) {
    become_caller();
    return answer(utimensat(top, below_or_dot(path), times, AT_SYMLINK_NOFOLLOW));
}

int file_system_state(const char*, struct statvfs* to) { return answer(fstatvfs(top, to)); }

// ---- files
int open_with(const char* path, int flags, mode_t mode, fuse_file_info* file) {
    become_caller();
    const int fd = openat(top, below(path), flags | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0) return -errno;
    file->fh = static_cast<std::uint64_t>(fd);
    return 0;
}

int create_file(const char* path, mode_t mode, fuse_file_info* file) { return open_with(path, file->flags | O_CREAT, mode, file); }
int open_file(const char* path, fuse_file_info* file) { return open_with(path, file->flags, 0, file); }

int truncate_file(const char* path, off_t size, fuse_file_info* file) {
    if (file != nullptr) return answer(ftruncate(descriptor(file), size));
    fuse_file_info opened{};
    if (const int error = open_with(path, O_WRONLY, 0, &opened); error != 0) return error;
    const int result = answer(ftruncate(descriptor(&opened), size));
    close(descriptor(&opened));
    return result;
}

int read_file(const char*, char* to, size_t size, off_t offset, fuse_file_info* file) {
    const ssize_t count = pread(descriptor(file), to, size, offset);
    return count < 0 ? -errno : static_cast<int>(count);
}

int write_file(const char*, const char* from, size_t size, off_t offset, fuse_file_info* file) {
    const ssize_t count = pwrite(descriptor(file), from, size, offset);
    return count < 0 ? -errno : static_cast<int>(count);
}

int sync_file(const char*, int data_only, fuse_file_info* file) {
    return answer(data_only != 0 ? fdatasync(descriptor(file)) : fsync(descriptor(file)));
}

int allocate(const char*, int mode, off_t offset, off_t length, fuse_file_info* file) {
    return answer(fallocate(descriptor(file), mode, offset, length));
}

int close_file(const char*, fuse_file_info* file) { return answer(close(descriptor(file))); }

// ---- directories
int open_directory(const char* path, fuse_file_info* file) {
    become_caller();
    const int fd = openat(top, below_or_dot(path), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR* const opened = fd < 0 ? nullptr : fdopendir(fd);
    if (opened == nullptr) return -errno;
    file->fh = reinterpret_cast<std::uint64_t>(opened);
    return 0;
}

int read_directory(const char*, void* to, fuse_fill_dir_t fill, off_t, fuse_file_info* file, fuse_readdir_flags) {
    rewinddir(directory(file));
    errno = 0;
    while (const dirent* entry = readdir(directory(file))) {
        struct stat kind{};
        kind.st_ino = entry->d_ino;
        kind.st_mode = static_cast<mode_t>(DTTOIF(entry->d_type));
        if (fill(to, entry->d_name, &kind, 0, fuse_fill_dir_flags{}) != 0) return -ENOMEM;
        errno = 0;
    }
    return -errno;
}

int sync_directory(const char*, int, fuse_file_info* file) { return answer(fsync(dirfd(directory(file)))); }
int close_directory(const char*, fuse_file_info* file) { return answer(closedir(directory(file))); }

fuse_operations operations() {
    fuse_operations all{};
    all.init = start;
    all.getattr = get_attributes;
    all.access = check_access;
    all.readlink = read_link;
    all.mkdir = make_directory;
    all.unlink = remove_file;
    all.rmdir = remove_directory;
    all.symlink = make_symlink;
    all.link = make_link;
    all.rename = rename_it;
    all.chmod = change_mode;
    all.chown = change_owner;
    all.utimens = change_times;
    all.statfs = file_system_state;
    all.create = create_file;
    all.open = open_file;
    all.truncate = truncate_file;
    all.read = read_file;
    all.write = write_file;
    all.fsync = sync_file;
    all.fallocate = allocate;
    all.release = close_file;
    all.opendir = open_directory;
    all.readdir = read_directory;
    all.fsyncdir = sync_directory;
    all.releasedir = close_directory;
    return all;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::fprintf(stderr, "usage: squash_fs DIRECTORY MOUNTPOINT\n");
        return 2;
    }
    struct stat seen{};
    if (stat(argv[2], &seen) != 0 && errno == ENOTCONN) umount2(argv[2], MNT_DETACH);  // what an instance that was killed has left
    top = open(argv[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (top < 0) {
        std::fprintf(stderr, "squash_fs: %s: %s\n", argv[1], std::strerror(errno));
        return 1;
    }
    umask(0);  // the caller's own is in the modes already
    char program[] = "squash_fs", foreground[] = "-f", option[] = "-o", options[] = "allow_other,fsname=squash,subtype=squash";
    std::array<char*, 6> arguments{program, foreground, option, options, argv[2], nullptr};
    const fuse_operations all = operations();
    return fuse_main(static_cast<int>(arguments.size()) - 1, arguments.data(), &all, nullptr);
}
