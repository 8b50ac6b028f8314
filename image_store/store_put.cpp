// SPDX-License-Identifier: GPL-3.0-or-later
//
// Storing an image: threads read, hash and compress (image_reader.h); this thread looks each chunk up, writes what is new into
// the pack, and the records into the manifest.
#include <algorithm>
#include <format>
#include <optional>

#include "image_store/image_reader.h"
#include "image_store/names.h"
#include "image_store/new_files.h"
#include "image_store/store.h"

namespace sckpt {
namespace {

// Which packs of the base may be referred to: those that are there, whole by their looks; and not more than leave room for one of
// our own.
std::vector<bool> usable_packs(FileSystem& files, const Manifest& base) {
    std::vector<bool> usable;
    for (const PackUse& pack : base.packs) usable.push_back(open_pack(files, pack.path, pack.bytes).has_value());
    if (base.packs.size() >= kMaxPacks)
        usable[static_cast<std::size_t>(std::ranges::min_element(base.packs, {}, &PackUse::used) - base.packs.begin())] = false;
    return usable;
}

class ImagePut {
   public:
    ImagePut(FileSystem& store, const PutRequest& request, Work& work)
        : store_(store), made_(store), request_(request), work_(work) {}

    Result<StoredImage> run(FileSystem& image) {
        SCKPT_ASSIGN(files_, image_files(image));
        std::uint64_t bytes = 0;
        for (const TreeFile& file : files_) bytes += file.bytes;
        const std::uint32_t chunk_size = chunk_size_for(bytes, request_.base == nullptr ? 0 : request_.base->chunk_size);
        SCKPT_ASSIGN(auto made, made_.create(request_.directory, request_.name, kManifestSuffix));
        manifest_.emplace(std::move(made.file));
        SCKPT_TRY(know_what_is_there());
        ImageReader reader(image, files_, request_.pages, chunk_size, finder_, work_);
        SCKPT_TRY(copy(reader));
        return finish(made.path, bytes, chunk_size);
    }

   private:
    Result<> know_what_is_there() {
        if (const Manifest* base = request_.base) {
            // A chunk of a pack that is not usable reads as a zero chunk: nobody looks for that.
            auto read = [base, usable = usable_packs(store_, *base)](std::uint64_t first, std::span<Chunk> to) -> Result<> {
                SCKPT_TRY(base->read_chunks(first, to));
                for (Chunk& chunk : to)
                    if (chunk.codec != Codec::zero && !usable[chunk.pack]) chunk.codec = Codec::zero;
                return {};
            };
            SCKPT_TRY(finder_.add_table(std::move(read), base->chunk_count));
        }
        finder_.add_growing_table([this](std::uint64_t first, std::span<Chunk> to) { return manifest_->read_chunks(first, to); });
        return {};
    }

    Result<> copy(ImageReader& reader) {
        SCKPT_TRY(work_.start([&reader] { return reader.read_spans(); }));
        const Result<> all = take_all(reader);
        if (!all) work_.stop(all.error());
        return work_.finish();
    }

    Result<> take_all(ImageReader& reader) {
        chunks_.resize(files_.size());
        for (;;) {
            SCKPT_ASSIGN(Span* const span, reader.take());
            if (span == nullptr) return {};
            const std::uint64_t before = written();
            std::size_t offset = 0;
            for (Span::Piece& piece : span->pieces) {
                SCKPT_TRY(add(piece, *span, offset));
                offset += piece.chunk.plain;
            }
            chunks_[span->file] += span->pieces.size();
            work_.done(span->bytes, written() - before);
            SCKPT_TRY(work_.tell());
        }
    }

    Result<> add(Span::Piece& piece, Span& span, std::size_t offset) {
        Chunk chunk = piece.chunk;
        if (chunk.codec != Codec::zero) {
            SCKPT_ASSIGN(const auto found, finder_.find(chunk.hash));
            if (found) chunk = refer_to(*found);
            else {
                SCKPT_ASSIGN(chunk, write_new(piece, span, offset));
            }
        }
        finder_.added(chunk);
        return manifest_->add(chunk);
    }

    Chunk refer_to(const ChunkFinder::Found& found) {
        Chunk chunk = found.chunk;
        if (request_.base != nullptr && found.table == 0) {
            const PackUse& pack = request_.base->packs[chunk.pack];
            chunk.pack = *manifest_->pack_number(pack.path, pack.bytes);  // usable_packs() keeps them below kMaxPacks
        }
        return chunk;
    }

    Result<Chunk> write_new(Span::Piece& piece, Span& span, std::size_t offset) {
        Chunk chunk = piece.chunk;
        if (piece.block == Span::kNoBlock) {  // the thread that read it held it for known
            late_.resize(kMaxBlock);
            const auto made = codec_.pack(std::span(span.plain).subspan(offset, chunk.plain), late_.data());
            Span::Block block{made.codec, 0, made.bytes, 0};
            return in_block(chunk, block, late_);
        }
        return in_block(chunk, span.blocks[piece.block], span.packed);
    }

    // The first chunk that needs it has a block written.
    Result<Chunk> in_block(Chunk chunk, Span::Block& block, std::span<const std::byte> packed) {
        if (!pack_) {
            SCKPT_ASSIGN(auto made, made_.create(request_.directory, request_.name, kPackSuffix));
            pack_path_ = made.path;
            pack_.emplace(std::move(made.file));
        }
        if (block.offset == 0) {
            SCKPT_ASSIGN(block.offset, pack_->append(packed.subspan(block.packed_at, block.bytes)));
        }
        chunk.offset = block.offset;
        chunk.stored = static_cast<std::uint32_t>(block.bytes);
        chunk.codec = block.codec;
        chunk.pack = *manifest_->pack_number(pack_path_, 0);
        return chunk;
    }

    Result<StoredImage> finish(const std::string& path, std::uint64_t bytes, std::uint32_t chunk_size) {
        if (pack_) {
            const ManifestWriter* table = &*manifest_;
            SCKPT_ASSIGN(const std::uint64_t pack_bytes, finish_pack(*pack_, pack_path_, {&table, 1}));
            manifest_->set_pack_bytes(pack_path_, pack_bytes);
        }
        Manifest head;
        head.identity = request_.identity;
        head.needs = request_.needs;
        head.user_files = request_.user_files;
        head.plain_bytes = bytes;
        head.chunk_size = chunk_size;
        for (std::size_t i = 0; i < files_.size(); ++i) head.files.push_back({files_[i].name, files_[i].bytes, 0, chunks_[i]});
        SCKPT_ASSIGN(const std::string digest, manifest_->finish(std::move(head), request_.seal));
        SCKPT_TRY(made_.keep());
        return StoredImage{path, digest, bytes, written() + manifest_->bytes(), manifest_->packs()};
    }

    std::uint64_t written() const { return pack_ ? pack_->end() : 0; }

    FileSystem& store_;
    NewFiles made_;
    const PutRequest& request_;
    Work& work_;
    std::vector<TreeFile> files_;
    std::vector<std::uint64_t> chunks_;  // of each file
    ChunkFinder finder_;
    std::optional<ManifestWriter> manifest_;
    std::string pack_path_;
    std::optional<PackWriter> pack_;
    BlockCodec codec_;
    std::vector<std::byte> late_;
};

}  // namespace

Result<StoredImage> Store::put(FileSystem& image, const PutRequest& request, const WorkOptions& options) const {
    Work work(options);
    ImagePut put(files_, request, work);
    return put.run(image);
}

}  // namespace sckpt
