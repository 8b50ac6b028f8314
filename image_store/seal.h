// SPDX-License-Identifier: GPL-3.0-or-later
//
// Digests and seals. A manifest is sealed with keyed BLAKE3 under a key that only root has, so that whoever can write the store, the
// service user included, cannot make an image that a restore accepts.
//
// The key file (/etc/sckpt/sckpt.key, root, 0600): a line for each key, "ID HEX": ID is 8 hex digits, HEX 64 (32 random bytes); lines
// that begin with '#' are comments. The first key seals; every key verifies: a rotation puts a new first line, and old lines stay
// as long as images under them do. The same file on every node.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace sckpt {

using Digest = std::array<std::uint8_t, 32>;
Digest digest_of(std::string_view bytes);  // BLAKE3
std::string to_hex(const Digest& digest);
Result<Digest> digest_from_hex(std::string_view text);

struct Seal {
    std::string key_id;  // 8 hex digits
    Digest value{};
};

// What a seal is over: two digests, so that who seals can have seen the head without having the table.
struct ManifestParts {
    Digest head{};  // BLAKE3 of the head
    Digest rest{};  // BLAKE3 of everything else before the seal: header, table and lengths
};

class SealKeys {
   public:
    // Refused unless it is a regular file of root's (of the caller's, in tests) that nobody else may read or write.
    static Result<SealKeys> load(const std::string& path);
    static Result<SealKeys> parse(std::string_view text);  // the work of load()

    // The seal is keyed BLAKE3 of "sckpt manifest 3" and the two digests.
    Seal seal(const ManifestParts& parts) const;
    Result<> verify(const ManifestParts& parts, const Seal& seal) const;  // Errc::corrupt; Errc::unsupported for a key that is not here

   private:
    struct Key {
        std::string id;
        Digest bytes{};
    };
    std::vector<Key> keys_;
};

// A new key as a line of the file, from getrandom(2).
Result<std::string> make_key_line();
// Makes the file with one key; with `rotate`, puts a new key first in an existing one. Errc::exists, Errc::not_found. Durable, atomic.
Result<std::string> write_key_file(const std::string& path, bool rotate);  // answers the new key's id

}  // namespace sckpt
