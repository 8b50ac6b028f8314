// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/generation_table.h"

#include <algorithm>
#include <utility>

namespace sckpt {
namespace {

using P = GenerationPhase;
using E = GenerationEvent;
using A = GenerationAction;

// A cell without `moves` stays in its phase.
struct Cell {
    A action = A::ignore;
    P next{};
    bool moves = false;
};

constexpr Cell ______{};
constexpr Cell note__{A::note};
constexpr Cell hold__{A::hold_script};
constexpr Cell gather{A::ask_ranks, P::gathering, true};
constexpr Cell begin_{A::dump_tasks};
constexpr Cell freeze{A::dump_tasks, P::freezing, true};
constexpr Cell script{A::dump_script, P::scripting, true};
constexpr Cell captur{A::capture, P::capturing, true};
constexpr Cell releas{A::release_all, P::storing, true};
constexpr Cell again_{A::release_one};
constexpr Cell comple{A::complete, P::completing, true};
constexpr Cell finish{A::stored_all, P::complete, true};
constexpr Cell stored{A::stored_one};
constexpr Cell DROP__{A::drop_all, P::dropped, true};
constexpr Cell undo__{A::drop_one};

struct Row {
    E event;
    std::array<Cell, kGenerationPhases> cells;
};

// clang-format off
constexpr std::array<Row, kGenerationEvents> kRows{{
    //                      asked   gathering  freezing  scripting  capturing  storing  completing  complete  dropped
    {E::begin,             {hold__, ______,    begin_,   ______,    ______,    ______,  ______,     ______,   ______}},
    {E::steps_found,       {gather, ______,    ______,   ______,    ______,    ______,  ______,     ______,   undo__}},
    {E::ranks_missing,     {______, note__,    ______,   ______,    ______,    ______,  ______,     ______,   ______}},
    {E::ranks_known,       {______, freeze,    ______,   ______,    ______,    ______,  ______,     ______,   ______}},
    {E::ranks_ended,       {______, script,    ______,   ______,    ______,    ______,  ______,     ______,   ______}},
    {E::part_frozen,       {______, ______,    note__,   ______,    ______,    ______,  ______,     ______,   undo__}},
    {E::all_frozen,        {______, ______,    script,   ______,    ______,    ______,  ______,     ______,   undo__}},
    {E::all_frozen_alone,  {______, ______,    captur,   ______,    ______,    ______,  ______,     ______,   undo__}},
    {E::script_dumped,     {captur, ______,    ______,   captur,    ______,    ______,  ______,     ______,   undo__}},
    {E::captured,          {______, ______,    ______,   ______,    releas,    ______,  ______,     ______,   ______}},
    {E::capture_failed,    {______, ______,    ______,   ______,    DROP__,    ______,  ______,     ______,   ______}},
    {E::part_stored,       {______, ______,    ______,   ______,    ______,    note__,  ______,     ______,   undo__}},
    {E::all_stored,        {______, ______,    ______,   ______,    ______,    comple,  ______,     ______,   undo__}},
    {E::completed,         {______, ______,    ______,   ______,    ______,    ______,  finish,     ______,   ______}},
    {E::complete_failed,   {______, ______,    ______,   ______,    ______,    ______,  DROP__,     ______,   ______}},
    {E::failed,            {DROP__, DROP__,    DROP__,   DROP__,    DROP__,    DROP__,  ______,     ______,   ______}},
    {E::detached,          {DROP__, DROP__,    DROP__,   DROP__,    DROP__,    note__,  ______,     ______,   ______}},
    {E::attached_with,     {DROP__, DROP__,    DROP__,   DROP__,    DROP__,    again_,  ______,     ______,   undo__}},
    {E::attached_without,  {DROP__, DROP__,    DROP__,   DROP__,    DROP__,    DROP__,  ______,     ______,   ______}},
    {E::repeated,          {______, ______,    ______,   ______,    ______,    ______,  ______,     stored,   undo__}},
    {E::stray,             {undo__, undo__,    undo__,   undo__,    undo__,    undo__,  undo__,     undo__,   undo__}},
    {E::deadline,          {DROP__, DROP__,    DROP__,   DROP__,    ______,    DROP__,  ______,     ______,   ______}},
    {E::cancelled,         {DROP__, DROP__,    DROP__,   DROP__,    DROP__,    DROP__,  ______,     ______,   ______}},
}};
// clang-format on

constexpr GenerationTable make_table() {
    GenerationTable table{};
    for (std::size_t event = 0; event < kGenerationEvents; ++event)
        for (std::size_t phase = 0; phase < kGenerationPhases; ++phase) {
            const Cell& cell = kRows[event].cells[phase];
            table[event][phase] = {cell.moves ? cell.next : static_cast<P>(phase), cell.action};
        }
    return table;
}

constexpr bool rows_are_in_order() {
    for (std::size_t event = 0; event < kGenerationEvents; ++event)
        if (static_cast<std::size_t>(kRows[event].event) != event) return false;
    return true;
}
static_assert(rows_are_in_order());

// Trees are let go with their part kept by one step only, after the catalogue's answer; and what is complete or dropped stays so.
constexpr bool keeps_its_word() {
    for (std::size_t event = 0; event < kGenerationEvents; ++event)
        for (std::size_t phase = 0; phase < kGenerationPhases; ++phase) {
            const Cell& cell = kRows[event].cells[phase];
            const P from = static_cast<P>(phase);
            if (cell.action == A::release_all && (kRows[event].event != E::captured || from != P::capturing)) return false;
            if (cell.action == A::release_one && from != P::storing) return false;
            if (cell.moves && (from == P::complete || from == P::dropped)) return false;
            if (cell.moves && (cell.next == P::dropped) != (cell.action == A::drop_all)) return false;
        }
    return true;
}
static_assert(keeps_its_word());

}  // namespace

constinit const GenerationTable kGenerationTable = make_table();

std::string_view generation_name(GenerationPhase phase) {
    switch (phase) {
        case P::asked: return "asked";
        case P::gathering: return "gathering";
        case P::freezing: return "freezing";
        case P::scripting: return "scripting";
        case P::capturing: return "capturing";
        case P::storing: return "storing";
        case P::completing: return "completing";
        case P::complete: return "complete";
        case P::dropped: return "dropped";
    }
    std::unreachable();
}

std::string_view generation_name(GenerationEvent event) {
    switch (event) {
        case E::begin: return "begin";
        case E::steps_found: return "steps_found";
        case E::ranks_missing: return "ranks_missing";
        case E::ranks_known: return "ranks_known";
        case E::ranks_ended: return "ranks_ended";
        case E::part_frozen: return "part_frozen";
        case E::all_frozen: return "all_frozen";
        case E::all_frozen_alone: return "all_frozen_alone";
        case E::script_dumped: return "script_dumped";
        case E::captured: return "captured";
        case E::capture_failed: return "capture_failed";
        case E::part_stored: return "part_stored";
        case E::all_stored: return "all_stored";
        case E::completed: return "completed";
        case E::complete_failed: return "complete_failed";
        case E::failed: return "failed";
        case E::detached: return "detached";
        case E::attached_with: return "attached_with";
        case E::attached_without: return "attached_without";
        case E::repeated: return "repeated";
        case E::stray: return "stray";
        case E::deadline: return "deadline";
        case E::cancelled: return "cancelled";
    }
    std::unreachable();
}

}  // namespace sckpt
