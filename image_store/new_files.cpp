// SPDX-License-Identifier: GPL-3.0-or-later
//
// New files of the store.
#include "image_store/new_files.h"

#include <algorithm>
#include <format>
#include <set>

#include <sys/random.h>

#include "image_store/names.h"
#include "image_store/wire.h"

namespace sckpt {
namespace {

constexpr int kTries = 10;

Result<std::string> random_part() {
    std::uint64_t number = 0;
    if (::getrandom(&number, sizeof number, 0) != static_cast<ssize_t>(sizeof number))
        return fail_errno("get random bytes for a name");
    return std::format("{:016x}", number);
}

}  // namespace

NewFiles::~NewFiles() {
    for (const std::string& path : made_) (void)files_.remove(path);  // the store may be gone: then they are orphans
}

Result<NewFiles::Made> NewFiles::create(const std::string& directory, const std::string& name, std::string_view suffix) {
    Result<std::unique_ptr<File>> file;
    for (int i = 0; i < kTries; ++i) {
        SCKPT_ASSIGN(const std::string part, random_part());
        const std::string path = std::format("{}/{}-{}{}", directory, name, part, suffix);
        SCKPT_TRY(check_store_path(path));
        SCKPT_TRY(make_directories(files_, directory));
        file = files_.create(path);
        if (file) {
            made_.push_back(path);
            return Made{path, std::move(*file)};
        }
        if (file.error().code != Errc::not_found) break;  // else another node has just removed the directory because it was empty
    }
    return std::unexpected(file.error());
}

Result<> NewFiles::keep() {
    std::set<std::string> directories;
    for (const std::string& path : made_) directories.insert(directory_of(path));
    for (const std::string& directory : directories) SCKPT_TRY(files_.sync_directory(directory));
    made_.clear();
    return {};
}

Result<std::uint64_t> finish_pack(PackWriter& pack, const std::string& path, std::span<const ManifestWriter* const> tables) {
    std::uint64_t end =
        wire::kPackHeader;  // of the blocks that are in the index: chunks of a block that is there already lie before it
    std::vector<Chunk> window(1024);
    for (const ManifestWriter* table : tables) {
        const auto own = std::ranges::find(table->packs(), path, &PackUse::path) - table->packs().begin();
        for (std::uint64_t done = 0; done < table->records();) {
            const auto some = std::span(window).first(std::min<std::uint64_t>(window.size(), table->records() - done));
            SCKPT_TRY(table->read_chunks(done, some));
            for (const Chunk& chunk : some)
                if (chunk.codec != Codec::zero && chunk.pack == own && chunk.offset == end) {
                    SCKPT_TRY(pack.add_to_index(chunk));
                    end += chunk.stored;
                }
            done += some.size();
        }
    }
    SCKPT_TRY(pack.finish());
    return pack.end();
}

}  // namespace sckpt
