// SPDX-License-Identifier: GPL-3.0-or-later
//
// The kernel's files below one open directory. A path is walked part by part with openat(2), never through a symbolic link, so
// that nobody who can write there leads a privileged process elsewhere.
#include <algorithm>
#include <format>
#include <utility>

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "image_store/file_system.h"
#include "image_store/names.h"

namespace sckpt {
namespace {

class RealFile final : public File {
   public:
    RealFile(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

    Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> to) override {
        std::size_t done = 0;
        while (done < to.size()) {
            const ssize_t n = ::pread(fd_.get(), to.data() + done, to.size() - done, static_cast<off_t>(offset + done));
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return fail_errno("read " + path_);
            if (n == 0) break;
            done += static_cast<std::size_t>(n);
        }
        return done;
    }

    Result<> write_at(std::uint64_t offset, std::span<const std::byte> bytes) override {
        while (!bytes.empty()) {
            const ssize_t n = ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return fail_errno("write " + path_);
            if (n == 0) return fail(Errc::io, "write " + path_ + ": the file system takes no more bytes, and does not say why");
            offset += static_cast<std::uint64_t>(n);
            bytes = bytes.subspan(static_cast<std::size_t>(n));
        }
        return {};
    }

    Result<> truncate(std::uint64_t size) override {
        int rc = -1;
        do rc = ::ftruncate(fd_.get(), static_cast<off_t>(size));
        while (rc != 0 && errno == EINTR);
        if (rc != 0) return fail_errno("set the size of " + path_);
        return {};
    }

    Result<std::uint64_t> size() override {
        struct stat st {};
        if (::fstat(fd_.get(), &st) != 0) return fail_errno("stat " + path_);
        return static_cast<std::uint64_t>(st.st_size);
    }

    // What it cannot begin with, sync() does: its error is told there.
    void start_writing(std::uint64_t offset, std::uint64_t size) override {
        if (size != 0) ::sync_file_range(fd_.get(), static_cast<off_t>(offset), static_cast<off_t>(size), SYNC_FILE_RANGE_WRITE);
    }

    Result<> sync() override {
        if (::fdatasync(fd_.get()) != 0) return fail_errno("fsync " + path_);
        return {};
    }

   private:
    const UniqueFd fd_;
    const std::string path_;
};

// ".." is no symbolic link, and leads out all the same.
Result<> check_parts(std::string_view path) {
    for (std::string_view rest = path;;) {
        const std::size_t slash = rest.find('/');
        const std::string_view part = rest.substr(0, slash);
        if (part.empty() || part == "." || part == "..")
            return fail(Errc::invalid, std::format("\"{}\" is no path below a directory", path));
        if (slash == std::string_view::npos) return {};
        rest.remove_prefix(slash + 1);
    }
}

Result<UniqueFd> open_directory_at(int directory, const std::string& name, std::string_view path) {
    int fd = -1;
    do fd = ::openat(directory, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    if (fd >= 0) return UniqueFd(fd);
    const auto failed = fail_errno(std::format("open {}", path));
    struct stat st {};
    if (::fstatat(directory, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0 || S_ISDIR(st.st_mode)) return failed;
    if (S_ISLNK(st.st_mode)) return fail(Errc::denied, std::format("{}: {} is a symbolic link: not followed", path, name));
    return fail(Errc::invalid, std::format("{}: {} is not a directory", path, name));
}

class RealFileSystem final : public FileSystem {
   public:
    explicit RealFileSystem(UniqueFd top) : top_(std::move(top)) {}

    Result<std::unique_ptr<File>> open(const std::string& path) override {
        SCKPT_ASSIGN(const Place place, find(path));
        // A FIFO in place of the file must not block; nothing is read from what is not regular.
        SCKPT_ASSIGN(UniqueFd fd, place.open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY));
        struct stat st {};
        if (::fstat(fd.get(), &st) != 0) return fail_errno("stat " + path);
        if (!S_ISREG(st.st_mode)) return fail(Errc::invalid, path + " is not a regular file");
        return std::make_unique<RealFile>(std::move(fd), path);
    }

    Result<std::unique_ptr<File>> create(const std::string& path) override {
        SCKPT_ASSIGN(const Place place, find(path));
        SCKPT_ASSIGN(UniqueFd fd, place.open(path, O_RDWR | O_CREAT | O_EXCL));
        return std::make_unique<RealFile>(std::move(fd), path);
    }

    Result<> make_directory(const std::string& path) override {
        SCKPT_ASSIGN(const Place place, find(path));
        if (::mkdirat(place.directory.get(), place.name.c_str(), 0700) == 0) return {};
        if (errno != EEXIST) return fail_errno("make directory " + path);
        SCKPT_TRY(open_directory_at(place.directory.get(), place.name, path));
        return {};
    }

    Result<> rename(const std::string& from, const std::string& to) override {
        SCKPT_ASSIGN(const Place source, find(from));
        SCKPT_ASSIGN(const Place target, find(to));
        if (::renameat(source.directory.get(), source.name.c_str(), target.directory.get(), target.name.c_str()) == 0) return {};
        return fail_errno(std::format("rename {} to {}", from, to));
    }

    Result<> remove(const std::string& path) override {
        SCKPT_ASSIGN(const Place place, find(path));
        if (::unlinkat(place.directory.get(), place.name.c_str(), 0) != 0) return fail_errno("remove " + path);
        return {};
    }

    Result<> remove_directory(const std::string& path) override {
        SCKPT_ASSIGN(const Place place, find(path));
        if (::unlinkat(place.directory.get(), place.name.c_str(), AT_REMOVEDIR) == 0) return {};
        if (errno == ENOTEMPTY || errno == EEXIST) return fail(Errc::busy, "remove directory " + path + ": it is not empty");
        return fail_errno("remove directory " + path);
    }

    Result<> sync_directory(const std::string& path) override {
        SCKPT_ASSIGN(const UniqueFd directory, directory_below(path));
        if (::fsync(directory.get()) != 0) return fail_errno("fsync the directory " + path);
        return {};
    }

    Result<std::vector<DirectoryEntry>> list(const std::string& path) override;

    Result<Space> space() override {
        struct statvfs st {};
        if (::fstatvfs(top_.get(), &st) != 0) return fail_errno("ask for the file system's free space");
        return Space{st.f_blocks * st.f_frsize, st.f_bavail * st.f_frsize};
    }

   private:
    // An entry and the directory that it is, or will be, in.
    struct Place {
        UniqueFd directory;
        std::string name;

        Result<UniqueFd> open(const std::string& path, int flags) const {
            int fd = -1;
            do fd = ::openat(directory.get(), name.c_str(), flags | O_NOFOLLOW | O_CLOEXEC, 0600);
            while (fd < 0 && errno == EINTR);
            if (fd >= 0) return UniqueFd(fd);
            if (errno == ELOOP) return fail(Errc::denied, path + " is a symbolic link: not followed");
            if (errno == ENXIO) return fail(Errc::invalid, path + " is not a regular file");  // a socket
            return fail_errno("open " + path);
        }
    };

    Result<UniqueFd> directory_below(std::string_view path) const {
        SCKPT_ASSIGN(UniqueFd at, open_directory_at(top_.get(), ".", "the top directory"));
        if (!path.empty()) SCKPT_TRY(check_parts(path));
        for (std::string_view rest = path; !rest.empty();) {
            const std::size_t slash = rest.find('/');
            SCKPT_ASSIGN(at, open_directory_at(at.get(), std::string(rest.substr(0, slash)), path));
            rest.remove_prefix(slash == std::string_view::npos ? rest.size() : slash + 1);
        }
        return at;
    }

    Result<Place> find(const std::string& path) const {
        SCKPT_TRY(check_parts(path));
        SCKPT_ASSIGN(UniqueFd directory, directory_below(directory_of(path)));
        return Place{std::move(directory), base_of(path)};
    }

    const UniqueFd top_;
};

using Stream = std::unique_ptr<DIR, decltype([](DIR* stream) { ::closedir(stream); })>;

Result<std::vector<std::string>> names_in(DIR* stream, const std::string& path) {
    std::vector<std::string> names;
    for (;;) {
        errno = 0;
        const dirent* entry = ::readdir(stream);
        if (entry == nullptr && errno != 0) return fail_errno("read directory " + path);
        if (entry == nullptr) return names;
        if (const std::string name = entry->d_name; name != "." && name != "..") names.push_back(name);
    }
}

Result<std::vector<DirectoryEntry>> RealFileSystem::list(const std::string& path) {
    SCKPT_ASSIGN(UniqueFd fd, directory_below(path));
    const Stream stream(::fdopendir(fd.get()));
    if (!stream) return fail_errno("read directory " + path);
    fd.release();  // the stream's now
    SCKPT_ASSIGN(const std::vector<std::string> names, names_in(stream.get(), path));
    std::vector<DirectoryEntry> entries;
    for (const std::string& name : names) {
        struct stat st {};
        if (::fstatat(::dirfd(stream.get()), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
            if (errno == ENOENT) continue;  // removed since
            return fail_errno("stat " + name);
        }
        const bool directory = S_ISDIR(st.st_mode), regular = S_ISREG(st.st_mode);
        entries.push_back(
            {name, directory, regular ? static_cast<std::uint64_t>(st.st_size) : 0, st.st_mtim.tv_sec, !directory && !regular});
    }
    std::ranges::sort(entries, {}, &DirectoryEntry::name);
    return entries;
}

}  // namespace

std::unique_ptr<FileSystem> real_file_system(UniqueFd top) { return std::make_unique<RealFileSystem>(std::move(top)); }
std::unique_ptr<File> file_of(UniqueFd fd, std::string shown) {
    return std::make_unique<RealFile>(std::move(fd), std::move(shown));
}

}  // namespace sckpt
