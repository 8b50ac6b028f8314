// SPDX-License-Identifier: GPL-3.0-or-later
//
// The manifest of an image (doc/image-format.md): which files it has, how long each is and what it hashes to.
// Also which names may be used below the store at all.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/result.h"

namespace sckpt {

inline constexpr int kManifestFormat = 1;
inline constexpr std::size_t kManifestLimit = 16u << 20;  // bytes

struct ManifestFile {
    std::string name;  // relative to the image, parts divided by '/'
    std::uint64_t size = 0;
    std::string blake3;
};

// Files sorted by name, so that the same files always make the same bytes.
std::string manifest_text(std::vector<ManifestFile> files);
// Errc::corrupt when it is no manifest or names a file outside of the image, Errc::unsupported for a format of the future.
Result<std::vector<ManifestFile>> parse_manifest(std::string_view text);

Result<> check_image_path(std::string_view path);  // relative, of [A-Za-z0-9._-] parts
Result<> check_file_name(std::string_view name);   // relative, of printable ASCII parts; not the manifest's

}  // namespace sckpt
