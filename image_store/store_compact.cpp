// SPDX-License-Identifier: GPL-3.0-or-later
//
// Rewriting packs that are mostly dead space: the blocks that images still use of them go, as they are stored, into one new pack,
// and each image gets a new manifest. Then all of it is read back and verified: a compaction never answers with an image that is
// not whole.
#include <algorithm>
#include <format>
#include <list>
#include <optional>
#include <unordered_map>

#include "image_store/names.h"
#include "image_store/new_files.h"
#include "image_store/pack.h"
#include "image_store/store.h"
#include "image_store/work.h"

namespace sckpt {
namespace {

class Compaction {
   public:
    Compaction(FileSystem& files, const std::vector<std::string>& rewrite, const WorkOptions& options)
        : files_(files), made_(files), rewrite_(rewrite), directory_(directory_of(rewrite.front())), work_(options) {}

    Result<> add_image(const Manifest& image) {
        SCKPT_ASSIGN(auto made, made_.create(directory_, name_of(image), kManifestSuffix));
        Rewritten& mine = images_.emplace_back(Rewritten{&image, made.path, ManifestWriter(std::move(made.file))});
        PackReader packs(files_, image);
        std::vector<Chunk> window(1024);
        for (std::uint64_t done = 0; done < image.chunk_count;) {
            const auto some = std::span(window).first(std::min<std::uint64_t>(window.size(), image.chunk_count - done));
            SCKPT_TRY(image.read_chunks(done, some));
            for (Chunk& chunk : some) {
                SCKPT_TRY(place(chunk, image, packs, mine.writer));
                SCKPT_TRY(mine.writer.add(chunk));
            }
            done += some.size();
        }
        return {};
    }

    Result<std::vector<StoredImage>> finish(const SealFn& seal) {
        std::uint64_t pack_bytes = 0;
        if (pack_) {
            std::vector<const ManifestWriter*> tables;
            for (const Rewritten& image : images_) tables.push_back(&image.writer);
            SCKPT_ASSIGN(pack_bytes, finish_pack(*pack_, pack_path_, tables));
        }
        std::vector<StoredImage> stored;
        for (Rewritten& image : images_) {
            image.writer.set_pack_bytes(pack_path_, pack_bytes);
            SCKPT_ASSIGN(const std::string digest, image.writer.finish(image.old->of_image(), seal));
            const std::uint64_t shared = stored.empty() ? pack_bytes : 0;  // counted as written for the first of them
            stored.push_back({image.path, digest, image.old->plain_bytes, shared + image.writer.bytes(), image.writer.packs()});
        }
        return stored;
    }
    Result<> keep() { return made_.keep(); }

   private:
    struct Rewritten {
        const Manifest* old;
        std::string path;
        ManifestWriter writer;
    };

    static std::string name_of(const Manifest& image) {
        return std::format("ckpt-{}-{}", image.identity.checkpoint, image.identity.task);
    }

    // Makes the chunk say where it is from now on.
    Result<> place(Chunk& chunk, const Manifest& image, PackReader& packs, ManifestWriter& writer) {
        if (chunk.codec == Codec::zero) return {};
        const PackUse& old = image.packs[chunk.pack];
        const auto rewritten = std::ranges::find(rewrite_, old.path);
        const bool moves = rewritten != rewrite_.end();
        if (moves) {
            const auto key = (static_cast<std::uint64_t>(rewritten - rewrite_.begin()) << 48) | chunk.offset;
            SCKPT_ASSIGN(chunk.offset, move(key, chunk, image, packs));
        }
        const auto number = moves ? writer.pack_number(pack_path_, 0) : writer.pack_number(old.path, old.bytes);
        if (!number) return fail(Errc::internal, std::format("an image refers to more than {} packs", kMaxPacks));
        chunk.pack = *number;
        return {};
    }

    Result<std::uint64_t> move(std::uint64_t key, const Chunk& chunk, const Manifest& image, PackReader& packs) {
        if (const auto found = moved_.find(key); found != moved_.end()) return found->second;
        SCKPT_TRY(work_.pace(chunk.stored));
        if (!pack_) {
            SCKPT_ASSIGN(auto made, made_.create(directory_, name_of(image), kPackSuffix));
            pack_path_ = made.path;
            pack_.emplace(std::move(made.file));
        }
        block_.resize(chunk.stored);
        SCKPT_TRY(packs.read(chunk.pack, chunk.offset, block_));
        SCKPT_ASSIGN(const std::uint64_t offset, pack_->append(block_));
        work_.done(chunk.stored, chunk.stored);
        SCKPT_TRY(work_.tell());
        return moved_[key] = offset;
    }

    FileSystem& files_;
    NewFiles made_;
    const std::vector<std::string>& rewrite_;
    const std::string directory_;
    Work work_;
    std::list<Rewritten> images_;
    std::unordered_map<std::uint64_t, std::uint64_t> moved_;  // pack and offset of a block → its offset in the new pack
    std::string pack_path_;
    std::optional<PackWriter> pack_;
    std::vector<std::byte> block_;
};

Result<> verify_stored(const Store& store, FileSystem& files, const std::string& path, const WorkOptions& options) {
    SCKPT_ASSIGN(auto file, files.open(path));
    SCKPT_ASSIGN(const Manifest manifest, Manifest::open(std::move(file)));
    SCKPT_ASSIGN(const auto faults, store.check(manifest, options));
    if (!faults.empty()) return fail(Errc::corrupt, faults.front().what);
    return {};
}

}  // namespace

Result<std::vector<StoredImage>> Store::compact(const std::vector<const Manifest*>& images,
                                                const std::vector<std::string>& rewrite,
                                                const SealFn& seal,
                                                const WorkOptions& options) const {
    if (rewrite.empty()) return fail(Errc::invalid, "no pack is named that is to be rewritten");
    Compaction compaction(files_, rewrite, options);
    for (const Manifest* image : images) SCKPT_TRY(compaction.add_image(*image));
    SCKPT_ASSIGN(std::vector<StoredImage> stored, compaction.finish(seal));
    for (const StoredImage& image : stored) SCKPT_TRY(verify_stored(*this, files_, image.manifest, options));
    SCKPT_TRY(compaction.keep());
    return stored;
}

}  // namespace sckpt
