// SPDX-License-Identifier: GPL-3.0-or-later
//
// The barrier at the end of a dump: there the hook waits, with the tree still frozen, until the driver says go. They meet at a Unix socket in
// the image directory, which is root's alone: criu closes every descriptor before it runs its action script, so none can be handed over.
// Each end sees the other one die. Without a driver the hook fails, and with it the dump: the tree goes on.
#pragma once

#include <string>

#include "backend/criu/child.h"
#include "common/fd.h"
#include "common/result.h"

namespace sckpt::criu {

class Barrier {  // the driver's end
   public:
    static Result<Barrier> open(const std::string& directory);
    int fd() const { return hook_ ? hook_.get() : listener_.get(); }  // readable: the hook has come, or later, has gone
    Result<> meet();                                                  // the hook has come
    Result<> let_go();
    void give_up();  // the hook fails, now or when it comes

   private:
    explicit Barrier(UniqueFd listener) : listener_(std::move(listener)) {}
    UniqueFd listener_, hook_;
};

// The hook's end. `directory` may be any name of the image directory, however short-lived. Success: go on; Errc::busy: the dump is given up.
Result<> wait_at_barrier(const std::string& directory, Deadline deadline);

}  // namespace sckpt::criu
