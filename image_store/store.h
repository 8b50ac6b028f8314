// SPDX-License-Identifier: GPL-3.0-or-later
//
// The store: complete images on the shared file system, as plain files beside a manifest.
//
// An image is put under a temporary name, hashed as it is copied, each file fsynced, then renamed into place and its directory
// fsynced; only then put() returns. The manifest lists every file with size and BLAKE3; the manifest's own BLAKE3 (the digest) is
// kept in the catalogue, so whoever cannot write the catalogue cannot change an image unnoticed.
// Owned by root, 0700 all the way down. Functions block, may be called from any thread, and never follow a symbolic link.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "common/result.h"

namespace sckpt {

inline constexpr const char* kManifestName = "manifest.json";

std::string blake3_hex(std::string_view bytes);  // 64 lower-case hex digits

struct StoredImage {
    std::string digest;       // BLAKE3 of the manifest, hex
    std::uint64_t bytes = 0;  // of all files
};

class Store {
   public:
    // `directory` must exist (Errc::unavailable: it is not mounted, or was never made); refused unless it is a directory of root's (or of the calling user's, in tests) that
    // nobody else may write to or read.
    static Result<Store> open(std::string directory);

    // Copies the image directory `source` to `path` below the store. `path` is relative, of [A-Za-z0-9._-] parts, none of them "." or "..".
    // An image that is there already under `path` is replaced only after the new one is durable. Errc::no_space leaves nothing behind.
    // `progress` is told the bytes so far, from the calling thread; it may be empty.
    Result<StoredImage> put(const std::string& source, const std::string& path, const std::function<void(std::uint64_t)>& progress) const;

    // Copies the image at `path` to the directory `target` (made by this call), verifying manifest and every file on the way:
    // what lands in `target` is what was verified. Errc::corrupt names the first file that is missing, added or changed.
    Result<> get(const std::string& path, const std::string& digest, const std::string& target) const;

    // Removes the image, the manifest first, and then directories that became empty; one that is not there is success.
    Result<> remove(const std::string& path) const;

    // Removes what a crash in put() left behind and no other process is writing (it holds a lock on its temporary directory).
    Result<> sweep() const;

   private:
    explicit Store(std::string directory) : directory_(std::move(directory)) {}
    std::string directory_;
};

}  // namespace sckpt
