// SPDX-License-Identifier: GPL-3.0-or-later
//
// Sizes as people write and read them: powers of 1024, as in Slurm's --mem.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/result.h"

namespace sckpt {

std::string format_bytes(std::uint64_t bytes);  // "512 B", "12.3 MiB"
// "512M", "16G", "1.5T", "16GiB", "4096" (bytes). Errc::invalid says what is accepted.
Result<std::uint64_t> parse_bytes(std::string_view text);

}  // namespace sckpt
