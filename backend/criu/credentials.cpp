// SPDX-License-Identifier: GPL-3.0-or-later
#include "backend/criu/credentials.h"

#include <array>
#include <format>
#include <sstream>
#include <string>

#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fd.h"

#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40
#endif

namespace sckpt::criu {

namespace {

// What criu dump uses. No CAP_SYS_RESOURCE: this list is for where it lacks.
constexpr std::array kDumpCapabilities = {
    CAP_CHECKPOINT_RESTORE, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_DAC_OVERRIDE, CAP_CHOWN, CAP_FOWNER, CAP_KILL, CAP_SYS_NICE};

struct CapabilitySets {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    std::array<__user_cap_data_struct, 2> data{};
};

Result<CapabilitySets> own_capabilities() {
    CapabilitySets sets;
    if (::syscall(SYS_capget, &sets.header, sets.data.data()) != 0) return fail_errno("capget");
    return sets;
}

Result<> keep_dump_capabilities() {
    CapabilitySets sets;
    for (const int capability : kDumpCapabilities) {
        auto& data = sets.data[static_cast<std::size_t>(capability) / 32];
        data.effective |= 1u << (capability % 32);
    }
    for (auto& data : sets.data) data.permitted = data.inheritable = data.effective;
    if (::syscall(SYS_capset, &sets.header, sets.data.data()) != 0) return fail_errno("keep the capabilities that a dump needs: capset");
    for (const int capability : kDumpCapabilities)
        if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0) != 0)
            return fail_errno(std::format("keep the capabilities that a dump needs: ambient capability {}", capability));
    return {};
}

Result<> change_ids(const Credentials& user) {
    if (user.uid == 0 || user.uid == static_cast<uid_t>(-1)) return fail(Errc::internal, "a child was to become root in place of a user");
    if (::setgroups(user.groups.size(), user.groups.data()) != 0) return fail_errno(std::format("take the groups of user {}", user.uid));
    if (::setresgid(user.gid, user.gid, user.gid) != 0) return fail_errno(std::format("take group {}", user.gid));
    if (::setresuid(user.uid, user.uid, user.uid) != 0) return fail_errno(std::format("become user {}", user.uid));
    return {};
}

}  // namespace

Result<Credentials> parse_credentials(std::string_view status) {
    Credentials user;
    std::istringstream lines{std::string(status)};
    int seen = 0;
    for (std::string line; std::getline(lines, line);) {
        std::istringstream fields(line);
        std::string key;
        fields >> key;
        if (key == "Uid:" || key == "Gid:") {
            std::array<std::uint32_t, 4> ids{};
            for (auto& id : ids) fields >> id;
            if (!fields) return fail(Errc::internal, "/proc/PID/status is not in the form that proc(5) tells: " + line);
            if (ids[0] != ids[1] || ids[0] != ids[2] || ids[0] != ids[3])
                return fail(Errc::denied, "a set-user-id or set-group-id program cannot be checkpointed");
            (key == "Uid:" ? user.uid : user.gid) = ids[0];
            ++seen;
        } else if (key == "Groups:") {
            for (gid_t group = 0; fields >> group;) user.groups.push_back(group);
            ++seen;
        }
    }
    if (seen != 3) return fail(Errc::internal, "/proc/PID/status lacks Uid, Gid or Groups");
    return user;
}

Result<Credentials> credentials_of(pid_t pid) {
    SCKPT_ASSIGN(const std::string status, read_file(std::format("/proc/{}/status", pid)));
    return parse_credentials(status);
}

Result<> become_user(const Credentials& user) {
    SCKPT_TRY(change_ids(user));
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail_errno("give up privileges for good");
    SCKPT_ASSIGN(const CapabilitySets left, own_capabilities());
    for (const auto& data : left.data)
        if (data.permitted != 0) return fail(Errc::internal, "a child that became a user still has capabilities");
    return {};
}

Result<> become_dumping_user(const Credentials& user) {
    if (::prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0) return fail_errno("keep capabilities");
    SCKPT_TRY(change_ids(user));
    return keep_dump_capabilities();
}

bool may_read_foreign_limits() {
    const auto sets = own_capabilities();
    return sets && (sets->data[CAP_SYS_RESOURCE / 32].effective & (1u << (CAP_SYS_RESOURCE % 32))) != 0;
}

}  // namespace sckpt::criu
