// SPDX-License-Identifier: GPL-3.0-or-later
//
// Reading images: into files, or only to see whether they are whole; and comparing files with what a manifest says of them.
#include <algorithm>
#include <format>
#include <mutex>
#include <set>

#include "image_store/chunk_ranges.h"
#include "image_store/hash.h"
#include "image_store/image_tree.h"
#include "image_store/names.h"
#include "image_store/store.h"

namespace sckpt {
namespace {

constexpr std::size_t kDescribed = 100;

// The range's bytes but zero chunks: those are holes.
Result<> write_range(const ChunkRange& range, std::span<const std::byte> plain) {
    std::size_t begin = 0, end = 0;  // of what is to be written
    const auto flush = [&]() -> Result<> {
        return begin == end ? Result<>{} : range.open->write_at(range.offset + begin, plain.subspan(begin, end - begin));
    };
    for (const Chunk& chunk : range.chunks) {
        if (chunk.codec == Codec::zero) {
            SCKPT_TRY(flush());
            begin = end + chunk.plain;
        }
        end += chunk.plain;
    }
    return flush();
}

Result<std::shared_ptr<File>> make_file(FileSystem& target, const ImageFile& wanted) {
    SCKPT_TRY(make_directories(target, directory_of(wanted.name)));
    SCKPT_ASSIGN(std::shared_ptr<File> file, target.create(wanted.name));
    SCKPT_TRY(file->truncate(wanted.size));
    return file;
}

// What check() has found: the first faults, and at least one of each pack that has any.
class Faults {
   public:
    void add(const ChunkFault& fault) {
        const std::lock_guard lock(mutex_);
        const bool new_pack = packs_.insert(fault.pack).second;
        if (found_.size() < kDescribed || new_pack) found_.push_back(fault);
        else ++more_;
    }
    std::vector<ChunkFault> take() {
        if (more_ != 0) found_.push_back({std::format("and {} more", more_), ""});
        return std::move(found_);
    }

   private:
    std::mutex mutex_;
    std::vector<ChunkFault> found_;
    std::set<std::string> packs_;
    std::uint64_t more_ = 0;
};

Result<> verify_range(const ChunkRange& range, const std::string& name, std::span<std::byte> buffer) {
    const auto bytes = buffer.first(range.bytes);
    SCKPT_ASSIGN(const std::size_t got, range.open->read_at(range.offset, bytes));
    if (got != bytes.size()) return fail(Errc::corrupt, std::format("{} is too short", name));
    std::size_t at = 0;
    for (const Chunk& chunk : range.chunks) {
        const auto plain = bytes.subspan(at, chunk.plain);
        Blake3 hash;
        if (chunk.codec != Codec::zero) hash.update(plain.data(), plain.size());
        if (chunk.codec == Codec::zero ? !is_zero(plain) : hash.digest() != chunk.hash)
            return fail(Errc::corrupt, std::format("{} at {}: the bytes are not those of the manifest", name, range.offset + at));
        at += chunk.plain;
    }
    return {};
}

Result<> verify_names(const Manifest& manifest, FileSystem& image, const std::vector<std::string>& besides) {
    SCKPT_ASSIGN(std::vector<TreeFile> found, image_files(image));
    std::erase_if(found, [&](const TreeFile& file) { return std::ranges::contains(besides, file.name); });
    auto wanted = manifest.files.begin();
    for (const TreeFile& file : found) {
        if (wanted == manifest.files.end() || file.name < wanted->name)
            return fail(Errc::corrupt, std::format("{} is there, and is not in the manifest", file.name));
        if (file.name != wanted->name) break;
        if (file.bytes != wanted->size)
            return fail(Errc::corrupt, std::format("{} has {} bytes, not {}", file.name, file.bytes, wanted->size));
        ++wanted;
    }
    if (wanted != manifest.files.end()) return fail(Errc::corrupt, std::format("{} is missing", wanted->name));
    return {};
}

}  // namespace

Result<> Store::get(const Manifest& manifest, FileSystem& target, const WorkOptions& options) const {
    PackReader packs(files_, manifest);
    const auto open = [&](std::size_t file) { return make_file(target, manifest.files[file]); };
    return for_each_range(manifest, options, open, [&](const ChunkRange& range, RangeBuffers& buffers) -> Result<> {
        std::string broken;
        SCKPT_TRY(read_range(range, manifest, packs, buffers,
                             [&](const ChunkFault& fault) { broken = broken.empty() ? fault.what : broken; }));
        if (!broken.empty()) return fail(Errc::corrupt, broken);
        return write_range(range, buffers.plain);
    });
}

Result<std::vector<ChunkFault>> Store::check(const Manifest& manifest, const WorkOptions& options) const {
    PackReader packs(files_, manifest);
    Faults faults;
    const auto tell = [&](const ChunkFault& fault) { faults.add(fault); };
    for (std::size_t i = 0; i < manifest.packs.size(); ++i) {
        const auto good = packs.verify_index(static_cast<std::uint16_t>(i));
        if (!good && good.error().code != Errc::corrupt) return std::unexpected(good.error());
        if (!good) tell({good.error().text, manifest.packs[i].path});
    }
    const auto open = [](std::size_t) { return Result<std::shared_ptr<File>>(); };
    SCKPT_TRY(for_each_range(manifest, options, open, [&](const ChunkRange& range, RangeBuffers& buffers) {
        return read_range(range, manifest, packs, buffers, tell);
    }));
    return faults.take();
}

Result<> verify_files(const Manifest& manifest, FileSystem& image, const std::vector<std::string>& besides, int threads) {
    SCKPT_TRY(verify_names(manifest, image, besides));
    const auto open = [&](std::size_t file) -> Result<std::shared_ptr<File>> { return image.open(manifest.files[file].name); };
    return for_each_range(manifest, {.threads = threads}, open, [&](const ChunkRange& range, RangeBuffers& buffers) {
        return verify_range(range, manifest.files[range.file].name, buffers.plain);
    });
}

}  // namespace sckpt
