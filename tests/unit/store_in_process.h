// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-store as a thread, on whatever file system a test has for a store.
#pragma once

#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "daemon/store_process.h"
#include "daemon/store_worker.h"
#include "daemon/watched_files.h"
#include "image_store/store_id.h"
#include "tests/unit/image_store_file_systems.h"

namespace sckpt::test {

class StoreThread final : public StoreProcess {
   public:
    StoreThread(UniqueFd socket, FileSystem& store)
        : thread_([this, &store, channel = std::make_unique<StoreChannel>(std::move(socket))]() mutable {
              const auto open = [&store](const std::string&) { return Result<std::unique_ptr<FileSystem>>(without(store, {})); };
              std::ignore = serve_store(*channel, open);
              channel.reset();
              ended_.set_value();
          }) {}
    void kill() override {}  // who kills it has closed the socket, which ends it
    std::optional<std::string> wait(std::chrono::milliseconds deadline) override {
        if (end_.wait_for(deadline) != std::future_status::ready) return std::nullopt;
        return "exit code 0";
    }

   private:
    std::promise<void> ended_;
    std::future<void> end_ = ended_.get_future();
    std::jthread thread_;
};

inline StartStoreProcess thread_for_store(FileSystem& store) {
    return [&store](UniqueFd socket, bool) -> Result<std::unique_ptr<StoreProcess>> {
        return std::make_unique<StoreThread>(std::move(socket), store);
    };
}

inline Result<> make_store_id_file(FileSystem& store, const std::string& id) {
    put_file(store, kStoreIdFile, "{\"id\": \"" + id + "\", \"cluster\": \"c\"}");
    return store.sync_directory("");
}

}  // namespace sckpt::test
