// SPDX-License-Identifier: GPL-3.0-or-later
//
// What sckptd does with the store, as calls. Each runs one sckpt-store (daemon/store_worker.cpp): a process of the service user without any
// privilege, alone in a PID namespace of its own, so that nothing of it is left when it ends. sckptd itself, root, never touches the store:
// root has no rights there on many sites. What sckptd keeps to itself is the key: it seals what a drain has made, and it verifies the
// seal of every manifest before anyone reads what the manifest says.
//
// Calls block and may be made from any thread. A worker that makes no progress for store.timeout is killed, and the answer is Errc::timeout:
// a store that hangs never holds anything up for ever. `stop` may be set by another thread; the call then ends soon with Errc::busy.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/config.h"
#include "daemon/store_process.h"
#include "image_store/seal.h"
#include "image_store/store.h"
#include "image_store/store_id.h"

namespace sckpt {

struct ManifestName {
    std::string path, digest;  // below the store; as the catalogue has it
};

// Bytes done of the image and bytes written so far; told about twice a second, and a sign of life.
using StoreProgressFn = std::function<void(std::uint64_t plain, std::uint64_t written)>;

struct StoreCall {
    std::string store;  // its id (image_store/store_id.h): in any other one nothing is done. "": where nothing depends on it
    StoreProgressFn progress;
    std::function<void()> alive;  // the work has come a step further, whichever it is; told often
    const std::atomic<bool>* stop = nullptr;
    std::uint64_t bytes_per_second = 0;
    bool idle = false;  // idle CPU and I/O scheduling class
};

class StoreClient {
   public:
    explicit StoreClient(const Config& config, std::string program = SCKPT_LIBEXECDIR "/sckpt-store")
        : StoreClient(config, store_program(config, std::move(program))) {}
    StoreClient(const Config& config, StartStoreProcess start) : config_(config), start_(std::move(start)) {}

    // Whether the key, the service user and the store are as they must be, and which store it is; a sentence that says what to do otherwise. For
    // start-up and info.
    Result<StoreId> usable(const StoreCall& call) const;

    // Stores the image in the directory `image` (root's; readable by the service user's group for the time of the call, and root's alone
    // afterwards, directories 0700 and files 0600). base: path empty for none; a base that cannot be read or does not verify is done without.
    // Chunks are cut where `backend` says that pages are.
    struct Drain {
        std::string image, backend;
        ImageIdentity identity;
        ImageNeeds needs;
        std::vector<UserFile> user_files;
        std::string directory, name;  // see PutRequest
        ManifestName base;
        std::vector<std::string> leave_out;  // files of the directory that are not the image's
        int threads = 1;
    };
    Result<StoredImage> drain(const Drain& request, const StoreCall& call) const;

    // Makes the directory `target` (root, 0700) with the image's files. Manifest: digest, seal and identity (job_row, checkpoint) verified by
    // this process before anything else is read of it; every file verified by this process after the worker has ended. Errc::corrupt: this image.
    // On an error nothing is left.
    struct Fetch {
        ManifestName manifest;
        std::int64_t checkpoint_row = 0;
        std::uint32_t job_id = 0, uid = 0;
        std::string target;
        std::vector<std::string> besides;  // verify_local: files that are not the image's and may be there
        int threads = 1;
    };
    struct Fetched {
        ImageNeeds needs;
        std::vector<UserFile> user_files;
    };
    Result<Fetched> fetch(const Fetch& request, const StoreCall& call) const;

    // Whether the files in `target` are those of the manifest: for an image that is still in the fast tier. Only the manifest is read from the
    // store. Nothing is removed.
    Result<Fetched> verify_local(const Fetch& request, const StoreCall& call) const;

    Result<std::vector<Store::Unremoved>> remove(const std::vector<std::string>& paths, const StoreCall& call) const;
    Result<> quarantine(const std::vector<std::string>& paths, const StoreCall& call) const;

    struct Found {
        StoredImage image;
        ImageIdentity identity;
        std::string head;  // JSON
    };
    struct Scan {
        std::vector<Store::Listed> files;
        std::vector<Found> images;          // when asked for
        std::vector<std::string> unusable;          // "job-1-2/….manifest: why": it does not verify
        std::vector<Store::Unreadable> unreadable;  // manifests and directories about which nothing is known: they could not be read here
        Space space;
    };
    Result<Scan> scan(bool images, const StoreCall& call) const;

    // For each manifest its faults; quick: seal, and that the packs are there with the right sizes. A key that this node does not know is a
    // fault; one that cannot be read has none. An error: the store as a whole could not be read, or there is no key at all.
    struct Checked {
        std::vector<std::string> faults;
        std::string unreadable;  // why
    };
    Result<std::vector<Checked>> check(const std::vector<ManifestName>& manifests, bool quick, int threads, const StoreCall& call) const;
    Result<std::vector<StoredImage>> compact(const std::vector<ManifestName>& manifests, const std::vector<std::string>& rewrite, int threads,
                                             const StoreCall& call) const;

    // Keeps the bytes that `next` gives (empty: the end) as catalogue/NAME, durably, and removes older backups but the newest three.
    Result<> backup(const std::string& name, const std::function<Result<std::string>()>& next, const StoreCall& call) const;

   private:
    Result<SealKeys> keys() const;
    Result<Fetched> verify_target(const Manifest& manifest, const Fetch& request, const StoreCall& call) const;
    Result<Manifest> fetch_manifest(const Fetch& request, const StoreCall& call, const char* operation, int target) const;

    const Config config_;
    const StartStoreProcess start_;
};

}  // namespace sckpt
