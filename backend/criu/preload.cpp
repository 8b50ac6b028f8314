// SPDX-License-Identifier: GPL-3.0-or-later
//
// libsckpt-criu-preload.so: small corrections to the criu process, loaded in front of libc. Neither criu's images nor its protocol change.
// - ptrace: a dump interrupts timed sleeps and polls, and criu turns the kernel's "continue with the rest of the time" into EINTR in the
// job.
//   Rewritten to
//   "start the call again" the job sees nothing: a sleep goes on for what is left of it, a poll waits anew for its whole time.
// - splice: past SCKPT_DEADLINE_MS the writing of memory fails, so that criu gives the dump up and cures the tree by itself.
// - files at a restore (SCKPT_FILES_UID, _GID, _GROUPS): criu opens, creates and removes a job's files as root, by paths that the user
//   may have turned elsewhere since the dump. With these calls made under the user's file-system ids nobody gets at what is not theirs,
//   and the files may be on a file system where root has fewer rights than the user. Nothing is bound to a path at all.
// No C++ library, no exceptions: this is loaded into a C program.
#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/user.h>
#include <unistd.h>

namespace {

// Kernel-internal results of an interrupted system call, visible to a tracer only (include/linux/errno.h).
constexpr long kRestartBlock = -516;  // ERESTART_RESTARTBLOCK
constexpr long kRestartCall = -513;   // ERESTARTNOINTR: the same call again, with its first arguments

template <class F>
F next(const char* name) {
    return reinterpret_cast<F>(::dlsym(RTLD_NEXT, name));
}

bool past_deadline() {
    static const char* const text = ::getenv("SCKPT_DEADLINE_MS");
    if (text == nullptr) return false;
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000 >= ::strtoll(text, nullptr, 10);
}

#ifdef __x86_64__
void restart_timed_call(const iovec& registers) {
    if (registers.iov_len != sizeof(user_regs_struct)) return;
    auto& values = *static_cast<user_regs_struct*>(registers.iov_base);
    const auto call = static_cast<long>(values.orig_rax);
    if (call < 0 || static_cast<long>(values.rax) != kRestartBlock) return;
    values.rax = static_cast<unsigned long long>(kRestartCall);
    // a sleep has left the rest of its time where the caller wanted it: sleep that, not the whole time again
    if (call == SYS_nanosleep && values.rsi != 0) values.rdi = values.rsi;
    if (call == SYS_clock_nanosleep && values.r10 != 0) values.rdx = values.r10;
}
#endif

// ---- files ----

constexpr int kMaxGroups = 1024;

struct User {
    bool set = false;
    unsigned uid = 0, gid = 0, groups[kMaxGroups] = {};
    int group_count = 0;
};

unsigned number_from(const char* name) {
    const char* const text = ::getenv(name);
    return text != nullptr ? static_cast<unsigned>(::strtoul(text, nullptr, 10)) : 0;
}

// SCKPT_FILES_GROUPS: "4,27,100"
const User& files_user() {
    static User user;
    if (user.set || ::getenv("SCKPT_FILES_UID") == nullptr) return user;
    user.uid = number_from("SCKPT_FILES_UID");
    user.gid = number_from("SCKPT_FILES_GID");
    const char* list = ::getenv("SCKPT_FILES_GROUPS");
    for (char* end = nullptr; list != nullptr && *list != 0 && user.group_count < kMaxGroups; list = *end == ',' ? end + 1 : end)
        user.groups[user.group_count++] = static_cast<unsigned>(::strtoul(list, &end, 10));
    user.set = true;
    return user;
}

// criu names a task's files relative to its descriptor of the root directory; its own files are relative to others.
bool is_root_directory(int fd) {
    struct stat given{}, root{};
    return fd >= 0 && ::fstat(fd, &given) == 0 && ::stat("/", &root) == 0 && given.st_ino == root.st_ino && given.st_dev == root.st_dev;
}

// criu's own names, which are root's: its cache above the image directory. No deeper paths, which could lead back out ("..").
bool is_own(const char* path) {
    static const char* const cache = ::getenv("XDG_RUNTIME_DIR");
    const std::size_t length = cache != nullptr ? ::strlen(cache) : 0;
    return length > 1 && ::strncmp(path, cache, length) == 0 && path[length] == '/' && ::strchr(path + length + 1, '/') == nullptr;
}

// Of calls that change what lies at a path. An empty path means the descriptor itself.
bool is_users(int directory, const char* path) {
    return directory == AT_FDCWD ? !is_own(path) : *path != 0 && is_root_directory(directory);
}

// Raw calls: libc's act on all threads that it knows of, and criu's tasks are clones that it does not know.
class AsUser {
   public:
    explicit AsUser(bool wanted) : active_(wanted && files_user().set) {
        if (!active_) return;
        const User& user = files_user();
        group_count_ = ::syscall(SYS_getgroups, kMaxGroups, groups_);
        if (group_count_ < 0 || ::syscall(SYS_setgroups, user.group_count, user.groups) != 0) return;
        ::syscall(SYS_setfsgid, user.gid);
        ::syscall(SYS_setfsuid, user.uid);  // last: with it go the capabilities over files
        is_user_ = user.uid != 0 && current(SYS_setfsuid) == user.uid && current(SYS_setfsgid) == user.gid;
    }
    AsUser(const AsUser&) = delete;
    AsUser& operator=(const AsUser&) = delete;
    ~AsUser() {
        if (!active_) return;
        const int error = errno;
        ::syscall(SYS_setfsuid, 0);
        ::syscall(SYS_setfsgid, 0);
        if (group_count_ >= 0) ::syscall(SYS_setgroups, group_count_, groups_);
        errno = error;
    }
    [[nodiscard]] bool failed() const { return active_ && !is_user_; }

   private:
    // These two calls tell of no error, only of the id so far; -1 is nobody's id and changes nothing.
    static unsigned current(long call) { return static_cast<unsigned>(::syscall(call, -1)); }

    bool active_;
    bool is_user_ = false;
    long group_count_ = -1;
    unsigned groups_[kMaxGroups];
};

// Rather not at all than as root.
template <class Call>
int as_user(bool wanted, Call call) {
    const AsUser user(wanted);
    if (!user.failed()) return call();
    errno = EPERM;
    return -1;
}

// Files that have no name any more are made anew under a name of criu's.
bool is_ghost(const char* path) { return ::strstr(path, ".cr.") != nullptr && ::strstr(path, ".ghost") != nullptr; }

// criu's mount points, made and removed by itself: directly below /tmp or /.
bool is_mount_point(const char* path) {
    const char* const name = ::strncmp(path, "/tmp/", 5) == 0 ? path + 5 : path + (*path == '/' ? 1 : 0);
    return ::strchr(name, '/') == nullptr && !is_ghost(path);
}

}  // namespace

#define SCKPT_WRAPPED extern "C" __attribute__((visibility("default")))

SCKPT_WRAPPED int openat64(int directory, const char* path, int flags, ...) {
    static const auto real = next<int (*)(int, const char*, int, mode_t)>("openat64");
    va_list list;
    va_start(list, flags);
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(list, mode_t) : 0;
    va_end(list);
    return as_user(is_root_directory(directory), [&] { return real(directory, path, flags, mode); });
}

SCKPT_WRAPPED int open64(const char* path, int flags, ...) {
    static const auto real = next<int (*)(const char*, int, mode_t)>("open64");
    va_list list;
    va_start(list, flags);
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(list, mode_t) : 0;
    va_end(list);
    return as_user(is_ghost(path), [&] { return real(path, flags, mode); });
}

SCKPT_WRAPPED int linkat(int from, const char* old_path, int to, const char* new_path, int flags) noexcept {
    static const auto real = next<int (*)(int, const char*, int, const char*, int)>("linkat");
    return as_user(is_root_directory(from) && is_root_directory(to), [&] { return real(from, old_path, to, new_path, flags); });
}

SCKPT_WRAPPED int unlinkat(int directory, const char* path, int flags) noexcept {
    static const auto real = next<int (*)(int, const char*, int)>("unlinkat");
    return as_user(is_users(directory, path), [&] { return real(directory, path, flags); });
}

SCKPT_WRAPPED int mkdirat(int directory, const char* path, mode_t mode) noexcept {
    static const auto real = next<int (*)(int, const char*, mode_t)>("mkdirat");
    return as_user(is_users(directory, path), [&] { return real(directory, path, mode); });
}

SCKPT_WRAPPED int fchownat(int directory, const char* path, uid_t uid, gid_t gid, int flags) noexcept {
    static const auto real = next<int (*)(int, const char*, uid_t, gid_t, int)>("fchownat");
    return as_user(is_users(directory, path), [&] { return real(directory, path, uid, gid, flags); });
}

SCKPT_WRAPPED int fchmodat(int directory, const char* path, mode_t mode, int flags) noexcept {
    static const auto real = next<int (*)(int, const char*, mode_t, int)>("fchmodat");
    return as_user(is_users(directory, path), [&] { return real(directory, path, mode, flags); });
}

SCKPT_WRAPPED int unlink(const char* path) noexcept {
    static const auto real = next<int (*)(const char*)>("unlink");
    return as_user(!is_own(path), [&] { return real(path); });
}

SCKPT_WRAPPED int rmdir(const char* path) noexcept {
    static const auto real = next<int (*)(const char*)>("rmdir");
    return as_user(!is_own(path) && !is_mount_point(path), [&] { return real(path); });
}

SCKPT_WRAPPED int mknod(const char* path, mode_t mode, dev_t device) noexcept {
    static const auto real = next<int (*)(const char*, mode_t, dev_t)>("mknod");
    return as_user(!is_own(path), [&] { return real(path, mode, device); });
}

SCKPT_WRAPPED int symlink(const char* target, const char* path) noexcept {
    static const auto real = next<int (*)(const char*, const char*)>("symlink");
    return as_user(!is_own(path), [&] { return real(target, path); });
}

SCKPT_WRAPPED int rename(const char* from, const char* to) noexcept {
    static const auto real = next<int (*)(const char*, const char*)>("rename");
    return as_user(!is_own(from) || !is_own(to), [&] { return real(from, to); });
}

SCKPT_WRAPPED int lutimes(const char* path, const timeval* times) noexcept {
    static const auto real = next<int (*)(const char*, const timeval*)>("lutimes");
    return as_user(!is_own(path), [&] { return real(path, times); });
}

// A dump with a socket at a path is refused (descriptor_check.cpp), but one may have been under way in another socket's queue.
SCKPT_WRAPPED int bind(int socket, const sockaddr* address, socklen_t length) noexcept {
    static const auto real = next<int (*)(int, const sockaddr*, socklen_t)>("bind");
    const bool at_path = length > offsetof(sockaddr_un, sun_path) && address->sa_family == AF_UNIX &&
                         reinterpret_cast<const sockaddr_un*>(address)->sun_path[0] != 0;
    if (!at_path || !files_user().set) return real(socket, address, length);
    errno = EPERM;
    return -1;
}

SCKPT_WRAPPED long ptrace(__ptrace_request request, ...) noexcept {
    static const auto real = next<long (*)(__ptrace_request, pid_t, void*, void*)>("ptrace");
    va_list list;
    va_start(list, request);
    const pid_t pid = va_arg(list, pid_t);
    void* const address = va_arg(list, void*);
    void* const data = va_arg(list, void*);
    va_end(list);
    const long result = real(request, pid, address, data);
#ifdef __x86_64__
    if (result != -1 && request == PTRACE_GETREGSET && address == reinterpret_cast<void*>(NT_PRSTATUS))
        restart_timed_call(*static_cast<const iovec*>(data));
#endif
    return result;
}

SCKPT_WRAPPED ssize_t splice(int in, off64_t* in_at, int out, off64_t* out_at, size_t length, unsigned flags) {
    static const auto real = next<ssize_t (*)(int, off64_t*, int, off64_t*, size_t, unsigned)>("splice");
    if (past_deadline()) {
        errno = ETIMEDOUT;
        return -1;
    }
    return real(in, in_at, out, out_at, length, flags);
}
