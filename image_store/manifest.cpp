// SPDX-License-Identifier: GPL-3.0-or-later
//
// Reads manifests: the lengths at the end lead to the head, the head says what the table must be, and the whole table is checked
// once against it. The head that is hashed for the seal and the head that is parsed are found in the same way. After that a chunk of the table is what it should be: within its pack, of a codec that is known, of a possible
// size.
#include "image_store/manifest.h"

#include <algorithm>
#include <array>
#include <format>

#include "image_store/hash.h"
#include "image_store/wire.h"

namespace sckpt {
namespace {

constexpr std::uint64_t kHeadLimit = 256u << 20;
constexpr std::size_t kWindow = 1024;  // records read at once

Result<> read_exactly(File& file, std::uint64_t offset, std::span<std::byte> to) {
    SCKPT_ASSIGN(const std::size_t got, file.read_at(offset, to));
    if (got != to.size()) return fail(Errc::corrupt, "the manifest is shorter than it was");
    return {};
}

Result<> check_header(File& file) {
    std::array<std::byte, wire::kManifestHeader> header;
    SCKPT_TRY(read_exactly(file, 0, header));
    if (!wire::is_text(header.data(), wire::kManifestMagic))
        return fail(Errc::corrupt, "this is no manifest: its first bytes are wrong");
    if (const auto format = wire::get<std::uint32_t>(header.data() + 8); format != kManifestFormat)
        return fail(Errc::unsupported, std::format("the manifest has format {}, this sckpt reads {}", format, kManifestFormat));
    if (wire::get<std::uint32_t>(header.data() + 12) != wire::kRecordBytes)
        return fail(Errc::corrupt, "the manifest has records of another size");
    return {};
}

Seal seal_at(const std::byte* bytes) {
    Seal seal{{reinterpret_cast<const char*>(bytes), 8}, {}};
    std::memcpy(seal.value.data(), bytes + 8, seal.value.size());
    return seal;
}

struct End {
    std::uint64_t head_offset = 0, head_bytes = 0, chunks = 0;
    Seal seal;
};

Result<End> read_end(File& file) {
    constexpr std::uint64_t kEnd = wire::kManifestLengths + wire::kManifestSeal;
    SCKPT_ASSIGN(const std::uint64_t size, file.size());
    if (size < wire::kManifestHeader + kEnd) return fail(Errc::corrupt, "the manifest is too short");
    SCKPT_TRY(check_header(file));
    std::array<std::byte, kEnd> bytes;
    SCKPT_TRY(read_exactly(file, size - kEnd, bytes));
    if (!wire::is_text(bytes.data() + 24, wire::kManifestEndMagic))
        return fail(Errc::corrupt, "the manifest is cut off, or not a manifest");
    End end{wire::get<std::uint64_t>(bytes.data()),
            wire::get<std::uint64_t>(bytes.data() + 8),
            wire::get<std::uint64_t>(bytes.data() + 16),
            {}};
    const std::uint64_t room = size - kEnd - wire::kManifestHeader;
    if (end.head_bytes > std::min(room, kHeadLimit) || end.chunks > (room - end.head_bytes) / wire::kRecordBytes ||
        end.chunks * wire::kRecordBytes + end.head_bytes != room ||
        end.head_offset != wire::kManifestHeader + end.chunks * wire::kRecordBytes)
        return fail(Errc::corrupt, "the manifest's lengths do not fit together");
    end.seal = seal_at(bytes.data() + wire::kManifestLengths);
    return end;
}

bool is_possible(const Chunk& chunk, const Manifest& manifest) {
    if (chunk.plain == 0 || chunk.plain > kMaxBlock) return false;
    if (chunk.codec == Codec::zero)
        return chunk.hash == Digest{} && chunk.offset == 0 && chunk.stored == 0 && chunk.at == 0 && chunk.pack == 0;
    if (chunk.codec > Codec::shuffle_zstd || chunk.stored == 0 || chunk.stored > kMaxBlock || chunk.pack >= manifest.packs.size())
        return false;
    const std::uint64_t end = std::uint64_t{chunk.at} + chunk.plain;  // in the block
    if (end > (chunk.codec == Codec::raw ? chunk.stored : kMaxBlock)) return false;
    const std::uint64_t bytes = manifest.packs[chunk.pack].bytes;
    return chunk.offset >= wire::kPackHeader && chunk.offset <= bytes &&
           bytes - chunk.offset >= chunk.stored + wire::kPackTrailer;
}

Result<> check_table(const Manifest& manifest) {
    std::vector<Chunk> chunks(kWindow);
    for (const ImageFile& file : manifest.files) {
        std::uint64_t bytes = 0;
        for (std::uint64_t done = 0; done < file.chunks;) {
            const auto some = std::span(chunks).first(std::min<std::uint64_t>(kWindow, file.chunks - done));
            SCKPT_TRY(manifest.read_chunks(file.first_chunk + done, some));
            for (const Chunk& chunk : some) {
                if (!is_possible(chunk, manifest))
                    return fail(Errc::corrupt, std::format("the manifest: {} has an impossible chunk", file.name));
                bytes += chunk.plain;
            }
            done += some.size();
        }
        if (bytes != file.size)
            return fail(Errc::corrupt,
                        std::format("the manifest: the chunks of {} have {} bytes, not {}", file.name, bytes, file.size));
    }
    return {};
}

}  // namespace

Result<Manifest> Manifest::open(std::unique_ptr<File> file) {
    SCKPT_ASSIGN(const End end, read_end(*file));
    std::string head(end.head_bytes, '\0');
    SCKPT_TRY(read_exactly(*file, end.head_offset, std::as_writable_bytes(std::span(head))));
    SCKPT_ASSIGN(Manifest manifest, parse_head(head));
    if (manifest.chunk_count != end.chunks) return fail(Errc::corrupt, "the manifest's head and table do not fit together");
    manifest.seal = end.seal;
    manifest.file_ = std::move(file);
    SCKPT_TRY(check_table(manifest));
    return manifest;
}

Result<Manifest::Hashes> Manifest::hash(File& file) {
    SCKPT_ASSIGN(const std::uint64_t size, file.size());
    const auto end = read_end(file);
    if (!end && end.error().code == Errc::unsupported)
        return fail(Errc::corrupt, end.error().text + ": it is of another version of sckpt, or damaged");
    if (!end && end.error().code != Errc::corrupt) return std::unexpected(end.error());
    Blake3 all, head, rest;
    std::vector<std::byte> buffer(1u << 20);
    const auto add = [&](std::uint64_t from, std::uint64_t to, Blake3* part) -> Result<> {
        for (std::uint64_t at = from; at < to;) {
            const auto some = std::span(buffer).first(std::min<std::uint64_t>(buffer.size(), to - at));
            SCKPT_TRY(read_exactly(file, at, some));
            all.update(some.data(), some.size());
            if (part != nullptr) part->update(some.data(), some.size());
            at += some.size();
        }
        return {};
    };
    if (!end) {
        SCKPT_TRY(add(0, size, nullptr));
        return Hashes{{}, all.hex(), {}};
    }
    const std::uint64_t lengths = end->head_offset + end->head_bytes;
    SCKPT_TRY(add(0, end->head_offset, &rest));
    SCKPT_TRY(add(end->head_offset, lengths, &head));
    SCKPT_TRY(add(lengths, size - wire::kManifestSeal, &rest));
    SCKPT_TRY(add(size - wire::kManifestSeal, size, nullptr));
    return Hashes{{head.digest(), rest.digest()}, all.hex(), end->seal};
}

Manifest Manifest::of_image() const {
    Manifest image;
    image.identity = identity;
    image.needs = needs;
    image.user_files = user_files;
    image.files = files;
    image.plain_bytes = plain_bytes;
    image.chunk_size = chunk_size;
    return image;
}

Result<> Manifest::read_chunks(std::uint64_t first, std::span<Chunk> to) const {
    std::array<std::byte, 64 * wire::kRecordBytes> buffer;
    for (std::size_t done = 0; done < to.size();) {
        const std::size_t count = std::min<std::size_t>(64, to.size() - done);
        SCKPT_TRY(read_exactly(*file_, wire::kManifestHeader + (first + done) * wire::kRecordBytes,
                               std::span(buffer).first(count * wire::kRecordBytes)));
        for (std::size_t i = 0; i < count; ++i) to[done + i] = wire::get_chunk(buffer.data() + i * wire::kRecordBytes);
        done += count;
    }
    return {};
}

}  // namespace sckpt
