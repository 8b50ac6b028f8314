// SPDX-License-Identifier: GPL-3.0-or-later
//
// How large an image will be, before it is made: what the fast tier has to have room for.
#pragma once

#include <sys/types.h>
#include <cstdint>
#include <string_view>

#include "common/result.h"

namespace sckpt {

// The resident memory of the tree that a dump writes, or the job's last image if that was larger, and a bit. What is mapped from files and
// was not changed is not written; memory that processes share is counted by each one's share of it.
Result<std::uint64_t> expected_dump_bytes(pid_t root, std::uint64_t last_bytes);

// "RssAnon:   123 kB" in the text of a file of /proc, in bytes; 0: it is not there.
std::uint64_t kilobytes_in(std::string_view text, std::string_view name);

}  // namespace sckpt
