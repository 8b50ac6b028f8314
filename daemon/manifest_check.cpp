// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/manifest_check.h"

#include <format>
#include <utility>

namespace sckpt {

Result<Manifest> sealed_manifest(const SealKeys& keys, const std::string& path, Result<ManifestCopy> copy) {
    if (!copy) return std::unexpected(copy.error());
    if (auto right = keys.verify(copy->hashes.body, copy->hashes.seal); !right) return std::unexpected(right.error().context(path));
    auto manifest = Manifest::open(std::move(copy->file));
    if (!manifest) return std::unexpected(manifest.error().context(path));
    return manifest;
}

Result<Manifest> verified_manifest(const SealKeys& keys, const ManifestName& name, Result<ManifestCopy> copy) {
    if (copy && copy->hashes.digest != name.digest)
        return fail(Errc::corrupt, std::format("{} is not what was stored under this name: its BLAKE3 is {}, the catalogue has {}", name.path,
                                               copy->hashes.digest, name.digest));
    return sealed_manifest(keys, name.path, std::move(copy));
}

}  // namespace sckpt
