// SPDX-License-Identifier: GPL-3.0-or-later
//
// A test that holds for every file system: runs on the kernel's, in a directory of its own, and on the one in memory.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <fcntl.h>

#include <catch2/catch_test_macros.hpp>

#include "image_store/file_system.h"
#include "image_store/memory_file_system.h"
#include "tests/unit/image_store_tools.h"

namespace sckpt::test {

inline std::unique_ptr<FileSystem> real_files(const std::string& directory) {
    auto top = open_file(directory, O_RDONLY | O_DIRECTORY);
    REQUIRE(top);
    return real_file_system(std::move(*top));
}

struct RealFiles {
    TempDir directory;
    std::unique_ptr<FileSystem> owned = real_files(directory / ".");
    FileSystem& files = *owned;
};

struct MemoryFiles {
    MemoryFileSystem files;
};

inline std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

// A new file with these bytes, in a directory that is there.
inline void put_file(FileSystem& files, const std::string& path, std::string_view bytes) {
    auto file = files.create(path);
    if (!file) FAIL(file.error().text);
    REQUIRE((*file)->write_at(0, as_bytes(bytes)));
    REQUIRE((*file)->sync());
}

inline std::string contents(FileSystem& files, const std::string& path) {
    auto bytes = read_whole(files, path, 64u << 20);
    if (!bytes) FAIL(bytes.error().text);
    return std::move(*bytes);
}

inline bool is_there(FileSystem& files, const std::string& path) { return files.open(path).has_value(); }

}  // namespace sckpt::test
