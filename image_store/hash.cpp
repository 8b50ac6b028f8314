// SPDX-License-Identifier: GPL-3.0-or-later
//
// Digests of texts, and the text form of digests.
#include "image_store/hash.h"

namespace sckpt {
namespace {

int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

}  // namespace

Digest digest_of(std::string_view bytes) {
    Blake3 hash;
    hash.update(bytes.data(), bytes.size());
    return hash.digest();
}

std::string to_hex(const Digest& digest) {
    constexpr const char* kDigits = "0123456789abcdef";
    std::string text;
    text.reserve(2 * digest.size());
    for (const std::uint8_t byte : digest) {
        text += kDigits[byte >> 4];
        text += kDigits[byte & 15];
    }
    return text;
}

Result<Digest> digest_from_hex(std::string_view text) {
    Digest digest{};
    if (text.size() != 2 * digest.size()) return fail(Errc::invalid, "a digest has 64 hexadecimal digits");
    for (std::size_t i = 0; i < digest.size(); ++i) {
        const int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0) return fail(Errc::invalid, "a digest has only digits and letters from a to f");
        digest[i] = static_cast<std::uint8_t>(high << 4 | low);
    }
    return digest;
}

}  // namespace sckpt
