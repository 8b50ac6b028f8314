// SPDX-License-Identifier: GPL-3.0-or-later
//
// Standard input of a step's task. slurmstepd gives it by a pipe, and after a restart gives all of it again; so sckpt-run puts a pipe of
// its own in between, knows how much the program has consumed, and leaves that out the next time. Nothing here waits.
#pragma once

#include <cstdint>
#include <string>

#include "common/fd.h"

namespace sckpt {

class InputRelay {
   public:
    // Where standard input is a pipe or a socket: from here on descriptor 0 is the relay's pipe, for this process and the program it
    // starts. False: errno; standard input is what it was.
    bool open();
    void undo();  // before start(): there will be nobody to serve it
    // Begins; the first `consumed` bytes are left out.
    void start(std::uint64_t consumed);

    // What to poll(2) for reading and for writing, -1: nothing; what was ready is served.
    int input() const { return moves() && pending_.empty() ? input_.get() : -1; }
    int output() const { return moves() && !pending_.empty() ? pipe_.get() : -1; }
    void serve_input();
    void serve_output();

    // Takes what the program has not read yet back out of the pipe, so that consumed() stays what it is until go_on().
    void hold();
    void go_on();
    std::uint64_t consumed() const { return received_ - pending_.size(); }  // while held

   private:
    bool moves() const { return started_ && !held_; }
    void close_if_done();

    UniqueFd input_;     // slurmstepd's; none once it has ended
    UniqueFd pipe_;      // the end of ours that is written to
    bool ours_ = false;  // descriptor 0 is our pipe
    bool started_ = false, held_ = false;
    std::uint64_t left_out_ = 0;  // how much of the input is still to be
    std::uint64_t received_ = 0;  // of the input, with what is left out
    std::string pending_;         // received, and not in the pipe
};

}  // namespace sckpt
