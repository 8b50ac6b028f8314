// SPDX-License-Identifier: GPL-3.0-or-later
//
// The text form of a hash.
#include "image_store/hash.h"

#include <array>
#include <cstdint>

#include "image_store/store.h"

namespace sckpt {

std::string Blake3::hex() const {
    constexpr const char* kDigits = "0123456789abcdef";
    std::array<std::uint8_t, BLAKE3_OUT_LEN> out;
    blake3_hasher_finalize(&state_, out.data(), out.size());
    std::string text;
    for (const std::uint8_t byte : out) {
        text += kDigits[byte >> 4];
        text += kDigits[byte & 15];
    }
    return text;
}

std::string blake3_hex(std::string_view bytes) {
    Blake3 hash;
    hash.update(bytes.data(), bytes.size());
    return hash.hex();
}

}  // namespace sckpt
