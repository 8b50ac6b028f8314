// SPDX-License-Identifier: GPL-3.0-or-later
//
// The stub's standard input. The srun that it stands for reads it through a pipe, and the stub keeps what has gone through, so that after a
// restart another srun gets all of it again. A terminal and /dev/null are passed as they are. Nothing here waits.
#pragma once

#include <string>

#include "common/fd.h"

namespace sckpt {

class StubInput {
   public:
    static constexpr std::size_t kMaxKept = 64u << 20;  // bytes

    StubInput();

    // What to pass as srun's standard input: descriptor 0, or the read end of a new pipe. -1: errno.
    int offer();
    // The supervisor's answer: was the srun started just now, with what was offered?
    void settle(bool fresh);
    void feed() { feeding_ = true, serve_output(); }  // srun reads

    // What to poll(2) for reading and for writing, -1: nothing; what was ready is served.
    int input() const { return feeding_ && pipe_ && !complete_ && sent_ == kept_.size() ? 0 : -1; }
    int output() const { return feeding_ && sent_ < kept_.size() ? pipe_.get() : -1; }
    void serve_input();
    void serve_output();
    bool replayable() const { return replayable_; }  // false once more has gone through than is kept

   private:
    bool relayed_ = false;
    UniqueFd pipe_;                          // to srun
    UniqueFd offered_read_, offered_write_;  // of the pipe that was offered last, until it is settled
    bool feeding_ = false, complete_ = false, replayable_ = true;
    std::string kept_;
    std::size_t sent_ = 0;  // of what is kept, to this srun
};

}  // namespace sckpt
