// SPDX-License-Identifier: GPL-3.0-or-later
//
// What sckptd and its sckpt-store say to each other: JSON messages with a "kind", over a SOCK_SEQPACKET pair, with descriptors where needed.
// sckptd believes the worker nothing: it is of another user, and reads what others have written.
//
//   sckptd      request   operation, store, store_id, and what the operation needs; descriptors: the image or the target
//   worker      alive     a call of the store has come back
//               progress  plain, written
//               seal      head, rest           → sealed (key, value) or refused: the head is looked at
//               manifest  path, bytes          → copy (descriptor: a file in memory of that size, to be filled), or refused
//               copied                         → go, or refused: the file is sealed now, and what it says was verified
//               unreadable path, code, text    in place of manifest or of copied; no answer
//               next                           → piece (descriptor: bytes of a backup; none: the end) or refused
//               files, unlisted, faults, stored  parts of the answer
//               done, or failed (code, text)   the end
#pragma once

#include <cstdint>
#include <initializer_list>
#include <mutex>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/fd.h"
#include "common/result.h"
#include "image_store/store.h"

namespace sckpt {

using Json = nlohmann::json;

inline constexpr int kStoreSocket = 3;  // the worker's number of its end
// A copy of a manifest lies in memory, of which nobody may take what he likes. Enough for 20 million chunks: an image of a terabyte.
inline constexpr std::uint64_t kMaxManifestBytes = 1u << 30;

// A message longer than a packet goes in several. One thread receives; any may send.
class StoreChannel {
   public:
    explicit StoreChannel(UniqueFd socket) : socket_(std::move(socket)) {}

    struct Message {
        Json body;  // an object; null: the peer has gone
        std::vector<UniqueFd> fds;
        std::string kind() const;
    };
    Result<> send(const Json& body, std::initializer_list<int> fds = {});
    // -1: for ever. What has come of a message when the time is up is kept for the next call.
    Result<Message> receive(int deadline_ms);

   private:
    const UniqueFd socket_;
    std::mutex sending_;
    std::string text_;  // of a message that is not whole yet
    std::vector<UniqueFd> fds_;
};

// Members of a message; what is missing or of another kind is "", 0 or none, which then is no name, no size and no answer.
std::string text_of(const Json& object, const char* name);
std::uint64_t number_of(const Json& object, const char* name);
bool flag_of(const Json& object, const char* name);
std::vector<std::string> texts_of(const Json& object, const char* name);
const Json& list_of(const Json& object, const char* name);

Json error_message(const char* kind, const Error& error);
Error error_of(const Json& message);  // its text made fit for a log

Json to_json(const StoredImage& image);
Result<StoredImage> stored_image_of(const Json& object);  // names and digest checked
Json to_json(const Space& space);
Space space_of(const Json& object);

}  // namespace sckpt
