// SPDX-License-Identifier: GPL-3.0-or-later
//
// Files that are being added to the store: they have names that nothing had before, and go away again unless they are kept.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/result.h"
#include "image_store/file_system.h"
#include "image_store/manifest_writer.h"

namespace sckpt {

class NewFiles {
   public:
    explicit NewFiles(FileSystem& files) : files_(files) {}
    ~NewFiles();
    NewFiles(const NewFiles&) = delete;
    NewFiles& operator=(const NewFiles&) = delete;

    struct Made {
        std::string path;
        std::unique_ptr<File> file;
    };
    // DIRECTORY/NAME-<16 random hex digits>SUFFIX; makes the directory.
    Result<Made> create(const std::string& directory, const std::string& name, std::string_view suffix);
    Result<> keep();  // durably: the files themselves have been synced

   private:
    FileSystem& files_;
    std::vector<std::string> made_;
};

// Ends a pack whose blocks are in these tables, those of an earlier one first; answers the size of the pack.
Result<std::uint64_t> finish_pack(PackWriter& pack, const std::string& path, std::span<const ManifestWriter* const> tables);

}  // namespace sckpt
