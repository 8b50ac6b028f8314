// SPDX-License-Identifier: GPL-3.0-or-later
//
// libsckpt-criu-preload.so: small corrections to the criu process, loaded in front of libc. Neither criu's images nor its protocol change.
// - ptrace: a dump interrupts timed sleeps and polls, and criu turns the kernel's "continue with the rest of the time" into EINTR in the
// job.
//   Rewritten to
//   "start the call again" the job sees nothing: a sleep goes on for what is left of it, a poll waits anew for its whole time.
// - splice: past SCKPT_DEADLINE_MS the writing of memory fails, so that criu gives the dump up and cures the tree by itself.
// - files at a restore (SCKPT_FILES_UID, _GID, _GROUPS): criu opens and creates a job's files as root, by paths that the user may have
// turned
//   elsewhere since the dump. With these calls made under the user's file-system ids nobody gets at what is not theirs, and the files may
//   be on a file system where root has fewer rights than the user.
// No C++ library, no exceptions: this is loaded into a C program.
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
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

// Raw calls: libc's act on all threads that it knows of, and criu's tasks are clones that it does not know.
class AsUser {
   public:
    explicit AsUser(bool wanted) : active_(wanted && files_user().set) {
        if (!active_) return;
        const User& user = files_user();
        group_count_ = ::syscall(SYS_getgroups, kMaxGroups, groups_);
        ::syscall(SYS_setgroups, user.group_count, user.groups);
        ::syscall(SYS_setfsgid, user.gid);
        ::syscall(SYS_setfsuid, user.uid);  // last: with it go the capabilities over files
    }
    AsUser(const AsUser&) = delete;
    AsUser& operator=(const AsUser&) = delete;
    ~AsUser() {
        if (!active_) return;
        const int error = errno;
        ::syscall(SYS_setfsuid, 0);
        ::syscall(SYS_setfsgid, 0);
        ::syscall(SYS_setgroups, group_count_, groups_);
        errno = error;
    }

   private:
    bool active_;
    long group_count_ = 0;
    unsigned groups_[kMaxGroups];
};

// Files that have no name any more are made anew under a name of criu's.
bool is_ghost(const char* path) { return ::strstr(path, ".cr.") != nullptr && ::strstr(path, ".ghost") != nullptr; }

}  // namespace

#define SCKPT_WRAPPED extern "C" __attribute__((visibility("default")))

SCKPT_WRAPPED int openat64(int directory, const char* path, int flags, ...) {
    static const auto real = next<int (*)(int, const char*, int, mode_t)>("openat64");
    va_list list;
    va_start(list, flags);
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(list, mode_t) : 0;
    va_end(list);
    const AsUser user(is_root_directory(directory));
    return real(directory, path, flags, mode);
}

SCKPT_WRAPPED int open64(const char* path, int flags, ...) {
    static const auto real = next<int (*)(const char*, int, mode_t)>("open64");
    va_list list;
    va_start(list, flags);
    const mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(list, mode_t) : 0;
    va_end(list);
    const AsUser user(is_ghost(path));
    return real(path, flags, mode);
}

SCKPT_WRAPPED int linkat(int from, const char* old_path, int to, const char* new_path, int flags) noexcept {
    static const auto real = next<int (*)(int, const char*, int, const char*, int)>("linkat");
    const AsUser user(is_root_directory(from) && is_root_directory(to));
    return real(from, old_path, to, new_path, flags);
}

SCKPT_WRAPPED int unlinkat(int directory, const char* path, int flags) noexcept {
    static const auto real = next<int (*)(int, const char*, int)>("unlinkat");
    const AsUser user(is_root_directory(directory));
    return real(directory, path, flags);
}

SCKPT_WRAPPED int mkdirat(int directory, const char* path, mode_t mode) noexcept {
    static const auto real = next<int (*)(int, const char*, mode_t)>("mkdirat");
    const AsUser user(is_root_directory(directory));
    return real(directory, path, mode);
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
