// SPDX-License-Identifier: GPL-3.0-or-later
#include "backend/criu/stats.h"

#include <cstdint>

#include "backend/criu/varint.h"
#include "common/fd.h"

namespace sckpt::criu {

namespace {

constexpr std::size_t kHeaderBytes = 12;  // magic, magic, length of the message: 32 bits each

}  // namespace

// message stats { dump = 1 { freezing_time = 1; frozen_time = 2; … } }, microseconds. The first two fields are enough.
Result<std::chrono::microseconds> parse_frozen_time(std::string_view stats) {
    constexpr std::uint64_t kDumpField = 1 << 3 | 2, kFreezing = 1 << 3, kFrozen = 2 << 3;
    if (stats.size() > kHeaderBytes) {
        stats.remove_prefix(kHeaderBytes);
        const bool is_dump = take_varint(stats) == kDumpField && take_varint(stats).has_value();
        const auto first = take_varint(stats), freezing = take_varint(stats), second = take_varint(stats), frozen = take_varint(stats);
        if (is_dump && first == kFreezing && freezing && second == kFrozen && frozen) return std::chrono::microseconds(*freezing + *frozen);
    }
    return fail(Errc::internal, "criu's stats-dump is not in the form that this version of sckpt knows");
}

Result<std::chrono::microseconds> frozen_time(const std::string& directory) {
    SCKPT_ASSIGN(const std::string stats, read_file(directory + "/stats-dump"));
    return parse_frozen_time(stats);
}

}  // namespace sckpt::criu
