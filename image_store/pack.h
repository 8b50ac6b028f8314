// SPDX-License-Identifier: GPL-3.0-or-later
//
// Packs: blocks of chunks that were new in one image, one after another, and an index of the blocks at the end
// (doc/image-format.md).
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "common/result.h"
#include "image_store/file_system.h"
#include "image_store/hash.h"
#include "image_store/manifest.h"

namespace sckpt {

// Writes a new file from its beginning to its end, in large aligned pieces that the disk may begin with at once.
class Appender {
   public:
    Appender(std::unique_ptr<File> file, std::size_t piece);
    Result<> append(std::span<const std::byte> bytes);
    Result<> flush();
    Result<> sync();  // with what is still here
    Result<> read_back(std::uint64_t offset, std::span<std::byte> to) const;
    std::uint64_t size() const { return written_ + buffer_.size(); }

   private:
    std::unique_ptr<File> file_;
    std::size_t piece_;
    std::vector<std::byte> buffer_;
    std::uint64_t written_ = 0;
};

class PackWriter {
   public:
    explicit PackWriter(std::unique_ptr<File> file);
    Result<std::uint64_t> append(std::span<const std::byte> bytes);  // → its offset
    std::uint64_t end() const { return out_.size(); }
    // After the last block: any chunk of each, in their order; then the trailer, and all of it to the disk.
    Result<> add_to_index(const Chunk& chunk);
    Result<> finish();

   private:
    Result<> write_header();
    Appender out_;
    Blake3 hash_;
    std::uint64_t index_ = 0, records_ = 0;
};

// The packs of a manifest, opened when they are needed. May be used by several threads.
class PackReader {
   public:
    PackReader(FileSystem& files, const Manifest& manifest);
    // Errc::corrupt for a pack that is missing, cut off or not a pack: the manifest promises it.
    Result<> read(std::uint16_t pack, std::uint64_t offset, std::span<std::byte> to);
    Result<> verify_index(std::uint16_t pack);
    const std::string& path(std::uint16_t pack) const { return manifest_.packs[pack].path; }

   private:
    Result<File*> file(std::uint16_t pack);
    FileSystem& files_;
    const Manifest& manifest_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<File>> open_;
};

// Opens a pack and checks its size, its first and its last bytes.
Result<std::unique_ptr<File>> open_pack(FileSystem& files, const std::string& path, std::uint64_t bytes);

}  // namespace sckpt
