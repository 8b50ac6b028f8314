// SPDX-License-Identifier: GPL-3.0-or-later
//
// Going through all chunks of an image with several threads: each takes a range of about a megabyte of one file, in the order of
// the table.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "common/result.h"
#include "image_store/codec.h"
#include "image_store/manifest.h"
#include "image_store/pack.h"
#include "image_store/store.h"

namespace sckpt {

struct ChunkRange {
    std::size_t file = 0;        // index into the manifest's files
    std::shared_ptr<File> open;  // as OpenFile has given it
    std::uint64_t offset = 0;    // in the file
    std::size_t bytes = 0;
    std::vector<Chunk> chunks;
};

// What one thread works with, and where the plain bytes of its range are.
struct RangeBuffers {
    RangeBuffers();
    BlockCodec codec;
    std::vector<std::byte> stored, plain;
};

// Called for each file of the manifest, in their order, when its first range is taken; for empty ones too. By one thread at a
// time.
using OpenFile = std::function<Result<std::shared_ptr<File>>(std::size_t file)>;
using HandleRange = std::function<Result<>(const ChunkRange& range, RangeBuffers& buffers)>;
Result<> for_each_range(const Manifest& manifest, const WorkOptions& options, const OpenFile& open, const HandleRange& handle);

// Reads the range's chunks from their packs into buffers.plain and verifies each. What does not verify is told to `fault`; an
// error is anything else, the store being away for example.
using TellFault = std::function<void(const ChunkFault& fault)>;
Result<> read_range(const ChunkRange& range, const Manifest& manifest, PackReader& packs, RangeBuffers& buffers,
                    const TellFault& fault);

}  // namespace sckpt
