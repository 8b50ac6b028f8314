// SPDX-License-Identifier: GPL-3.0-or-later
//
// Whose rights a process acts with. The driver is root; what touches a user's paths, and where it must be so the dump itself,
// is done by a child that became that user.
#pragma once

#include <sys/types.h>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace sckpt::criu {

struct Credentials {
    uid_t uid = 0;
    gid_t gid = 0;
    std::vector<gid_t> groups;  // supplementary
};

// As the kernel has them for a process. Errc::denied when its real, effective, saved or file-system ids are not all the same.
Result<Credentials> credentials_of(pid_t pid);
Result<Credentials> parse_credentials(std::string_view status);  // the text of /proc/PID/status

// The calling process (of one thread) becomes the user for good, without any privilege.
Result<> become_user(const Credentials& user);
// The same, but with the capabilities that a dump needs, kept over execve (ambient).
Result<> become_dumping_user(const Credentials& user);

bool may_read_foreign_limits();  // CAP_SYS_RESOURCE in force: prlimit(2) on another user's process

}  // namespace sckpt::criu
