// SPDX-License-Identifier: GPL-3.0-or-later
//
// How a block is kept: as it is, compressed, or compressed after its bytes were transposed with stride 8, which brings the
// exponents of an array of doubles together. A small sample of the block decides.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "common/result.h"
#include "image_store/manifest.h"

namespace sckpt {

bool is_zero(std::span<const std::byte> bytes);

// With n / 8 elements, byte b of element e goes to b * (n / 8) + e; the n % 8 last bytes stay where they are.
void shuffle8(std::span<const std::byte> from, std::byte* to);
void unshuffle8(std::span<const std::byte> from, std::byte* to);

// The codecs of one thread: their contexts and buffers are used again and again.
class BlockCodec {
   public:
    BlockCodec();
    ~BlockCodec();
    BlockCodec(const BlockCodec&) = delete;
    BlockCodec& operator=(const BlockCodec&) = delete;

    struct Packed {
        Codec codec = Codec::raw;
        std::size_t bytes = 0;
    };
    // `to` has room for as many bytes as `plain` has, kMaxBlock at most. What does not become smaller is kept raw.
    Packed pack(std::span<const std::byte> plain, std::byte* to);
    // The plain bytes, valid as long as `stored` and until the next call; Errc::corrupt when they cannot be had.
    Result<std::span<const std::byte>> unpack(Codec codec, std::span<const std::byte> stored);

   private:
    struct Contexts;
    Codec choose(std::span<const std::byte> plain);
    Packed pack_as(Codec codec, std::span<const std::byte> plain, std::byte* to);
    std::size_t compress(std::span<const std::byte> plain, std::byte* to, std::size_t room, int level);

    std::unique_ptr<Contexts> contexts_;
    std::vector<std::byte> shuffled_, plain_;
    Codec chosen_ = Codec::raw;  // by the last sample
    double share_ = 1;           // that its block took of its plain bytes
    int trusted_ = 0;            // so many blocks may do without a sample
};

}  // namespace sckpt
