// SPDX-License-Identifier: GPL-3.0-or-later
//
// Finding a chunk by its content, in bounded memory at any size of the image: twelve bytes a chunk lead to the record of a table
// that has the whole hash, and tables stay in their files. Tables that are too long are indexed in part: after a hit the chunks
// that follow it in its table are expected next, and compared without the index.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <shared_mutex>
#include <span>
#include <vector>

#include "common/result.h"
#include "image_store/manifest.h"

namespace sckpt {

// 64-bit keys to 32-bit numbers. The first number of a key stays.
class ChunkIndex {
   public:
    bool insert(std::uint64_t key, std::uint32_t value);  // false: it is there already, or the index is full
    bool full() const { return size_ == kCapacity; }
    std::optional<std::uint32_t> find(std::uint64_t key) const;
    inline static constexpr std::size_t kCapacity = 3u << 20;

   private:
    struct Slot {
        std::uint32_t low = 0, high = 0, value = 0;  // of the key; 0, 0: empty
    };
    std::size_t place_of(std::uint64_t key) const;
    void grow();
    std::vector<Slot> slots_;
    std::size_t size_ = 0;
};

std::uint64_t chunk_place(const Chunk& chunk);  // a key for pack and offset: another one for each place
std::uint64_t chunk_key(const Digest& hash);

// Reads records of a table: Manifest::read_chunks, or that of one that is being written.
using ReadChunks = std::function<Result<>(std::uint64_t first, std::span<Chunk> to)>;

class ChunkFinder {
   public:
    ChunkFinder();

    // The table of a finished image: all of it is taken in.
    Result<> add_table(ReadChunks read, std::uint64_t records);
    // A table that grows, the last one: each record that it gets is told to added().
    void add_growing_table(ReadChunks read);
    void added(const Chunk& chunk);

    struct Found {
        Chunk chunk;
        std::size_t table = 0;  // in the order of adding
    };
    Result<std::optional<Found>> find(const Digest& hash);  // compares the whole hash
    // Whether find() will most probably find it. May be called by any thread at any time; the rest belongs to one thread.
    bool expects(const Digest& hash) const;

   private:
    struct Table {
        ReadChunks read;
        std::uint64_t first = 0, records = 0;  // numbered from `first` on
    };
    struct Window {  // records that follow one another, as they were read last
        std::uint64_t first = 0;
        std::vector<Chunk> chunks;
    };
    void index(const Chunk& chunk, std::uint64_t number);
    Result<Found> record(std::uint64_t number);

    std::vector<Table> tables_;
    mutable std::shared_mutex mutex_;  // of index_
    ChunkIndex index_;
    std::uint64_t finished_ = 0;  // records of finished tables
    std::uint64_t next_ = 0;      // the one of them that is expected
    std::vector<Window> windows_;
};

}  // namespace sckpt
