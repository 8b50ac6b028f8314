// SPDX-License-Identifier: GPL-3.0-or-later
//
// What is made of a file system's calls, the same for every kind.
#include "image_store/file_system.h"

#include <algorithm>
#include <format>

#include "image_store/names.h"

namespace sckpt {

Result<> make_directories(FileSystem& files, const std::string& path) {
    if (path.empty()) return {};
    SCKPT_TRY(make_directories(files, directory_of(path)));
    SCKPT_TRY(files.make_directory(path));
    return files.sync_directory(directory_of(path));  // also when it was there: who made it may not have come to this yet
}

Result<std::string> read_whole(FileSystem& files, const std::string& path, std::size_t limit) {
    SCKPT_ASSIGN(const std::unique_ptr<File> file, files.open(path));
    SCKPT_ASSIGN(const std::uint64_t size, file->size());
    if (size > limit)
        return fail(Errc::invalid, std::format("{} is larger than the {} bytes that are accepted", path, limit));
    std::string bytes(size, '\0');
    SCKPT_ASSIGN(const std::size_t read, file->read_at(0, std::as_writable_bytes(std::span(bytes))));
    bytes.resize(read);
    return bytes;
}

}  // namespace sckpt
