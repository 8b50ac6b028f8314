// SPDX-License-Identifier: GPL-3.0-or-later
//
// Work in a thread of its own. What goes wrong in it (no memory, no thread) ends that work and not the daemon.
#pragma once

#include <exception>
#include <thread>
#include <utility>

#include "common/log.h"

namespace sckpt {

// False when there is no thread for it: the work was not begun.
template <class Work>
bool in_background(Work work) {
    try {
        std::thread([work = std::move(work)]() mutable {
            try {
                work();
            } catch (const std::exception& e) {
                log_error("work in the background failed: {}", e.what());
            }
        }).detach();
        return true;
    } catch (const std::exception& e) {
        log_error("no thread for work in the background: {}", e.what());
        return false;
    }
}

}  // namespace sckpt
