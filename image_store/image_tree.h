// SPDX-License-Identifier: GPL-3.0-or-later
//
// The files of an image as they lie in a directory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/result.h"
#include "image_store/file_system.h"

namespace sckpt {

struct TreeFile {
    std::string name;  // below the image
    std::uint64_t bytes = 0;
};
// All regular files with those of sub-directories, sorted by name. Errc::invalid for a name that an image cannot have.
Result<std::vector<TreeFile>> image_files(FileSystem& image);

}  // namespace sckpt
