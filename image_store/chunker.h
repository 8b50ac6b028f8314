// SPDX-License-Identifier: GPL-3.0-or-later
//
// Cuts a file of an image into chunks: memory pages where their address crosses a multiple of the chunk size and where addresses
// do not follow one another, everything else at multiples of the chunk size in the file.
#pragma once

#include <cstdint>
#include <span>

#include "common/page_runs.h"
#include "common/result.h"

namespace sckpt {

// By the size of the image, so that its table stays small. An image that refers to another keeps to that one's chunks (0: to
// none) as long as its size is not far off: chunks of another size would find nothing.
std::uint32_t chunk_size_for(std::uint64_t image_bytes, std::uint32_t of_base);

Result<> check_runs(std::span<const PageRun> runs, std::uint64_t file_bytes);  // sorted, within the file, not overlapping

class Chunker {
   public:
    Chunker() = default;  // of an empty file
    // `runs` must outlive the chunker, and pass check_runs.
    Chunker(std::uint64_t file_bytes, std::span<const PageRun> runs, std::uint32_t chunk_size)
        : end_(file_bytes), runs_(runs), chunk_size_(chunk_size) {}

    std::uint32_t next();  // bytes of the next chunk; 0: no more
    std::uint64_t position() const { return position_; }

   private:
    std::uint64_t end_ = 0, position_ = 0;
    std::span<const PageRun> runs_;
    std::uint32_t chunk_size_ = 0;
};

}  // namespace sckpt
