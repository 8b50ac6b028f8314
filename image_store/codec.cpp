// SPDX-License-Identifier: GPL-3.0-or-later
//
// The codecs, and the choice between them. Levels and thresholds were measured on images of real programs (doc/image-format.md).
#include "image_store/codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

#include <zstd.h>

namespace sckpt {
namespace {

constexpr int kPlainLevel = -1, kShuffledLevel = -3;
constexpr int kTrusted = 15;  // blocks that one sample serves for
constexpr std::size_t kPiece = 1024, kPieces = 4, kSample = kPiece * kPieces;

// What is smaller by less than a thirty-second is not worth a decompression.
constexpr std::size_t worth(std::size_t plain) { return plain - plain / 32; }

using Vector = std::uint8_t __attribute__((vector_size(16)));
constexpr std::size_t kVectors = 8, kElements = sizeof(Vector);
struct Tile {  // sixteen elements of eight bytes
    Vector part[kVectors];
};

// The address of a byte in a tile has seven bits; this turns them left by one. Four turns bring element and byte numbers into
// each other's places, three more bring them back. Unrolled, a tile stays in registers.
inline Tile turned(const Tile& in) {
    Tile out;
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kVectors / 2; ++i) {
        const Vector a = in.part[i], b = in.part[i + kVectors / 2];
        out.part[2 * i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        out.part[2 * i + 1] = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    return out;
}

// Its parts lie `stride` bytes from one another.
inline Tile load(const std::byte* from, std::size_t stride) {
    Tile tile;
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kVectors; ++i) std::memcpy(&tile.part[i], from + i * stride, sizeof(Vector));
    return tile;
}
inline void store(const Tile& tile, std::byte* to, std::size_t stride) {
#pragma GCC unroll 8
    for (std::size_t i = 0; i < kVectors; ++i) std::memcpy(to + i * stride, &tile.part[i], sizeof(Vector));
}

}  // namespace

bool is_zero(std::span<const std::byte> bytes) {
    return bytes.empty() || (bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

void shuffle8(std::span<const std::byte> from, std::byte* to) {
    const std::size_t elements = from.size() / 8, whole = elements / kElements * kElements;
    for (std::size_t e = 0; e < whole; e += kElements)
        store(turned(turned(turned(turned(load(from.data() + e * 8, sizeof(Vector)))))), to + e, elements);
    for (std::size_t e = whole; e < elements; ++e)
        for (std::size_t b = 0; b < 8; ++b) to[b * elements + e] = from[e * 8 + b];
    std::copy(from.begin() + static_cast<std::ptrdiff_t>(elements * 8), from.end(), to + elements * 8);
}

void unshuffle8(std::span<const std::byte> from, std::byte* to) {
    const std::size_t elements = from.size() / 8, whole = elements / kElements * kElements;
    for (std::size_t e = 0; e < whole; e += kElements)
        store(turned(turned(turned(load(from.data() + e, elements)))), to + e * 8, sizeof(Vector));
    for (std::size_t e = whole; e < elements; ++e)
        for (std::size_t b = 0; b < 8; ++b) to[e * 8 + b] = from[b * elements + e];
    std::copy(from.begin() + static_cast<std::ptrdiff_t>(elements * 8), from.end(), to + elements * 8);
}

struct BlockCodec::Contexts {
    ZSTD_CCtx* in = ZSTD_createCCtx();
    ZSTD_DCtx* out = ZSTD_createDCtx();
    Contexts() = default;
    Contexts(const Contexts&) = delete;
    Contexts& operator=(const Contexts&) = delete;
    ~Contexts() {
        ZSTD_freeCCtx(in);
        ZSTD_freeDCtx(out);
    }
};

BlockCodec::BlockCodec() : contexts_(std::make_unique<Contexts>()), shuffled_(kMaxBlock), plain_(kMaxBlock) {}
BlockCodec::~BlockCodec() = default;

// Bytes made of `plain`, or 0 when they would not fit.
std::size_t BlockCodec::compress(std::span<const std::byte> plain, std::byte* to, std::size_t room, int level) {
    const std::size_t bytes = ZSTD_compressCCtx(contexts_->in, to, room, plain.data(), plain.size(), level);
    return ZSTD_isError(bytes) ? 0 : bytes;
}

Codec BlockCodec::choose(std::span<const std::byte> plain) {
    std::array<std::byte, kSample> sample, transposed, packed;
    std::size_t bytes = std::min(plain.size(), kSample);
    if (plain.size() <= kSample) {
        std::ranges::copy(plain, sample.begin());
    } else {
        const std::size_t stride = (plain.size() - kPiece) / (kPieces - 1) / 8 * 8;
        for (std::size_t i = 0; i < kPieces; ++i)
            std::ranges::copy(plain.subspan(i * stride, kPiece), sample.begin() + i * kPiece);
    }
    const auto part = std::span<const std::byte>(sample).first(bytes);
    const std::size_t room = worth(bytes);
    shuffle8(part, transposed.data());
    const std::size_t as_it_is = compress(part, packed.data(), room, kPlainLevel);
    const std::size_t shuffled =
        compress(std::span<const std::byte>(transposed).first(bytes), packed.data(), room, kShuffledLevel);
    if (as_it_is == 0 && shuffled == 0) return Codec::raw;
    return shuffled != 0 && (as_it_is == 0 || shuffled < as_it_is) ? Codec::shuffle_zstd : Codec::zstd;
}

BlockCodec::Packed BlockCodec::pack_as(Codec codec, std::span<const std::byte> plain, std::byte* to) {
    Packed packed{codec, 0};
    if (codec == Codec::zstd) packed.bytes = compress(plain, to, worth(plain.size()), kPlainLevel);
    if (codec == Codec::shuffle_zstd) {
        shuffle8(plain, shuffled_.data());
        packed.bytes =
            compress(std::span<const std::byte>(shuffled_).first(plain.size()), to, worth(plain.size()), kShuffledLevel);
    }
    if (packed.bytes != 0) return packed;
    std::ranges::copy(plain, to);
    return {Codec::raw, plain.size()};
}

// Memory seldom changes its kind from one block to the next: what a sample chose serves for the next ones too, as long as they
// come out alike.
BlockCodec::Packed BlockCodec::pack(std::span<const std::byte> plain, std::byte* to) {
    const auto share_of = [&](const Packed& packed) {
        return static_cast<double>(packed.bytes) / static_cast<double>(plain.size());
    };
    if (trusted_ > 0) {
        --trusted_;
        const Packed packed = pack_as(chosen_, plain, to);
        if (packed.codec == chosen_ && std::abs(share_of(packed) - share_) <= share_ / 8) return packed;
    }
    chosen_ = choose(plain);
    const Packed packed = pack_as(chosen_, plain, to);
    share_ = share_of(packed);
    trusted_ = packed.codec == Codec::raw ? 0 : kTrusted;
    return packed;
}

Result<std::span<const std::byte>> BlockCodec::unpack(Codec codec, std::span<const std::byte> stored) {
    if (codec == Codec::raw) return stored;
    auto& to = codec == Codec::zstd ? plain_ : shuffled_;
    const std::size_t bytes = ZSTD_decompressDCtx(contexts_->out, to.data(), to.size(), stored.data(), stored.size());
    if (ZSTD_isError(bytes)) return fail(Errc::corrupt, "its bytes cannot be decompressed");
    if (codec == Codec::shuffle_zstd) unshuffle8(std::span<const std::byte>(shuffled_).first(bytes), plain_.data());
    return std::span<const std::byte>(plain_).first(bytes);
}

}  // namespace sckpt
