// SPDX-License-Identifier: GPL-3.0-or-later
//
// The first half of storing an image: threads read it in spans of about a megabyte, cut, hash and compress them; one taker gets
// the spans in the order of the image. Memory is that of the spans under way, whatever the image's size.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "common/result.h"
#include "image_store/chunk_index.h"
#include "image_store/chunker.h"
#include "image_store/codec.h"
#include "image_store/image_tree.h"
#include "image_store/work.h"

namespace sckpt {

// Chunks that follow one another in one file, and blocks of those that seem to be new.
struct Span {
    inline static constexpr std::size_t kNoBlock = ~std::size_t{0};
    struct Piece {
        Chunk chunk;                   // hash, plain, at; codec: zero or not
        std::size_t block = kNoBlock;  // none: zero, or most probably known already
    };
    struct Block {
        Codec codec{};
        std::size_t packed_at = 0, bytes = 0;  // in `packed`
        std::uint64_t offset = 0;              // in the pack; 0: not written
    };
    std::size_t file = 0;  // index into the files of the image
    std::uint64_t offset = 0, bytes = 0;
    std::vector<Piece> pieces;
    std::vector<Block> blocks;
    std::vector<std::byte> plain, packed;
};

class ImageReader {
   public:
    // All must stay. `finder` is asked what is known already.
    ImageReader(FileSystem& image, const std::vector<TreeFile>& files, const PageRuns& pages, std::uint32_t chunk_size,
                const ChunkFinder& finder, Work& work);

    Result<> read_spans();  // the body of each thread
    Result<Span*> take();   // the next one, valid until the next call; null after the last

   private:
    enum class State { free, filling, ready, taken };
    struct Slot {
        Span span;
        State state = State::free;
    };
    struct Claim {
        Slot* slot = nullptr;  // null: no more
        std::shared_ptr<File> file;
    };
    Result<Claim> claim();
    Result<bool> cut_next(Span& span);
    Result<> open_next();
    Result<> fill(Span& span, File& file) const;
    void pack(Span& span, BlockCodec& codec, std::vector<std::byte>& gathered) const;

    FileSystem& image_;
    const std::vector<TreeFile>& files_;
    const PageRuns& pages_;
    const std::uint32_t chunk_size_;
    const ChunkFinder& finder_;
    Work& work_;

    std::mutex mutex_;  // of the following
    std::condition_variable changed_;
    std::vector<Slot> slots_;
    std::uint64_t claimed_ = 0, taken_ = 0;
    bool at_end_ = false;
    std::size_t next_file_ = 0;
    std::shared_ptr<File> open_;  // the one before it
    Chunker chunker_;
    std::uint32_t left_over_ = 0;  // a chunk that was cut and did not fit into the span
};

}  // namespace sckpt
