// SPDX-License-Identifier: GPL-3.0-or-later
#include "backend/criu/user_files.h"

#include <filesystem>
#include <format>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"

namespace sckpt::criu {

namespace {

struct Opened {
    const UserFile* record;
    UniqueFd fd;
    std::uint64_t size;
};

std::unexpected<Error> unfit(const std::string& path, const std::string& what) {
    return fail(Errc::invalid, std::format("the file {} {} since the checkpoint; the job cannot go on from it", path, what));
}

// O_NONBLOCK: what was a regular file may be a FIFO by now.
Result<Opened> open_as_recorded(const UserFile& file) {
    UniqueFd fd(::open(file.path.c_str(), O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    if (!fd && errno == ENOENT) return unfit(file.path, "was removed");
    if (!fd && errno == ELOOP) return unfit(file.path, "was replaced by a symbolic link");
    if (!fd)
        return fail(Errc::invalid, std::format("the file {} cannot be opened for writing any more: {}", file.path, std::strerror(errno)));
    struct stat status{};
    if (::fstat(fd.get(), &status) != 0) return fail_errno(file.path);
    if (!S_ISREG(status.st_mode) || status.st_ino != file.inode) return unfit(file.path, "was replaced by another");
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (size < file.size) return unfit(file.path, std::format("shrank from {} to {} bytes", file.size, size));
    return Opened{&file, std::move(fd), size};
}

// Is the new task's descriptor on the very file that the image's stream was on?
bool is_same_file(const TaskStream& stream, int fd, struct stat& status) {
    if (!stream.regular || ::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || status.st_ino != stream.inode) return false;
    std::error_code error;
    return std::filesystem::read_symlink(std::format("/proc/self/fd/{}", fd), error) == stream.path && !error;
}

}  // namespace

Result<> roll_back_files(const std::vector<UserFile>& files) {
    std::vector<Opened> opened;
    for (const UserFile& file : files) {
        SCKPT_ASSIGN(Opened next, open_as_recorded(file));
        if (next.size > file.size) opened.push_back(std::move(next));
    }
    for (const Opened& file : opened)
        if (::ftruncate(file.fd.get(), static_cast<off_t>(file.record->size)) != 0) return fail_errno("roll back " + file.record->path);
    return {};
}

Result<> roll_back_streams(const std::array<TaskStream, 3>& streams, const std::array<int, 3>& descriptors) {
    for (std::size_t i = 1; i < streams.size(); ++i) {
        struct stat status{};
        if (!is_same_file(streams[i], descriptors[i], status)) continue;
        if (static_cast<std::uint64_t>(status.st_size) <= streams[i].size) continue;
        if (::ftruncate(descriptors[i], static_cast<off_t>(streams[i].size)) != 0) return fail_errno("roll back " + streams[i].path);
    }
    return {};
}

Result<> check_directories(const std::vector<std::string>& directories) {
    for (const std::string& path : directories) {
        struct stat status{};
        if (path.ends_with(" (deleted)")) continue;  // comes with the image
        if (::stat(path.c_str(), &status) != 0)
            return fail(Errc::invalid,
                        std::format("the job's working directory {} cannot be entered here: {}", path, std::strerror(errno)));
        if (!S_ISDIR(status.st_mode))
            return fail(Errc::invalid, std::format("the job's working directory {} is no directory any more", path));
    }
    return {};
}

}  // namespace sckpt::criu
