// SPDX-License-Identifier: GPL-3.0-or-later
//
// What sckptctld knows of one checkpoint while it is made. Pure: no clock, no I/O, no message type. Each input answers with the orders that
// are to be carried out now, in their order; what leads where is the table of daemon/generation_table.cpp.
//
// The owner
// - calls begin() once on a checkpoint that it has a row for, and not on one taken up again;
// - carries out `capture` and `complete` by the catalogue, and feeds the answer (captured() or capture_failed(), completed() or
//   complete_failed()) before anything else;
// - feeds detached() when a node's connection ends; when a node connects anew while it counts as connected, detached() comes first. An
// order to
//   dump (hold_script, dump_tasks, dump_script) that cannot be sent is a detached() too, and what was ordered beside it is void. Of the
//   other orders a node that is away needs no word: it gets one when it connects;
// - calls deadline() when limit() has passed since phase() and limit() became what they are;
// - forgets it once is_over(): what a node says of a checkpoint that is under way no more is answered by the catalogue's state alone,
//   StoredOrder for a complete one, DropOrder for every other.
// A message that comes twice, late, or from a node that has no part in the checkpoint does no harm. One thread at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/result.h"
#include "common/user_file.h"
#include "daemon/generation_ranks.h"
#include "daemon/generation_table.h"
#include "image_store/store.h"

namespace sckpt {

struct GenerationImage {
    std::string task;  // rpc/task_name.h
    std::string node;  // where it was dumped
    std::uint64_t bytes = 0;
    std::uint32_t frozen_ms = 0;  // 0: not known yet, the tree is still frozen
    std::vector<UserFile> files;
};

struct GenerationStored {
    std::string task;
    StoredImage image;
    std::uint32_t frozen_ms = 0;
};

struct GenerationOrder {
    enum class What {
        hold_script,  // DumpOrder for the batch script to `node`
        ask_ranks,    // feed ranks_known() with what is known of the job's tasks; and with what becomes known, as long as the phase is
                      // `gathering`
        dump_tasks,   // DumpOrder for `tasks` to `node`
        dump_script,  // ScriptOrder to `node`
        capture,      // write the catalogue: images(), ended()
        release,      // ReleaseOrder to `node`; leader(), images().size(), ended()
        complete,     // write the catalogue: stored()
        stored,       // StoredOrder to `node`
        fail,         // write the catalogue: why()
        drop,         // DropOrder to `node`
    } what{};
    std::string node;                // "": none
    std::vector<std::string> tasks;  // names
};
using GenerationOrders = std::vector<GenerationOrder>;

class Generation {
   public:
    // dump_timeout: node.dump_timeout. The table is the project's but in tests.
    static Generation of_job(const std::string& script_node, std::chrono::seconds dump_timeout,
                             const GenerationTable& table = kGenerationTable);
    // Steps without a script. Errc::busy: not all ranks are known, or all have ended; Errc::invalid: they do not add up.
    static Result<Generation> of_steps(std::span<const LiveStep> steps, std::span<const StepRank> ranks, std::chrono::seconds dump_timeout,
                                       const GenerationTable& table = kGenerationTable);
    // One that the catalogue has as captured, after a restart of sckptctld: each node tells in its hello whether it still has its part.
    static Generation captured_before(std::vector<GenerationImage> images, std::vector<EndedRank> ended,
                                      const GenerationTable& table = kGenerationTable);

    GenerationOrders begin();

    // --- from nodes
    GenerationOrders steps_found(const std::string& node, std::span<const LiveStep> steps);
    GenerationOrders ranks_known(std::span<const StepRank> ranks);
    // The script's image: at once, because no step was live, or when it was ordered.
    GenerationOrders script_dumped(const std::string& node, const GenerationImage& image);
    // All tasks that the node was ordered to dump: frozen now, or found ended.
    GenerationOrders tasks_dumped(const std::string& node, std::vector<GenerationImage> images, std::vector<EndedRank> ended);
    GenerationOrders part_stored(const std::string& node, std::vector<GenerationStored> images);
    GenerationOrders failed(const std::string& node, const std::string& why);
    GenerationOrders attached(const std::string& node, bool has_part);  // by its hello; a part that it is still dumping is one
    GenerationOrders detached(const std::string& node);

    // --- from sckptctld
    GenerationOrders captured();
    GenerationOrders capture_failed(const std::string& why);
    GenerationOrders completed();
    GenerationOrders complete_failed(const std::string& why);
    GenerationOrders deadline();
    GenerationOrders cancelled(const std::string& why);  // "the job ended"

    GenerationPhase phase() const { return phase_; }
    bool is_over() const { return phase_ == GenerationPhase::complete || phase_ == GenerationPhase::dropped; }
    // For the phase; in `storing` for the absence of a node whose part is not stored. Nothing: it may last as long as it does.
    std::optional<std::chrono::seconds> limit() const;
    const std::string& why() const { return why_; }  // it was dropped, for the user
    // By task name once it is captured; of those dumped so far before.
    const std::map<std::string, GenerationImage>& images() const { return images_; }
    const std::vector<EndedRank>& ended() const { return ended_; }
    const std::map<std::string, GenerationStored>& stored() const { return stored_; }  // all of them from `complete` on
    std::string leader() const;              // the task whose manifest tells of all: "batch", else the first name
    std::vector<std::string> nodes() const;  // with a part
    bool has_part(const std::string& node) const { return parts_.contains(node); }

   private:
    struct Part {
        std::vector<std::string> tasks;   // that it was ordered to dump, sorted
        bool frozen = false;              // they are dumped
        std::vector<std::string> images;  // that it has
        bool stored = false;
        bool away = false;  // its node, once the part is captured
    };
    struct Input;

    Generation(std::chrono::seconds dump_timeout, const GenerationTable& table) : table_(&table), dump_timeout_(dump_timeout) {}
    Part* part_of(const std::string& node);
    const GenerationTransition& transition(GenerationEvent event) const;
    bool awaits(GenerationEvent event) const;
    GenerationOrders step(GenerationEvent event, const Input& input);
    GenerationOrders act(GenerationAction action, const Input& input);
    GenerationOrders order_tasks();
    GenerationOrders to_all(GenerationOrder::What what) const;
    GenerationOrders take_frozen(const std::string& node, Part& part, std::vector<GenerationImage> images, std::vector<EndedRank> ended);
    void set_away(Part& part, bool away);
    void add_image(const std::string& node, GenerationImage image);
    std::string late_text() const;

    const GenerationTable* table_;
    std::chrono::seconds dump_timeout_;
    GenerationPhase phase_ = GenerationPhase::asked;
    std::string script_node_;  // "": steps alone
    GenerationRanks ranks_;
    std::map<std::string, Part> parts_;  // by node
    std::size_t to_freeze_ = 0;          // parts whose tasks are ordered and not dumped
    std::size_t to_store_ = 0;           // parts that are let go and not stored
    std::size_t away_ = 0;               // those of them whose nodes are away
    std::map<std::string, GenerationImage> images_;
    std::vector<EndedRank> ended_;
    std::map<std::string, GenerationStored> stored_;
    std::string why_;
};

}  // namespace sckpt
