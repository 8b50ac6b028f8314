// SPDX-License-Identifier: GPL-3.0-or-later
//
// The protocol of a checkpoint as one table: in which phase which event leads where, and what is done about it. daemon/generation.h turns
// what nodes, the catalogue and clocks say into these events; doc/protocol.md shows the table and explains it.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

namespace sckpt {

enum class GenerationPhase {
    asked,       // the node of the batch script holds it, and looks which steps are live
    gathering,   // steps are live: until it is known where each of their ranks runs
    freezing,    // the nodes dump the ranks, and leave them frozen
    scripting,   // all ranks are frozen: the batch script's tree is dumped
    capturing,   // the catalogue is told; the nodes are not, yet
    storing,     // captured: the trees go on, and the nodes drain their parts into the store
    completing,  // every part is in the store: the catalogue is told
    complete,
    dropped,
};
inline constexpr std::size_t kGenerationPhases = 9;

// What is said by, or of, a node without a part in the checkpoint, and what was said before, are events of their own.
enum class GenerationEvent {
    begin,
    steps_found,       // the script is held, and has live steps
    ranks_missing,     // more is known of the ranks, but not all
    ranks_known,       // of every rank it is known where it runs, or that it has ended
    ranks_ended,       // as before, and none runs
    part_frozen,       // a node has dumped its ranks
    all_frozen,        // the last one has
    all_frozen_alone,  // the last one has, and no script belongs to the checkpoint
    script_dumped,
    captured,  // the catalogue has it durably
    capture_failed,
    part_stored,  // a node has its part in the store
    all_stored,   // the last one has
    completed,    // the catalogue has it durably
    complete_failed,
    failed,            // a node with a part has lost it, or says what cannot be
    detached,          // the connection of a node with a part has ended
    attached_with,     // a node with a part, which is not stored yet, has connected and has it
    attached_without,  // … and has it no more
    repeated,          // by a node with a part: known already
    stray,             // by a node without a part
    deadline,
    cancelled,
};
inline constexpr std::size_t kGenerationEvents = 23;

enum class GenerationAction {
    ignore,       // not awaited in this phase, and harmless
    note,         // it is remembered, and nothing is to be done yet
    hold_script,  // the node of the script is asked
    ask_ranks,
    dump_tasks,  // every node with running ranks
    dump_script,
    capture,
    release_all,
    release_one,  // the node that has spoken
    complete,
    stored_all,
    stored_one,
    drop_all,  // the catalogue is told, and every node with a part
    drop_one,
};

struct GenerationTransition {
    GenerationPhase next{};
    GenerationAction action = GenerationAction::ignore;
};
using GenerationTable = std::array<std::array<GenerationTransition, kGenerationPhases>, kGenerationEvents>;  // [event][phase]

extern const GenerationTable kGenerationTable;

std::string_view generation_name(GenerationPhase phase);
std::string_view generation_name(GenerationEvent event);

}  // namespace sckpt
