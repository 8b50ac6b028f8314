// SPDX-License-Identifier: GPL-3.0-or-later
//
// Listing an image.
#include "image_store/image_tree.h"

#include <algorithm>

#include "image_store/names.h"

namespace sckpt {

Result<std::vector<TreeFile>> image_files(FileSystem& image) {
    std::vector<TreeFile> files;
    std::vector<std::string> directories = {""};
    while (!directories.empty()) {
        const std::string directory = std::move(directories.back());
        directories.pop_back();
        SCKPT_ASSIGN(const std::vector<DirectoryEntry> entries, image.list(directory));
        for (const DirectoryEntry& entry : entries) {
            std::string name = directory.empty() ? entry.name : directory + "/" + entry.name;
            SCKPT_TRY(check_file_name(name));
            if (entry.odd) return fail(Errc::invalid, name + " is neither a regular file nor a directory");
            if (entry.directory) directories.push_back(std::move(name));
            else files.push_back({std::move(name), entry.bytes});
        }
    }
    std::ranges::sort(files, {}, &TreeFile::name);
    return files;
}

}  // namespace sckpt
