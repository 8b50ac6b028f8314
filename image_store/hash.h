// SPDX-License-Identifier: GPL-3.0-or-later
//
// BLAKE3 of a stream, as 64 lower-case hex digits.
#pragma once

#include <cstddef>
#include <string>

#include <blake3.h>

namespace sckpt {

class Blake3 {
   public:
    Blake3() { blake3_hasher_init(&state_); }
    void update(const void* bytes, std::size_t size) { blake3_hasher_update(&state_, bytes, size); }
    std::string hex() const;

   private:
    blake3_hasher state_;
};

}  // namespace sckpt
