// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/owned_tree.h"

#include <format>
#include <memory>
#include <string>
#include <vector>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"

namespace sckpt {
namespace {

constexpr int kMaxDepth = 16;  // images are flat, or nearly

struct Rule {
    gid_t group;
    mode_t directory, file;
    bool nobody_writes;
};

using Stream = std::unique_ptr<DIR, decltype([](DIR* stream) { ::closedir(stream); })>;

Result<std::vector<std::string>> names_in(int directory, const std::string& shown) {
    SCKPT_ASSIGN(UniqueFd fd, open_at(directory, ".", O_RDONLY | O_DIRECTORY));
    const Stream stream(::fdopendir(fd.get()));
    if (!stream) return fail_errno("read directory " + shown);
    fd.release();  // the stream's now
    std::vector<std::string> names;
    for (;;) {
        errno = 0;
        const dirent* entry = ::readdir(stream.get());
        if (entry == nullptr && errno != 0) return fail_errno("read directory " + shown);
        if (entry == nullptr) return names;
        if (const std::string name = entry->d_name; name != "." && name != "..") names.push_back(name);
    }
}

// The owner first: a mode counts from then on, and drops what access control lists gave to others.
Result<> set(int fd, gid_t group, mode_t mode, const std::string& shown) {
    if (::fchown(fd, ::geteuid(), group) != 0) return fail_errno("take ownership of " + shown);
    if (::fchmod(fd, mode) != 0) return fail_errno("set the mode of " + shown);
    return {};
}

// A read lease is refused as long as anybody, anywhere, has the file open for writing.
Result<> check_no_writer(int fd, const std::string& shown) {
    if (::fcntl(fd, F_SETLEASE, F_RDLCK) == 0) {
        ::fcntl(fd, F_SETLEASE, F_UNLCK);
        return {};
    }
    if (errno == EAGAIN) return fail(Errc::denied, shown + " is still open for writing in some process: it cannot be relied on");
    return fail_errno("make sure that nobody writes to " + shown);
}

Result<> apply(int directory, const Rule& rule, const std::string& shown, int depth) {
    if (depth > kMaxDepth) return fail(Errc::invalid, shown + ": directories in directories, too many");
    SCKPT_TRY(set(directory, rule.group, rule.directory, shown));  // from here on nobody else adds or swaps an entry
    SCKPT_ASSIGN(const auto names, names_in(directory, shown));
    for (const std::string& name : names) {
        const std::string path = shown + "/" + name;
        SCKPT_ASSIGN(const UniqueFd fd, open_at(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
        struct stat st {};
        if (::fstat(fd.get(), &st) != 0) return fail_errno("stat " + path);
        if (S_ISDIR(st.st_mode)) {
            SCKPT_TRY(apply(fd.get(), rule, path, depth + 1));
            continue;
        }
        if (!S_ISREG(st.st_mode)) return fail(Errc::invalid, path + " is neither a directory nor a regular file");
        SCKPT_TRY(set(fd.get(), rule.group, rule.file, path));
        if (rule.nobody_writes) SCKPT_TRY(check_no_writer(fd.get(), path));
    }
    return {};
}

}  // namespace

Result<> let_read(int directory, gid_t reader) { return apply(directory, {reader, 0750, 0640, false}, "the image", 0); }
Result<> take_back(int directory) { return apply(directory, {::getegid(), 0700, 0600, false}, "the image", 0); }
Result<> take_over(int directory) { return apply(directory, {::getegid(), 0700, 0600, true}, "the image", 0); }

}  // namespace sckpt
