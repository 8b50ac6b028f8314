// SPDX-License-Identifier: GPL-3.0-or-later
//
// The init of a restored tree: PID 1 of its namespace. Prepares the namespace and runs criu there as root; when the tree runs it hands
// the tree's root to the supervisor, gives up every privilege and only reaps. It outlives the driver and sckptd.
#include <algorithm>
#include <format>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/criu/driver.h"
#include "backend/criu/script_mount.h"
#include "backend/criu/user_files.h"
#include "common/fd.h"
#include "rpc/local.h"

namespace sckpt::criu {

namespace {

constexpr const char* kLog = "restore.log";

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

Result<> make_mounts() {
    if (::unshare(CLONE_NEWNS) != 0) return fail_errno("make a mount namespace");
    if (::mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) return fail_errno("keep mounts private");
    if (::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0) return fail_errno("mount /proc");
    return {};
}

// What is started from now on, criu above all, gets numbers from a stretch that the image does not use.
Result<> stay_clear_of(std::vector<pid_t> ids) {
    constexpr pid_t kStretch = 2000;
    std::ranges::sort(ids);
    pid_t start = 300;
    for (const pid_t id : ids)
        if (id > start && id < start + kStretch) start = id;
    SCKPT_ASSIGN(const std::string limit, read_file("/proc/sys/kernel/pid_max"));
    if (start + kStretch > std::strtol(limit.c_str(), nullptr, 10))
        start = 1;  // nothing free in front of the limit: the image's numbers are high
    SCKPT_ASSIGN(const UniqueFd last, open_file("/proc/sys/kernel/ns_last_pid", O_WRONLY));
    return write_all(last.get(), std::to_string(start));
}

Result<> make_files_ready(const ImageRecord& record, const Credentials& user) {
    return in_child([&]() -> Result<> {
        SCKPT_TRY(become_user(user));
        SCKPT_TRY(check_directories(record.directories));
        SCKPT_TRY(roll_back_files(record.files));
        return roll_back_streams(record.streams, {kStreamFds, kStreamFds + 1, kStreamFds + 2});
    });
}

std::vector<std::string> restore_arguments(const Tree& tree, const ImageRecord& record, std::vector<int>& inherited) {
    std::vector<std::string> arguments = {"restore",      "--images-dir",   tree.directory, "--restore-detached",
                                          "-v4",          "--log-file",     kLog,           "--manage-cgroups=ignore",
                                          "--file-locks", "--network-lock", "skip",         "--skip-file-rwx-check"};
    std::vector<std::string> named;
    for (int fd = kStreamFds; fd < kStreamFds + 3; ++fd) {
        if (!is_open(fd)) continue;
        const TaskStream& stream = record.streams[static_cast<std::size_t>(fd - kStreamFds)];
        for (const std::string& name : {stream.resource, stream.alias}) {
            if (name.empty() || std::ranges::contains(named, name)) continue;
            named.push_back(name);
            inherited.push_back(::fcntl(fd, F_DUPFD_CLOEXEC, kStreamFds + 3));  // criu closes each number after its first use
            arguments.insert(arguments.end(), {"--inherit-fd", std::format("fd[{}]:{}", inherited.back(), name)});
        }
    }
    return arguments;
}

Result<> run_criu(const Tree& tree, const ImageRecord& record, const Credentials& user) {
    CriuCall call;
    call.arguments = restore_arguments(tree, record, call.inherited);
    std::string groups;
    for (const gid_t group : user.groups) groups += std::format("{}{}", groups.empty() ? "" : ",", group);
    call.environment = {std::format("SCKPT_FILES_UID={}", user.uid), std::format("SCKPT_FILES_GID={}", user.gid),
                        "SCKPT_FILES_GROUPS=" + groups};
    SCKPT_ASSIGN(const pid_t criu, start_criu(tree, std::move(call)));
    const auto end = wait_until(criu, tree.deadline);
    if (!end) return fail(Errc::timeout, "the restore did not end in time, and was given up");
    if (!end->ok()) return std::unexpected(explain_failure(tree, kLog, end->text()));
    return {};
}

Result<> send_status(int socket, local::Status status, const UniqueFd* root = nullptr) {
    const int fd = root != nullptr ? root->get() : -1;
    return send_message(socket, {reinterpret_cast<const char*>(&status), sizeof status}, &fd, root != nullptr ? 1 : 0);
}

// The reader of `answer` is the driver. Without it nobody can say that the restore succeeded, and the daemon reports a failure.
bool driver_is_gone(const UniqueFd& answer) {
    pollfd item{answer.get(), 0, 0};
    return ::poll(&item, 1, 0) > 0 && (item.revents & POLLERR) != 0;
}

// criu has ended, so the tree's root is our child now.
Result<> announce(const ImageRecord& record, UniqueFd& answer) {
    SCKPT_ASSIGN(const UniqueFd root, open_pidfd(record.root));
    if (driver_is_gone(answer)) return fail(Errc::unavailable, "the restore was given up meanwhile");
    return send_status(kStatusFd, {local::Status::What::restored, 0}, &root);
}

// Nothing stays but the status socket (as descriptor 3) and /dev/null.
Result<> give_up_everything(const Credentials& user) {
    if (::dup3(kStatusFd, 3, O_CLOEXEC) < 0 || ::close_range(4, ~0U, 0) != 0) return fail_errno("close descriptors");
    SCKPT_TRY(become_user(user));
    if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return fail_errno("prctl");
    return {};
}

Result<> reap_until(pid_t root) {
    for (;;) {
        int status = 0;
        const pid_t ended = ::waitpid(-1, &status, 0);
        if (ended < 0 && errno != EINTR) return fail_errno("wait for the restored processes");
        if (ended == root) return send_status(3, {local::Status::What::exited, status});
    }
}

}  // namespace

Result<> run_init(const Tree& tree, const ImageRecord& record, const Credentials& user, UniqueFd& answer) {
    ::setsid();
    ::prctl(PR_SET_NAME, "sckpt-init");
    ::close(kReportFd);  // the driver's own
    SCKPT_TRY(make_mounts());
    SCKPT_TRY(stay_clear_of(record.ids));
    SCKPT_TRY(make_files_ready(record, user));
    if (!record.script.empty()) SCKPT_TRY(put_script_back(record.script, tree.directory + "/" + kScriptCopy, user));
    SCKPT_TRY(run_criu(tree, record, user));
    SCKPT_TRY(announce(record, answer));
    answer.reset();
    SCKPT_TRY(give_up_everything(user));
    return reap_until(record.root);
}

}  // namespace sckpt::criu
