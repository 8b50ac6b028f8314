// SPDX-License-Identifier: GPL-3.0-or-later
//
// stats-dump, where criu says how long the tree did not run: two magic numbers, a length, and one protobuf message.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "common/result.h"

namespace sckpt::criu {

Result<std::chrono::microseconds> parse_frozen_time(std::string_view stats);
Result<std::chrono::microseconds> frozen_time(const std::string& directory);

}  // namespace sckpt::criu
