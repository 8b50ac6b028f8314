// SPDX-License-Identifier: GPL-3.0-or-later
//
// One sckpt-store from sckptd's side: started as the service user, given its request, listened to until its answer, and ended.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>

#include "common/config.h"
#include "daemon/store_client.h"
#include "daemon/store_process.h"
#include "daemon/store_protocol.h"

namespace sckpt {

// A manifest that the worker has copied out of the store, in memory where nobody can change it any more.
struct ManifestCopy {
    std::unique_ptr<File> file;
    Manifest::Hashes hashes;
    std::uint64_t bytes = 0;
};

// What an operation makes of the worker's messages. An error of `part` or `next` ends the operation; others are told to the worker, which
// knows what can be done without.
struct StoreHandlers {
    std::function<Result<>(const std::string& path, Result<ManifestCopy> copy)> manifest;  // whether the worker may read it
    SealFn seal;
    std::function<Result<std::string>()> next;
    std::function<Result<>(const Json& part)> part;
};

class StoreSession {
   public:
    StoreSession(const Config& config, const StartStoreProcess& start, const StoreCall& call)
        : config_(config), start_(start), call_(call) {}

    // The "done" message. When this returns, with whatever answer, no process of it is left; but for one that the kernel does not end, on an
    // error, which then holds no more than its descriptors.
    Result<Json> run(Json request, std::initializer_list<int> fds, const StoreHandlers& handlers);

   private:
    struct Copying {  // a manifest that the worker is copying
        std::string path;
        UniqueFd memory;
    };
    static Result<ManifestCopy> sealed_copy(Copying copying);

    Result<> start();
    Result<Json> converse(const StoreHandlers& handlers);
    Result<> handle(StoreChannel::Message& message, const StoreHandlers& handlers);
    Result<> begin_copy(const Json& message);
    Result<> finish_copy(const StoreHandlers& handlers);
    Result<> give_seal(const Json& message, const StoreHandlers& handlers);
    Result<> give_piece(const StoreHandlers& handlers);
    Error died();
    bool end();

    const Config& config_;
    const StartStoreProcess& start_;
    const StoreCall& call_;
    std::unique_ptr<StoreProcess> worker_;
    std::optional<StoreChannel> channel_;
    Copying copying_;
};

}  // namespace sckpt
