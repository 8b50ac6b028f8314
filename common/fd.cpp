// SPDX-License-Identifier: GPL-3.0-or-later
//
// Descriptors, small files, directory trees, and messages with descriptors. All of it is loops around system calls that
// know EINTR, short counts and truncated control data, so that no caller has to.
#include "common/fd.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace sckpt {

void UniqueFd::reset(int fd) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = fd;
}

Result<UniqueFd> open_at(int dir, const std::string& name, int flags, unsigned mode) {
    int fd = -1;
    do fd = ::openat(dir, name.c_str(), flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    if (fd < 0) return fail_errno("open " + name);
    return UniqueFd(fd);
}

Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode) { return open_at(AT_FDCWD, path, flags, mode); }

Result<std::string> read_file(const std::string& path, std::size_t limit) {
    SCKPT_ASSIGN(UniqueFd fd, open_file(path, O_RDONLY));
    return read_all(fd.get(), path, limit);
}

Result<std::string> read_all(int fd, const std::string& shown, std::size_t limit) {
    std::string bytes;
    std::array<char, 16384> buffer;
    for (;;) {
        const ssize_t n = ::read(fd, buffer.data(), buffer.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno("read " + shown);
        if (n == 0) return bytes;
        if (bytes.size() + static_cast<std::size_t>(n) > limit)
            return fail(Errc::invalid, shown + " is larger than the " + std::to_string(limit) + " bytes that are accepted");
        bytes.append(buffer.data(), static_cast<std::size_t>(n));
    }
}

Result<> write_all(int fd, std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t n = ::write(fd, bytes.data(), bytes.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno("write");
        bytes.remove_prefix(static_cast<std::size_t>(n));
    }
    return {};
}

// ---- durable files ----

namespace {

std::string parent_of(const std::string& path) {
    const auto slash = path.rfind('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

// Fills the open temporary file: its bytes and its mode are on the disk when this succeeds.
Result<> fill_durably(int fd, const std::string& path, std::string_view bytes, unsigned mode) {
    if (auto written = write_all(fd, bytes); !written) return std::unexpected(written.error().context(path));
    if (::fchmod(fd, mode) != 0) return fail_errno("set the mode of " + path);
    if (::fsync(fd) != 0) return fail_errno("fsync " + path);
    return {};
}

}  // namespace

Result<> fsync_directory(const std::string& path) {
    SCKPT_ASSIGN(UniqueFd fd, open_file(path, O_RDONLY | O_DIRECTORY));
    if (::fsync(fd.get()) != 0) return fail_errno("fsync " + path);
    return {};
}

Result<> write_file_durable(const std::string& path, std::string_view bytes, unsigned mode) {
    std::string temporary = path + ".XXXXXX";
    UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
    if (!fd) return fail_errno("make a temporary file for " + path);
    auto result = fill_durably(fd.get(), temporary, bytes, mode);
    if (result && ::rename(temporary.c_str(), path.c_str()) != 0) result = fail_errno("rename " + temporary + " to " + path);
    if (!result) {
        ::unlink(temporary.c_str());
        return result;
    }
    return fsync_directory(parent_of(path));
}

// ---- directories ----

Result<> make_directories(const std::string& path, unsigned mode) {
    if (path.empty()) return fail(Errc::invalid, "make a directory: the path is empty");
    for (std::size_t end = 0; end != std::string::npos;) {
        end = path.find('/', end + 1);
        const std::string part = path.substr(0, end);
        if (::mkdir(part.c_str(), mode) != 0 && errno != EEXIST) return fail_errno("make directory " + part);
    }
    struct stat st {};
    if (::stat(path.c_str(), &st) != 0) return fail_errno("stat " + path);
    if (!S_ISDIR(st.st_mode)) return fail(Errc::invalid, path + " exists and is not a directory");
    return {};
}

namespace {

struct CloseDir {
    void operator()(DIR* dir) const { ::closedir(dir); }
};
using Directory = std::unique_ptr<DIR, CloseDir>;

// A directory whose entries are being removed. A stack of our own, not recursion: a deep tree ends in EMFILE, not in a crash.
struct Level {
    Directory directory;
    std::string name;  // in the level below; for messages and rmdir
};

Result<Directory> open_for_removal(int parent, const std::string& name, dev_t device, const std::string& shown) {
    SCKPT_ASSIGN(UniqueFd fd, open_at(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return fail_errno("stat " + shown);
    if (st.st_dev != device) return fail(Errc::busy, shown + " is on another file system (a mount point?): not removed");
    Directory directory(::fdopendir(fd.get()));
    if (!directory) return fail_errno("read directory " + shown);
    fd.release();  // the directory stream owns it now
    return directory;
}

// Removes the next entry of the top level that is no directory; the name of a directory to descend into, or none at the end.
Result<std::optional<std::string>> remove_files_until_directory(DIR* directory, const std::string& shown) {
    for (;;) {
        errno = 0;
        const dirent* entry = ::readdir(directory);
        if (entry == nullptr && errno != 0) return fail_errno("read directory " + shown);
        if (entry == nullptr) return std::nullopt;
        const std::string name = entry->d_name;
        if (name == "." || name == "..") continue;
        if (::unlinkat(::dirfd(directory), name.c_str(), 0) == 0 || errno == ENOENT) continue;
        if (errno != EISDIR && errno != EPERM) return fail_errno("remove " + shown + "/" + name);
        const int unlink_errno = errno;
        struct stat st {};
        if (::fstatat(::dirfd(directory), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0)
            return fail_errno("stat " + shown + "/" + name);
        if (!S_ISDIR(st.st_mode)) return fail_errno("remove " + shown + "/" + name, unlink_errno);
        return name;
    }
}

}  // namespace

Result<> remove_tree(const std::string& given) {
    std::string path = given;
    while (path.size() > 1 && path.back() == '/') path.pop_back();  // "link/" would follow the link
    struct stat st {};
    if (::lstat(path.c_str(), &st) != 0) {
        if (errno == ENOENT) return {};
        return fail_errno("stat " + path);
    }
    if (!S_ISDIR(st.st_mode)) {
        if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno("remove " + path);
        return {};
    }
    std::vector<Level> levels;
    SCKPT_ASSIGN(Directory top, open_for_removal(AT_FDCWD, path, st.st_dev, path));
    levels.push_back({std::move(top), path});
    while (!levels.empty()) {
        DIR* directory = levels.back().directory.get();
        SCKPT_ASSIGN(const auto child, remove_files_until_directory(directory, levels.back().name));
        if (child) {
            SCKPT_ASSIGN(Directory opened,
                         open_for_removal(::dirfd(directory), *child, st.st_dev, levels.back().name + "/" + *child));
            levels.push_back({std::move(opened), *child});
            continue;
        }
        const std::string name = levels.back().name;
        levels.pop_back();
        const int parent = levels.empty() ? AT_FDCWD : ::dirfd(levels.back().directory.get());
        if (::unlinkat(parent, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) return fail_errno("remove directory " + name);
    }
    return {};
}

// ---- messages ----

namespace {

using Clock = std::chrono::steady_clock;

// Waits until the socket can be read, for what is left of the deadline.
Result<> wait_readable(int socket, int deadline_ms) {
    const auto end = Clock::now() + std::chrono::milliseconds(std::max(deadline_ms, 0));
    for (;;) {
        const auto left_ms = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
        const int left = deadline_ms < 0 ? -1 : static_cast<int>(std::max<std::int64_t>(left_ms, 0));
        pollfd item{socket, POLLIN, 0};
        const int n = ::poll(&item, 1, left);
        if (n > 0) return {};
        if (n == 0) return fail(Errc::timeout, "no message came within " + std::to_string(deadline_ms) + " ms");
        if (errno != EINTR) return fail_errno("wait for a message");
    }
}

// Takes every descriptor out of the control data, so that none can leak whatever is then said about the message.
std::vector<UniqueFd> take_descriptors(msghdr& header) {
    std::vector<UniqueFd> fds;
    for (cmsghdr* item = CMSG_FIRSTHDR(&header); item != nullptr; item = CMSG_NXTHDR(&header, item)) {
        if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
        const std::size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(item) + i * sizeof(int), sizeof(int));
            fds.emplace_back(fd);
        }
    }
    return fds;
}

union Control {
    cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * kMaxFds)];
};

}  // namespace

Result<> send_message(int socket, std::string_view bytes, const int* fds, int fd_count) {
    assert(fd_count >= 0 && fd_count <= kMaxFds);
    if (bytes.empty()) return fail(Errc::internal, "send a message: it is empty, and an empty one means that the peer closed");
    iovec part{const_cast<char*>(bytes.data()), bytes.size()};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    Control control{};
    if (fd_count > 0) {
        const std::size_t size = sizeof(int) * static_cast<std::size_t>(fd_count);
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(size);
        cmsghdr* item = CMSG_FIRSTHDR(&header);
        item->cmsg_level = SOL_SOCKET;
        item->cmsg_type = SCM_RIGHTS;
        item->cmsg_len = CMSG_LEN(size);
        std::memcpy(CMSG_DATA(item), fds, size);
    }
    ssize_t n = -1;
    do n = ::sendmsg(socket, &header, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n >= 0) return {};
    if (errno == EPIPE || errno == ECONNRESET)
        return fail(Errc::unavailable, "send a message: the peer has closed the connection");
    return fail_errno("send a message");
}

Result<Received> receive_message(int socket, int deadline_ms, std::size_t limit) {
    SCKPT_TRY(wait_readable(socket, deadline_ms));
    std::string buffer(limit, '\0');
    iovec part{buffer.data(), buffer.size()};
    Control control{};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.bytes;
    header.msg_controllen = sizeof(control.bytes);
    ssize_t n = -1;
    do n = ::recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno == ECONNRESET) return Received{};  // the peer ended without reading what we sent: closed all the same
    if (n < 0) return fail_errno("receive a message");
    Received received{{}, take_descriptors(header)};
    if ((header.msg_flags & MSG_TRUNC) != 0)
        return fail(Errc::invalid, "a message is longer than the " + std::to_string(limit) + " bytes that are accepted");
    if ((header.msg_flags & MSG_CTRUNC) != 0)
        return fail(Errc::invalid,
                    "a message came with more than " + std::to_string(kMaxFds) + " descriptors, or more than can be opened here");
    buffer.resize(static_cast<std::size_t>(n));
    received.bytes = std::move(buffer);
    return received;
}

}  // namespace sckpt
