// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/run_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"

namespace sckpt {
namespace {

// Only root writes to the parent, so what is there is what root has made.
Result<UniqueFd> make_at(int parent, const std::string& name, const std::string& shown, uid_t owner, mode_t mode) {
    if (::mkdirat(parent, name.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno("make " + shown);
    SCKPT_ASSIGN(UniqueFd fd, open_at(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    if (::fchown(fd.get(), owner, static_cast<gid_t>(-1)) != 0 || ::fchmod(fd.get(), mode) != 0) return fail_errno("give " + shown + " to its user");
    return fd;
}

}  // namespace

Result<> make_run_directory(const std::string& base, uid_t uid) {
    SCKPT_ASSIGN(const UniqueFd top, open_file(base, O_RDONLY | O_DIRECTORY));
    SCKPT_ASSIGN(const UniqueFd run, make_at(top.get(), "run", base + "/run", 0, 0755));
    const std::string name = std::to_string(uid);
    SCKPT_TRY(make_at(run.get(), name, base + "/run/" + name, uid, 0700));
    return {};
}

}  // namespace sckpt
