// SPDX-License-Identifier: GPL-3.0-or-later
//
// The fault seam: every file-system call of image_store/ goes through this interface. (SQLite's have one: image_store/faulty_database.h.)
//   real_file_system     the kernel's, below one open directory; no name leads out of it, no symbolic link is followed
//   MemoryFileSystem     in memory, with what a power failure would leave (image_store/memory_file_system.h)
//   FaultyFileSystem     another one, whose N-th call fails (image_store/faulty_file_system.h)
// Paths are relative, parts divided by '/', "" is the top; the caller has checked them (image_store/names.h).
// Durability: bytes after File::sync(), a name after sync_directory() of the directory it is in. Nothing else is promised.
// A FileSystem may be shared by threads. A File may be read by several threads, and written by several at places that do not overlap.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/fd.h"
#include "common/result.h"

namespace sckpt {

class File {
   public:
    virtual ~File() = default;
    // Fills `to`; less only at the end of the file.
    virtual Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> to) = 0;
    virtual Result<> write_at(std::uint64_t offset, std::span<const std::byte> bytes) = 0;  // all of them, or an error
    virtual Result<> truncate(std::uint64_t size) = 0;                                     // longer: a hole of zeros
    virtual Result<std::uint64_t> size() = 0;
    // Hint: the disk may begin with these bytes now, so that sync() has little left.
    virtual void start_writing(std::uint64_t offset, std::uint64_t size) = 0;
    virtual Result<> sync() = 0;
};

struct DirectoryEntry {
    std::string name;
    bool directory = false;
    std::uint64_t bytes = 0;
    std::int64_t modified = 0;  // Unix seconds, by the file system's clock
    bool odd = false;           // neither a directory nor a regular file, but a link, a socket, …: never followed, and open() refuses it
};

struct Space {
    std::uint64_t total = 0, free = 0;  // bytes; free: for this process
};

class FileSystem {
   public:
    virtual ~FileSystem() = default;
    // Errc::not_found; Errc::denied where a symbolic link stands; Errc::invalid for what is no regular file.
    virtual Result<std::unique_ptr<File>> open(const std::string& path) = 0;    // for reading
    virtual Result<std::unique_ptr<File>> create(const std::string& path) = 0;  // new (Errc::exists otherwise), 0600, for writing and reading
    virtual Result<> make_directory(const std::string& path) = 0;               // one level, 0700; one that is there is success
    virtual Result<> rename(const std::string& from, const std::string& to) = 0;  // a file; what is at `to` is replaced
    virtual Result<> remove(const std::string& path) = 0;                       // a file; Errc::not_found
    virtual Result<> remove_directory(const std::string& path) = 0;             // Errc::busy when it is not empty
    virtual Result<> sync_directory(const std::string& path) = 0;
    virtual Result<std::vector<DirectoryEntry>> list(const std::string& path) = 0;  // sorted by name
    virtual Result<Space> space() = 0;
};

std::unique_ptr<FileSystem> real_file_system(UniqueFd top);
std::unique_ptr<File> file_of(UniqueFd fd, std::string shown);  // a regular file that is open; `shown` is its name in messages

// Makes the directory and those above it, durably.
Result<> make_directories(FileSystem& files, const std::string& path);
// A whole small file. Errc::invalid beyond `limit`.
Result<std::string> read_whole(FileSystem& files, const std::string& path, std::size_t limit);

}  // namespace sckpt
