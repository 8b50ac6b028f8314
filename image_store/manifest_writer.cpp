// SPDX-License-Identifier: GPL-3.0-or-later
//
// Writing of manifests.
#include "image_store/manifest_writer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "image_store/wire.h"

namespace sckpt {

Result<> ManifestWriter::write(std::span<const std::byte> bytes) {
    all_.update(bytes.data(), bytes.size());
    return out_.append(bytes);
}

Result<> ManifestWriter::write_beside_head(std::span<const std::byte> bytes) {
    rest_.update(bytes.data(), bytes.size());
    return write(bytes);
}

Result<> ManifestWriter::write_header() {
    std::array<std::byte, wire::kManifestHeader> header;
    wire::put_text(header.data(), wire::kManifestMagic);
    wire::put(header.data() + 8, static_cast<std::uint32_t>(kManifestFormat));
    wire::put(header.data() + 12, static_cast<std::uint32_t>(wire::kRecordBytes));
    return write_beside_head(header);
}

std::optional<std::uint16_t> ManifestWriter::pack_number(const std::string& path, std::uint64_t bytes) {
    if (const auto found = numbers_.find(path); found != numbers_.end()) return found->second;
    if (packs_.size() == kMaxPacks) return std::nullopt;
    packs_.push_back({path, bytes, 0});
    return numbers_[path] = static_cast<std::uint16_t>(packs_.size() - 1);
}

void ManifestWriter::set_pack_bytes(const std::string& path, std::uint64_t bytes) {
    if (const auto found = numbers_.find(path); found != numbers_.end()) packs_[found->second].bytes = bytes;
}

Result<> ManifestWriter::add(const Chunk& chunk) {
    if (records_ == 0) SCKPT_TRY(write_header());
    if (chunk.codec != Codec::zero && (counted_.full() || counted_.insert(chunk_place(chunk), 0)))
        packs_[chunk.pack].used += chunk.stored;
    std::array<std::byte, wire::kRecordBytes> record;
    wire::put_chunk(record.data(), chunk);
    ++records_;
    return write_beside_head(record);
}

Result<> ManifestWriter::read_chunks(std::uint64_t first, std::span<Chunk> to) const {
    std::array<std::byte, wire::kRecordBytes * 64> buffer;
    for (std::size_t done = 0; done < to.size();) {
        const std::size_t count = std::min<std::size_t>(64, to.size() - done);
        const auto some = std::span(buffer).first(count * wire::kRecordBytes);
        SCKPT_TRY(out_.read_back(wire::kManifestHeader + (first + done) * wire::kRecordBytes, some));
        for (std::size_t i = 0; i < count; ++i) to[done + i] = wire::get_chunk(some.data() + i * wire::kRecordBytes);
        done += count;
    }
    return {};
}

Result<std::string> ManifestWriter::finish(Manifest head, const SealFn& seal) {
    if (records_ == 0) SCKPT_TRY(write_header());
    head.chunk_count = records_;
    for (PackUse& pack : packs_)
        pack.used = std::min(pack.used, pack.bytes);  // chunks beyond what counted_ holds may count twice
    head.packs = packs_;
    const std::string text = head_text(head);
    const std::uint64_t head_at = out_.size();
    SCKPT_TRY(write(std::as_bytes(std::span(text))));
    std::array<std::byte, wire::kManifestLengths> lengths;
    wire::put(lengths.data(), head_at);
    wire::put(lengths.data() + 8, static_cast<std::uint64_t>(text.size()));
    wire::put(lengths.data() + 16, records_);
    wire::put_text(lengths.data() + 24, wire::kManifestEndMagic);
    SCKPT_TRY(write_beside_head(lengths));
    SCKPT_ASSIGN(const Seal sealed, seal(text, rest_.digest()));
    if (sealed.key_id.size() != 8) return fail(Errc::internal, "the seal's key has no proper name");
    std::array<std::byte, wire::kManifestSeal> end;
    wire::put_text(end.data(), sealed.key_id);
    std::ranges::copy(std::as_bytes(std::span(sealed.value)), end.begin() + 8);
    SCKPT_TRY(write(end));
    SCKPT_TRY(out_.sync());
    return all_.hex();
}

}  // namespace sckpt
