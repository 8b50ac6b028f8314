// SPDX-License-Identifier: GPL-3.0-or-later
//
// What this node does for one checkpoint, while that is made: dump the batch script, dump tasks, or both; each order of sckptctld is a piece of
// work in a thread of its own, and all share the part. It is *making* until sckptctld says that the checkpoint is captured (*released*), or until one
// piece of work fails or the checkpoint is dropped (*dropped*); the first word counts. Safe from any thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"
#include "daemon/fast_tier.h"
#include "daemon/held_part.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

class NodePart {
   public:
    NodePart(std::uint64_t id, FastTier& tier) : id_(id), tier_(tier) {}

    std::uint64_t id() const { return id_; }
    bool begin(const rpc::DumpOrder& order);  // a piece of work; false: it was begun before
    void reported();                          // all that one piece of work was ordered to dump is about to be reported
    bool leave();                             // true: it was the last one

    void script_may_go();
    void release(const rpc::ReleaseOrder& order);
    void release_alone();  // a batch script without live steps: nothing has to agree with it
    // It comes to nothing. True when that is news: it was neither released nor dropped before.
    bool fail(Error why);
    // The connection to sckptctld has ended. What was not all reported by then cannot become captured any more (doc/protocol.md, "detached"), so it
    // fails; else the word that it is captured may be what was lost, and it is waited for.
    void connection_lost();
    void make_urgent();

    enum class Until { script_may_go, decided };
    bool wait(Until until, std::chrono::milliseconds limit);  // false: not yet. True also when it was dropped
    Result<> wanted() const;                                  // why it was dropped

    Result<> make_room(std::uint64_t bytes, FastTier::Clock::time_point deadline);
    std::string directory(const std::string& task) const;  // of an image; the part's own is there, once there is room
    void add(HeldImage image);

    // After the last piece of work. The part to be held (but for its needs), nothing when there was no image to be made; the error says why it comes
    // to nothing.
    Result<std::optional<HeldPart>> outcome();
    bool released() const;
    void keep();     // what lies in its directory stays there
    void discard();  // is removed

   private:
    enum class State { making, released, dropped };
    bool fail_locked(Error why);

    const std::uint64_t id_;
    FastTier& tier_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    State state_ = State::making;
    std::optional<Error> failure_;
    bool script_begun_ = false, tasks_begun_ = false, script_may_go_ = false, urgent_ = false;
    int at_work_ = 0, unreported_ = 0;  // pieces of work
    std::string store_, store_directory_;
    rpc::ReleaseOrder order_;  // once released
    std::vector<HeldImage> images_;
    std::mutex room_mutex_;
    std::optional<FastTier::Reservation> room_;
};

}  // namespace sckpt
