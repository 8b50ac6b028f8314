// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-store: the program. What it does is in daemon/store_worker.h.
#include <cstdio>
#include <format>
#include <memory>
#include <string>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/store_worker.h"

namespace sckpt {
namespace {

// The store must be the service user's alone. It is never made here: where it should be there may be the empty mount point of a file
// system that is not mounted.
Result<std::unique_ptr<FileSystem>> open_store(const std::string& path) {
    auto directory = open_file(path, O_RDONLY | O_DIRECTORY);
    const std::string look = std::format("is the file system mounted that should be there (findmnt -T {})? Nothing is to be made by hand where it is not", path);
    if (!directory && directory.error().code == Errc::not_found)
        return fail(Errc::unavailable, "there is no such directory on this node: " + look);
    if (!directory) return std::unexpected(directory.error());
    struct stat st {};
    if (::fstat(directory->get(), &st) != 0) return fail_errno("stat");
    if (st.st_uid != ::geteuid())
        return fail(Errc::denied, std::format("the directory belongs to user {}, not to the service user ({}): {}", st.st_uid, ::geteuid(), look));
    if ((st.st_mode & 07777) != 0700)
        return fail(Errc::denied, std::format("its mode is {:04o}, and images are nobody else's business: chmod 0700 {}", st.st_mode & 07777, path));
    return real_file_system(std::move(*directory));
}

}  // namespace
}  // namespace sckpt

// Nobody of the same user may look into this memory, which has what belongs to the jobs' users, or act in this process's name.
int main() {
    if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return 1;
    struct stat st {};
    if (::fstat(sckpt::kStoreSocket, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        std::fputs("sckpt-store is started by sckptd, which tells it what to do\n", stderr);
        return 2;
    }
    ::umask(077);
    sckpt::StoreChannel channel((sckpt::UniqueFd(sckpt::kStoreSocket)));
    return sckpt::serve_store(channel, sckpt::open_store) ? 0 : 1;
}
