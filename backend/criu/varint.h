// SPDX-License-Identifier: GPL-3.0-or-later
//
// The numbers in CRIU's images, which are protobuf messages.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace sckpt::criu {

// Takes a protobuf varint off the front: seven bits a byte, the lowest first.
inline std::optional<std::uint64_t> take_varint(std::string_view& bytes) {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !bytes.empty(); shift += 7) {
        const auto byte = static_cast<unsigned char>(bytes.front());
        bytes.remove_prefix(1);
        value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) return value;
    }
    return std::nullopt;
}

}  // namespace sckpt::criu
