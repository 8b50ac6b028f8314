// SPDX-License-Identifier: GPL-3.0-or-later
//
// A restore, as the driver does it: may this user have this image, then into the job's cgroups and mount namespace, and the init of a
// fresh PID namespace is started there.
#include <algorithm>
#include <format>

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "backend/criu/cgroups.h"
#include "backend/criu/driver.h"
#include "backend/criu/namespaces.h"
#include "common/fd.h"

namespace sckpt::criu {

namespace {

constexpr const char* kTaskEnded = "the restarted task ended before it could be restored";

Result<> check_alive(const UniqueFd& supervisor) {
    if (::syscall(SYS_pidfd_send_signal, supervisor.get(), 0, nullptr, 0) != 0) return fail(Errc::unavailable, kTaskEnded);
    return {};
}

// The supervisor is what Slurm started for this user now: the image may bring back no more rights than that.
Result<> check_rights(const Tree& tree, const ImageRecord& record, const Credentials& user) {
    if (user.uid != tree.uid || user.uid == 0)
        return fail(Errc::denied, std::format("the task to restore is a process of user {}, not of user {}", user.uid, tree.uid));
    if (record.uid != user.uid)
        return fail(Errc::denied, std::format("the image belongs to user {}, not to user {}", record.uid, user.uid));
    for (const gid_t group : record.groups)
        if (group != user.gid && !std::ranges::contains(user.groups, group))
            return fail(Errc::denied, std::format("the job ran with group {}, which its user does not have any more", group));
    return {};
}

}  // namespace

Result<pid_t> restore_tree(const Tree& tree, const ImageRecord& record) {
    const auto supervisor = open_pidfd(tree.supervisor);
    if (!supervisor) return fail(Errc::unavailable, kTaskEnded);
    SCKPT_ASSIGN(const Credentials user, credentials_of(tree.supervisor));
    SCKPT_TRY(check_rights(tree, record, user));
    SCKPT_ASSIGN(const UniqueFd mounts, foreign_namespace(tree.supervisor, "mnt"));
    SCKPT_TRY(join_cgroups_of(tree.supervisor));
    SCKPT_TRY(check_alive(*supervisor));  // so all of the above was about the process that was meant
    SCKPT_TRY(enter_mount_namespace(mounts, tree.directory));
    if (::unshare(CLONE_NEWPID) != 0) return fail_errno("make a PID namespace");
    auto init = start_child([&](UniqueFd& answer) { return run_init(tree, record, user, answer); }, tree.deadline + kLetGo);
    if (!init && init.error().code == Errc::timeout) return fail(Errc::timeout, "the restore did not end in time, and was given up");
    return init;
}

Result<nlohmann::json> restore(const Tree& tree) {
    SCKPT_ASSIGN(const ImageRecord record, read_record(tree.directory));
    SCKPT_TRY(restore_tree(tree, record));
    return nlohmann::json::object();
}

}  // namespace sckpt::criu
