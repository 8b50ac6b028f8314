// SPDX-License-Identifier: GPL-3.0-or-later
//
// Ranges of chunks, and reading them from packs: chunks that lie one after another in a pack are read at once.
#include "image_store/chunk_ranges.h"

#include <algorithm>
#include <format>
#include <mutex>

#include "image_store/hash.h"
#include "image_store/work.h"

namespace sckpt {
namespace {

constexpr std::size_t kRangeBytes = 1u << 20;
constexpr std::size_t kWindow = 1024;

class Ranges {
   public:
    Ranges(const Manifest& manifest, const OpenFile& open) : manifest_(manifest), open_(open) {}

    Result<bool> next(ChunkRange& range) {  // false: there are no more
        const std::lock_guard lock(mutex_);
        range.chunks.clear();
        range.bytes = 0;
        while (next_ == end_) {
            if (file_ == manifest_.files.size()) return false;
            SCKPT_TRY(next_file());
        }
        range.file = file_ - 1;
        range.open = now_;
        range.offset = offset_;
        for (; next_ != end_; ++next_) {
            SCKPT_ASSIGN(const Chunk chunk, at(next_));
            if (range.bytes + chunk.plain > kRangeBytes) break;
            range.chunks.push_back(chunk);
            range.bytes += chunk.plain;
        }
        offset_ += range.bytes;
        return true;
    }

   private:
    Result<> next_file() {
        const ImageFile& file = manifest_.files[file_];
        SCKPT_ASSIGN(now_, open_(file_));
        next_ = file.first_chunk;
        end_ = file.first_chunk + file.chunks;
        offset_ = 0;
        ++file_;
        return {};
    }

    Result<Chunk> at(std::uint64_t number) {
        if (number < first_ || number - first_ >= window_.size()) {
            window_.resize(std::min<std::uint64_t>(kWindow, manifest_.chunk_count - number));
            first_ = number;
            SCKPT_TRY(manifest_.read_chunks(first_, window_));
        }
        return window_[number - first_];
    }

    const Manifest& manifest_;
    const OpenFile& open_;
    std::mutex mutex_;
    std::size_t file_ = 0;  // the next one
    std::shared_ptr<File> now_;
    std::uint64_t next_ = 0, end_ = 0;  // chunks of the file that are left
    std::uint64_t offset_ = 0;
    std::vector<Chunk> window_;
    std::uint64_t first_ = 0;
};

// A chunk of the range and where its bytes belong.
struct Wanted {
    const Chunk* chunk;
    std::size_t at;
};
bool same_block(const Chunk& a, const Chunk& b) {
    return a.pack == b.pack && a.offset == b.offset && a.stored == b.stored && a.codec == b.codec;
}

// The chunks of a range by the place of their blocks; zero chunks are filled in at once.
std::vector<Wanted> by_place(const ChunkRange& range, std::span<std::byte> plain) {
    std::vector<Wanted> wanted;
    std::size_t at = 0;
    for (const Chunk& chunk : range.chunks) {
        if (chunk.codec == Codec::zero) std::ranges::fill(plain.subspan(at, chunk.plain), std::byte{0});
        else wanted.push_back({&chunk, at});
        at += chunk.plain;
    }
    std::ranges::stable_sort(wanted, {}, [](const Wanted& w) { return std::pair(w.chunk->pack, w.chunk->offset); });
    return wanted;
}

// So many of them, from the first on, are in blocks that lie one after another in one pack and fit into the buffer; `bytes` of
// the pack.
std::span<const Wanted> adjacent(std::span<const Wanted> wanted, std::size_t room, std::size_t& bytes) {
    const Chunk& first = *wanted.front().chunk;
    bytes = first.stored;
    std::size_t count = 1;
    for (; count < wanted.size(); ++count) {
        const Chunk &before = *wanted[count - 1].chunk, &next = *wanted[count].chunk;
        if (same_block(before, next)) continue;
        if (next.pack != first.pack || next.offset != first.offset + bytes || bytes + next.stored > room) break;
        bytes += next.stored;
    }
    return wanted.first(count);
}

Result<> copy_verified(const Chunk& chunk, std::span<const std::byte> block, std::span<std::byte> plain) {
    if (chunk.at > block.size() || block.size() - chunk.at < plain.size()) return fail(Errc::corrupt, "its block is too short");
    std::ranges::copy(block.subspan(chunk.at, plain.size()), plain.begin());
    Blake3 hash;
    hash.update(plain.data(), plain.size());
    if (hash.digest() != chunk.hash) return fail(Errc::corrupt, "its bytes do not match its hash");
    return {};
}

}  // namespace

RangeBuffers::RangeBuffers() : stored(kRangeBytes), plain(kRangeBytes) {}

Result<> for_each_range(const Manifest& manifest, const WorkOptions& options, const OpenFile& open, const HandleRange& handle) {
    Ranges ranges(manifest, open);
    Work work(options);
    const auto body = [&]() -> Result<> {
        RangeBuffers buffers;
        for (ChunkRange range;;) {
            SCKPT_ASSIGN(const bool any, ranges.next(range));
            if (!any) return {};
            SCKPT_TRY(work.pace(range.bytes));
            SCKPT_TRY(handle(range, buffers));
            work.done(range.bytes, 0);
        }
    };
    SCKPT_TRY(work.start(body));
    return work.finish();
}

Result<> read_range(const ChunkRange& range, const Manifest& manifest, PackReader& packs, RangeBuffers& buffers,
                    const TellFault& fault) {
    const auto tell = [&](const Wanted& wanted, const std::string& why) {
        const Chunk& chunk = *wanted.chunk;
        const std::string& pack = packs.path(chunk.pack);
        fault({std::format("{} at {}: chunk {} of {} at {}: {}", manifest.files[range.file].name, range.offset + wanted.at,
                           to_hex(chunk.hash).substr(0, 16), pack, chunk.offset, why),
               pack});
    };
    const std::vector<Wanted> all = by_place(range, buffers.plain);
    for (std::span<const Wanted> rest = all; !rest.empty();) {
        std::size_t bytes = 0;
        const auto group = adjacent(rest, buffers.stored.size(), bytes);
        const Chunk& first = *group.front().chunk;
        rest = rest.subspan(group.size());
        const auto read = packs.read(first.pack, first.offset, std::span(buffers.stored).first(bytes));
        if (!read && read.error().code != Errc::corrupt) return read;
        Result<std::span<const std::byte>> block;
        for (std::size_t i = 0; i < group.size(); ++i) {
            const Chunk& chunk = *group[i].chunk;
            const auto stored = std::span<const std::byte>(buffers.stored).subspan(chunk.offset - first.offset, chunk.stored);
            if (!read) block = std::unexpected(read.error());
            else if (i == 0 || !same_block(*group[i - 1].chunk, chunk)) block = buffers.codec.unpack(chunk.codec, stored);
            const auto good = block ? copy_verified(chunk, *block, std::span(buffers.plain).subspan(group[i].at, chunk.plain))
                                    : Result<>(std::unexpected(block.error()));
            if (!good) tell(group[i], good.error().text);
        }
    }
    return {};
}

}  // namespace sckpt
