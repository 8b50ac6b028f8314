// SPDX-License-Identifier: GPL-3.0-or-later
//
// Files below an open directory. Every part of a path is opened on its own and never through a symbolic link, so that no name
// leads out of the directory. Paths are relative, and checked by the caller (image_store/manifest.h).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/fd.h"
#include "common/result.h"

namespace sckpt {

// "a/b/c" is "c" in "a/b"; "c" is "c" in "".
std::string directory_of(std::string_view path);
std::string base_of(std::string_view path);

// Errc::denied where a symbolic link or something else stands in place of a directory.
Result<UniqueFd> open_directory_below(int top, std::string_view path);  // "" is `top` itself
Result<UniqueFd> make_directories_below(int top, std::string_view path);  // 0700; what is made is durable
Result<UniqueFd> open_regular_below(int top, std::string_view path);    // for reading
Result<UniqueFd> create_below(int top, std::string_view path);          // a new file 0600 and its directories, for writing
Result<> remove_tree_at(int directory, const std::string& name);        // a missing one is success

Result<> fsync_fd(int fd, std::string_view shown);
Result<bool> exists_at(int directory, const std::string& name);
Result<std::vector<std::string>> entries(int directory);  // without "." and ".."
// All regular files below, sorted. Errc::invalid when there is anything else but directories.
Result<std::vector<std::string>> list_files(int top);
Result<std::string> read_below(int top, std::string_view path, std::size_t limit);

// Copies files and hashes them on the way.
struct CopiedFile {
    std::uint64_t size = 0;
    std::string blake3;
};
class Copier {
   public:
    explicit Copier(std::function<void(std::uint64_t)> progress);
    // From the start of `from` to its end. Not durable yet.
    Result<CopiedFile> copy(int from, int to);
    std::uint64_t total() const { return total_; }  // bytes of all files so far

   private:
    std::function<void(std::uint64_t)> progress_;
    std::vector<char> buffer_;
    std::uint64_t total_ = 0;
};

}  // namespace sckpt
