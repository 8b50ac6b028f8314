// SPDX-License-Identifier: GPL-3.0-or-later
//
// How long sckptctld waits for what a checkpoint needs. A node waits for sckptctld too, with limits of its own that are not longer
// (kFrozenGrace of backend/backend.h): a tree that it holds goes on by itself. What the administrator sets is node.dump_timeout, of one
// dump and of the wait for room for it.
#pragma once

#include <chrono>

namespace sckpt {

inline constexpr std::chrono::seconds kGatherLimit{5};  // for the ranks of steps that have just been started
inline constexpr std::chrono::minutes kAwayLimit{10};   // for a node that has gone with a captured part; else the job had no new checkpoint
inline constexpr std::chrono::seconds kDumpGrace{60};   // past the node's own limits

// For an answer to the order to dump: room is made, and then the dump.
constexpr std::chrono::seconds dump_answer_limit(std::chrono::seconds dump_timeout) { return 2 * dump_timeout + kDumpGrace; }
// The script's room is there by then.
constexpr std::chrono::seconds script_answer_limit(std::chrono::seconds dump_timeout) { return dump_timeout + kDumpGrace; }

}  // namespace sckpt
