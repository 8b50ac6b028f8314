// SPDX-License-Identifier: GPL-3.0-or-later
//
// Numbers and chunk records as packs and manifests have them: little endian, no padding (doc/image-format.md).
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

#include "image_store/manifest.h"

namespace sckpt::wire {

template <class T>
void put(std::byte* to, T value) {
    if constexpr (std::endian::native == std::endian::big) value = std::byteswap(value);
    std::memcpy(to, &value, sizeof value);
}
template <class T>
T get(const std::byte* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    if constexpr (std::endian::native == std::endian::big) value = std::byteswap(value);
    return value;
}

// hash 32, offset 8, stored 4, plain 4, at 4, pack 2, codec 1, zero 1
inline constexpr std::size_t kRecordBytes = 56;

inline void put_chunk(std::byte* to, const Chunk& chunk) {
    std::memcpy(to, chunk.hash.data(), 32);
    put(to + 32, chunk.offset);
    put(to + 40, chunk.stored);
    put(to + 44, chunk.plain);
    put(to + 48, chunk.at);
    put(to + 52, chunk.pack);
    to[54] = static_cast<std::byte>(chunk.codec);
    to[55] = std::byte{0};
}

inline Chunk get_chunk(const std::byte* from) {
    Chunk chunk;
    std::memcpy(chunk.hash.data(), from, 32);
    chunk.offset = get<std::uint64_t>(from + 32);
    chunk.stored = get<std::uint32_t>(from + 40);
    chunk.plain = get<std::uint32_t>(from + 44);
    chunk.at = get<std::uint32_t>(from + 48);
    chunk.pack = get<std::uint16_t>(from + 52);
    chunk.codec = static_cast<Codec>(from[54]);
    return chunk;
}

inline void put_text(std::byte* to, std::string_view text) { std::memcpy(to, text.data(), text.size()); }
inline bool is_text(const std::byte* from, std::string_view text) { return std::memcmp(from, text.data(), text.size()) == 0; }

// A manifest: header (magic, format, record size) | table | head | lengths (head's offset, head's bytes, records, magic) | seal
// (key id, value)
inline constexpr std::string_view kManifestMagic = "SCKPTMAN", kManifestEndMagic = "SCKPTEND";
inline constexpr std::uint64_t kManifestHeader = 16, kManifestLengths = 32, kManifestSeal = 40;

// A pack: header (magic, format, record size) | chunks | index | trailer (index's offset, records, hash, magic)
inline constexpr std::string_view kPackMagic = "SCKPTPAK", kPackEndMagic = "SCKPTPEN";
inline constexpr std::uint64_t kPackHeader = 16, kPackTrailer = 56;
inline constexpr std::size_t kPackRecord = 16;  // of a block: offset 8, stored 4, codec 1, zero 3
inline constexpr std::uint32_t kPackFormat = 1;

}  // namespace sckpt::wire
