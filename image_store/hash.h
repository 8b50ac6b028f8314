// SPDX-License-Identifier: GPL-3.0-or-later
//
// BLAKE3 of a stream; with a key, its keyed mode.
#pragma once

#include <cstddef>
#include <string>

#include <blake3.h>

#include "image_store/seal.h"

namespace sckpt {

class Blake3 {
   public:
    Blake3() { blake3_hasher_init(&state_); }
    explicit Blake3(const Digest& key) { blake3_hasher_init_keyed(&state_, key.data()); }
    void update(const void* bytes, std::size_t size) { blake3_hasher_update(&state_, bytes, size); }
    Digest digest() const {  // of what came so far; more may follow
        Digest digest;
        blake3_hasher_finalize(&state_, digest.data(), digest.size());
        return digest;
    }
    std::string hex() const { return to_hex(digest()); }

   private:
    blake3_hasher state_;
};

}  // namespace sckpt
