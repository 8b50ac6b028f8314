// SPDX-License-Identifier: GPL-3.0-or-later
//
// From criu's log to one sentence for the job's user: which process, which file or socket, and what to do. criu's own words are never
// lost: what no rule knows is quoted, and the log stays in the image directory.
#pragma once

#include <optional>
#include <string_view>

#include "common/result.h"

namespace sckpt::criu {

// The cause of a failure, or nothing when the log tells of none.
std::optional<Error> explain_log(std::string_view log);

}  // namespace sckpt::criu
