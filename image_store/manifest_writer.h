// SPDX-License-Identifier: GPL-3.0-or-later
//
// Writes a manifest as its image is read: records of the table first, which stay readable, then the head, then the seal.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>

#include "image_store/chunk_index.h"
#include "image_store/manifest.h"
#include "image_store/pack.h"

namespace sckpt {

class ManifestWriter {
   public:
    explicit ManifestWriter(std::unique_ptr<File> file) : out_(std::move(file), 256u << 10) {}

    // The number that a pack has in this manifest; it gets one at its first use. None when there are kMaxPacks already.
    std::optional<std::uint16_t> pack_number(const std::string& path, std::uint64_t bytes);
    Result<> add(const Chunk& chunk);  // the next record of the table
    std::uint64_t records() const { return records_; }
    Result<> read_chunks(std::uint64_t first, std::span<Chunk> to) const;

    void set_pack_bytes(const std::string& path, std::uint64_t bytes);
    const std::vector<PackUse>& packs() const { return packs_; }

    // `head` says all but packs and chunk_count, which are known here. Durable when it returns; answers the digest of the whole
    // file.
    Result<std::string> finish(Manifest head, const SealFn& seal);
    std::uint64_t bytes() const { return out_.size(); }

   private:
    Result<> write(std::span<const std::byte> bytes);
    Result<> write_beside_head(std::span<const std::byte> bytes);
    Result<> write_header();
    Appender out_;
    Blake3 all_, rest_;  // of everything; of everything but the head
    std::uint64_t records_ = 0;
    std::vector<PackUse> packs_;
    std::unordered_map<std::string, std::uint16_t> numbers_;
    ChunkIndex counted_;  // chunks that are in `used` of their pack
};

}  // namespace sckpt
