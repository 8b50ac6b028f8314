// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-store, the process that reads and writes the store for sckptd: of the service user, without any privilege, started for one operation
// (daemon/store_client.h starts it). It has what it was handed, and the store.
//   store_worker_main.cpp         the program, and how it opens the store
//   store_worker.cpp              request, answer, and what all operations share
//   store_worker_operations.cpp   the operations
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "daemon/store_protocol.h"
#include "image_store/store.h"

namespace sckpt {

// The other side, as calls.
class StoreMaster {
   public:
    explicit StoreMaster(StoreChannel& channel) : channel_(channel) {}

    Result<> tell(const Json& message) { return channel_.send(message); }
    Result<> alive();                                                   // from any thread; says so at most once a second
    Result<> progress(std::uint64_t plain, std::uint64_t written);      // if something has moved, at most twice a second
    Result<Seal> seal(std::string_view head, const Digest& rest);
    Result<UniqueFd> next_piece();                                      // of a backup; none: the end

    // A manifest of the store, from a copy that sckptd has verified and nobody can change.
    Result<Manifest> manifest(FileSystem& store, const std::string& path);

   private:
    Result<StoreChannel::Message> answer(const char* kind);
    Result<std::unique_ptr<File>> copy_manifest(FileSystem& store, const std::string& path);
    bool time_to_speak(std::chrono::milliseconds after);

    StoreChannel& channel_;
    std::mutex mutex_;  // of the following
    std::chrono::steady_clock::time_point spoken_{};
    std::uint64_t told_plain_ = 0, told_written_ = 0;
};

struct StoreTask {
    Json request;
    UniqueFd directory;  // the image or the target
    FileSystem& files;   // of the store
    Store store;
    StoreMaster& master;

    WorkOptions options() const;
};

// Carries out the one request that comes through the channel, on the store that `open` opens (by the path that the request names), and answers.
// An error: the other side has gone.
using OpenStore = std::function<Result<std::unique_ptr<FileSystem>>(const std::string& path)>;
Result<> serve_store(StoreChannel& channel, const OpenStore& open);

// The members of the "done" message.
Result<Json> carry_out(StoreTask& task);

}  // namespace sckpt
