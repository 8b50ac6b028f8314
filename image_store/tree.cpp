// SPDX-License-Identifier: GPL-3.0-or-later
//
// Loops around openat(2): a path is walked part by part with O_NOFOLLOW.
#include "image_store/tree.h"

#include <algorithm>
#include <format>
#include <memory>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image_store/hash.h"

namespace sckpt {
namespace {

constexpr std::size_t kBufferSize = 256u << 10;      // stays in the processor's cache between read, write and hash
constexpr std::uint64_t kFlushSize = 8u << 20;       // the disk writes while the rest is read, so that fsync has little left
constexpr int kDepthLimit = 32;  // of directories in an image; each holds a descriptor while it is listed

Result<UniqueFd> open_directory_at(int directory, const std::string& name) {
    auto opened = open_at(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    struct stat st {};
    if (!opened && ::fstatat(directory, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISDIR(st.st_mode))
        return fail(Errc::denied, name + (S_ISLNK(st.st_mode) ? " is a symbolic link: not followed" : " is not a directory"));
    return opened;
}

// Calls `step` for each part of the path with the directory opened so far, and goes on in what it returns.
template <class F>
Result<UniqueFd> walk(int top, std::string_view path, F step) {
    SCKPT_ASSIGN(UniqueFd at, open_directory_at(top, "."));
    while (!path.empty()) {
        const std::size_t slash = path.find('/');
        SCKPT_ASSIGN(at, step(at.get(), std::string(path.substr(0, slash))));
        path.remove_prefix(slash == std::string_view::npos ? path.size() : slash + 1);
    }
    return at;
}

// Has the disk begin with these bytes and does not wait. Only a hint: fsync tells whether they arrived.
std::uint64_t start_writing(int fd, std::uint64_t from, std::uint64_t to) {
    if (to > from) ::sync_file_range(fd, static_cast<off_t>(from), static_cast<off_t>(to - from), SYNC_FILE_RANGE_WRITE);
    return to;
}

Result<> list_into(int directory, const std::string& prefix, int depth, std::vector<std::string>& files) {
    if (depth > kDepthLimit) return fail(Errc::invalid, prefix + ": directories are nested too deeply");
    SCKPT_ASSIGN(const auto names, entries(directory));
    for (const std::string& name : names) {
        struct stat st {};
        if (::fstatat(directory, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) return fail_errno("stat " + prefix + name);
        if (S_ISREG(st.st_mode)) {
            files.push_back(prefix + name);
        } else if (S_ISDIR(st.st_mode)) {
            SCKPT_ASSIGN(const UniqueFd child, open_directory_at(directory, name));
            SCKPT_TRY(list_into(child.get(), prefix + name + "/", depth + 1, files));
        } else {
            return fail(Errc::invalid, prefix + name + " is neither a regular file nor a directory");
        }
    }
    return {};
}

}  // namespace

std::string directory_of(std::string_view path) {
    const std::size_t slash = path.rfind('/');
    return std::string(slash == std::string_view::npos ? std::string_view() : path.substr(0, slash));
}

std::string base_of(std::string_view path) { return std::string(path.substr(path.rfind('/') + 1)); }  // npos + 1 is 0

Result<UniqueFd> open_directory_below(int top, std::string_view path) { return walk(top, path, open_directory_at); }

Result<UniqueFd> make_directories_below(int top, std::string_view path) {
    return walk(top, path, [](int at, const std::string& name) -> Result<UniqueFd> {
        if (::mkdirat(at, name.c_str(), 0700) == 0) SCKPT_TRY(fsync_fd(at, "the directory of " + name));
        else if (errno != EEXIST) return fail_errno("make directory " + name);
        return open_directory_at(at, name);
    });
}

Result<UniqueFd> open_regular_below(int top, std::string_view path) {
    SCKPT_ASSIGN(const UniqueFd directory, open_directory_below(top, directory_of(path)));
    // A FIFO in place of the file must not block; nothing is read from what is not regular.
    SCKPT_ASSIGN(UniqueFd fd, open_at(directory.get(), base_of(path), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return fail_errno(std::format("stat {}", path));
    if (!S_ISREG(st.st_mode)) return fail(Errc::invalid, std::format("{} is not a regular file", path));
    return fd;
}

Result<UniqueFd> create_below(int top, std::string_view path) {
    SCKPT_ASSIGN(const UniqueFd directory, make_directories_below(top, directory_of(path)));
    return open_at(directory.get(), base_of(path), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
}

Result<> remove_tree_at(int directory, const std::string& name) {
    return remove_tree(std::format("/proc/self/fd/{}/{}", directory, name));
}

Result<> fsync_fd(int fd, std::string_view shown) {
    if (::fsync(fd) != 0) return fail_errno(std::format("fsync {}", shown));
    return {};
}

Result<bool> exists_at(int directory, const std::string& name) {
    struct stat st {};
    if (::fstatat(directory, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) return true;
    if (errno == ENOENT) return false;
    return fail_errno("stat " + name);
}

Result<std::vector<std::string>> entries(int directory) {
    SCKPT_ASSIGN(UniqueFd fd, open_directory_at(directory, "."));  // a position of its own
    const std::unique_ptr<DIR, decltype([](DIR* stream) { ::closedir(stream); })> stream(::fdopendir(fd.get()));
    if (!stream) return fail_errno("read a directory");
    fd.release();
    std::vector<std::string> names;
    for (;;) {
        errno = 0;
        const dirent* entry = ::readdir(stream.get());
        if (entry == nullptr && errno != 0) return fail_errno("read a directory");
        if (entry == nullptr) return names;
        if (const std::string name = entry->d_name; name != "." && name != "..") names.push_back(name);
    }
}

Result<std::vector<std::string>> list_files(int top) {
    std::vector<std::string> files;
    SCKPT_TRY(list_into(top, "", 0, files));
    std::ranges::sort(files);
    return files;
}

Result<std::string> read_below(int top, std::string_view path, std::size_t limit) {
    SCKPT_ASSIGN(const UniqueFd fd, open_regular_below(top, path));
    return read_file(std::format("/proc/self/fd/{}", fd.get()), limit);
}

Copier::Copier(std::function<void(std::uint64_t)> progress) : progress_(std::move(progress)), buffer_(kBufferSize) {}

Result<CopiedFile> Copier::copy(int from, int to) {
    Blake3 hash;
    CopiedFile copied;
    std::uint64_t flushed = 0;
    for (;;) {
        const ssize_t n = ::read(from, buffer_.data(), buffer_.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_errno("read");
        if (n == 0) break;
        const auto size = static_cast<std::size_t>(n);
        SCKPT_TRY(write_all(to, {buffer_.data(), size}));
        hash.update(buffer_.data(), size);
        copied.size += size;
        total_ += size;
        if (copied.size - flushed >= kFlushSize) flushed = start_writing(to, flushed, copied.size);
        if (progress_) progress_(total_);
    }
    start_writing(to, flushed, copied.size);
    copied.blake3 = hash.hex();
    return copied;
}

}  // namespace sckpt
