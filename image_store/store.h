// SPDX-License-Identifier: GPL-3.0-or-later
//
// The store: images as sealed manifests and packs of chunks, on the shared file system.
//
// Every file of the store has a name of its own for ever, is written once, and is never changed: an image is put by a new pack and a
// new manifest, durable before put() returns, and it exists when the catalogue has committed the manifest's name and digest. So no
// lock is needed, and a crash leaves files that nobody names. What may be removed is known to the catalogue alone.
// Objects of this class hold no state but the file system; calls block and may be made from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/page_runs.h"
#include "common/result.h"
#include "image_store/file_system.h"
#include "image_store/manifest.h"

namespace sckpt {

struct WorkOptions {
    int threads = 1;                             // for hashing and compression
    std::uint64_t bytes_per_second = 0;          // read from the image at most; 0: no limit
    std::function<Result<>(std::uint64_t plain, std::uint64_t written)> progress;  // bytes so far, from one thread; an error ends the work
};

struct PutRequest {
    ImageIdentity identity;
    ImageNeeds needs;
    std::vector<UserFile> user_files;
    std::string directory;           // below the store: "job-4711-8"; made when it is not there, and made again when a remove() on another
                                     // node takes it away, empty as it is, before a file is in it (create() says Errc::not_found then)
    std::string name;                // "ckpt-3-batch"; a random part and the suffixes are added
    PageRuns pages;                  // chunks are cut where an address crosses a multiple of the chunk size: memory that did not change makes
                                     // the same chunks again, wherever in its file it lies
    const Manifest* base = nullptr;  // a complete image of the same job, verified: chunks it has are referred to, not written
    SealFn seal;
};

struct StoredImage {
    std::string manifest;            // path below the store
    std::string digest;              // BLAKE3 of the manifest, hex
    std::uint64_t plain_bytes = 0;   // of the image's files
    std::uint64_t new_bytes = 0;     // written for it: its pack and its manifest
    std::vector<PackUse> packs;      // every pack that the manifest refers to; its own too, unless nothing was new
};

struct ChunkFault {                  // what does not verify
    std::string what;                // "pages-1.img at 65536: chunk … of pack job-1-2/….pack does not match its hash"
    std::string pack;                // "" where it is not a pack's fault
};

class Store {
   public:
    explicit Store(FileSystem& files) : files_(files) {}

    // Stores all files of `image`. On an error what was written is removed again as far as possible; Errc::no_space is the store's.
    Result<StoredImage> put(FileSystem& image, const PutRequest& request, const WorkOptions& options) const;

    // Writes the files of a verified manifest into `target` (empty), each chunk verified as it is read. Errc::corrupt names the place.
    Result<> get(const Manifest& manifest, FileSystem& target, const WorkOptions& options) const;

    // Reads and verifies every chunk without writing anything: all faults, the first 100 of them described.
    Result<std::vector<ChunkFault>> check(const Manifest& manifest, const WorkOptions& options) const;

    // Moves the chunks that these images use of the packs `rewrite` into one new pack, and writes a new manifest for each image. Nothing is
    // removed: old and new are both whole, and the catalogue changes over in one transaction. Answers in the order of `images`.
    Result<std::vector<StoredImage>> compact(const std::vector<const Manifest*>& images, const std::vector<std::string>& rewrite,
                                             const SealFn& seal, const WorkOptions& options) const;

    // Removes files, in this order, and directories that became empty; what is not there is success. Durable when it returns. One that
    // cannot be removed, for good and with its directory if that is empty, is answered, and holds up no other: tried again, it does no harm.
    // An error: nothing was done.
    struct Unremoved {
        std::string path, why;
    };
    Result<std::vector<Unremoved>> remove(const std::vector<std::string>& paths) const;

    // Puts files aside below quarantine/, durably.
    Result<> quarantine(const std::vector<std::string>& paths) const;

    // Every pack and manifest but those of quarantine/: paths, sizes, times. What has no name of the store's kind, or is no regular file, is
    // left out. A directory that cannot be read is told, and the rest is listed; only the topmost one must be readable.
    struct Listed {
        std::string path;
        std::uint64_t bytes = 0;
        std::int64_t modified = 0;
    };
    struct Unreadable {
        std::string path, why;
    };
    struct Listing {
        std::vector<Listed> files;
        std::vector<Unreadable> unreadable;
    };
    Result<Listing> list() const;

   private:
    FileSystem& files_;
};

// Whether the files of `image` are those of the manifest, byte for byte, no more and no less (names in `besides` may be there too).
// For who does not trust the one that has written them. Errc::corrupt names the first place.
Result<> verify_files(const Manifest& manifest, FileSystem& image, const std::vector<std::string>& besides, int threads);

}  // namespace sckpt
