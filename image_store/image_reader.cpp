// SPDX-License-Identifier: GPL-3.0-or-later
//
// Reading, cutting, hashing and compressing of an image.
#include "image_store/image_reader.h"

#include <algorithm>
#include <chrono>
#include <format>

#include "image_store/hash.h"

namespace sckpt {
namespace {

using namespace std::chrono_literals;
constexpr std::size_t kSpanBytes = 1u << 20;
constexpr std::size_t kBlockBytes = 128u << 10;
constexpr auto kLook = 50ms;  // how often one that waits looks whether the work was stopped

}  // namespace

ImageReader::ImageReader(FileSystem& image, const std::vector<TreeFile>& files, const PageRuns& pages, std::uint32_t chunk_size,
                         const ChunkFinder& finder, Work& work)
    : image_(image),
      files_(files),
      pages_(pages),
      chunk_size_(chunk_size),
      finder_(finder),
      work_(work),
      slots_(static_cast<std::size_t>(work.threads()) * 2 + 2) {}

Result<> ImageReader::open_next() {
    const TreeFile& file = files_[next_file_];
    if (file.bytes == 0) open_.reset();
    else {
        SCKPT_ASSIGN(open_, image_.open(file.name));
    }
    const auto found = pages_.find(file.name);
    const bool usable = found != pages_.end() && check_runs(found->second, file.bytes).has_value();
    chunker_ = Chunker(file.bytes, usable ? std::span<const PageRun>(found->second) : std::span<const PageRun>(), chunk_size_);
    ++next_file_;
    return {};
}

// The next chunks of a file, as many as go into a span. False: there are no more.
Result<bool> ImageReader::cut_next(Span& span) {
    span.pieces.clear();
    span.bytes = 0;
    while (left_over_ == 0 && (left_over_ = chunker_.next()) == 0) {
        if (next_file_ == files_.size()) return false;
        SCKPT_TRY(open_next());
    }
    span.file = next_file_ - 1;
    span.offset = chunker_.position() - left_over_;
    while (left_over_ != 0 && span.bytes + left_over_ <= kSpanBytes) {
        span.pieces.emplace_back().chunk.plain = left_over_;
        span.bytes += left_over_;
        left_over_ = chunker_.next();
    }
    return true;
}

Result<ImageReader::Claim> ImageReader::claim() {
    std::unique_lock lock(mutex_);
    while (!at_end_ && claimed_ - taken_ >= slots_.size()) {
        if (work_.stopped()) return fail(Errc::busy, "stopped");
        changed_.wait_for(lock, kLook);
    }
    if (at_end_) return Claim{};
    Slot& slot = slots_[claimed_ % slots_.size()];
    SCKPT_ASSIGN(const bool any, cut_next(slot.span));
    if (!any) {
        at_end_ = true;
        changed_.notify_all();
        return Claim{};
    }
    ++claimed_;
    slot.state = State::filling;
    return Claim{&slot, open_};
}

Result<> ImageReader::read_spans() {
    BlockCodec codec;
    std::vector<std::byte> gathered(kMaxBlock);
    for (;;) {
        SCKPT_ASSIGN(const Claim mine, claim());
        if (mine.slot == nullptr) return {};
        SCKPT_TRY(work_.pace(mine.slot->span.bytes));
        SCKPT_TRY(fill(mine.slot->span, *mine.file));
        pack(mine.slot->span, codec, gathered);
        const std::lock_guard lock(mutex_);
        mine.slot->state = State::ready;
        changed_.notify_all();
    }
}

Result<> ImageReader::fill(Span& span, File& file) const {
    if (span.plain.empty()) {
        span.plain.resize(kSpanBytes);
        span.packed.resize(kSpanBytes);
    }
    SCKPT_ASSIGN(const std::size_t got, file.read_at(span.offset, std::span(span.plain).first(span.bytes)));
    if (got != span.bytes) return fail(Errc::io, std::format("{} became shorter while it was read", files_[span.file].name));
    return {};
}

namespace {

// New chunks of a span that are to be one block.
class Gathering {
   public:
    Gathering(Span& span, BlockCodec& codec, std::vector<std::byte>& buffer) : span_(span), codec_(codec), buffer_(buffer) {}

    void add(Span::Piece& piece, std::size_t offset) {
        if (bytes_ + piece.chunk.plain > std::max<std::size_t>(kBlockBytes, piece.chunk.plain)) finish();
        if (bytes_ == 0) begin_ = offset;
        if (offset != begin_ + bytes_ && !gathered_) {  // there is a gap: they have to be brought together
            std::copy_n(span_.plain.data() + begin_, bytes_, buffer_.data());
            gathered_ = true;
        }
        if (gathered_) std::copy_n(span_.plain.data() + offset, piece.chunk.plain, buffer_.data() + bytes_);
        piece.block = span_.blocks.size();
        piece.chunk.at = static_cast<std::uint32_t>(bytes_);
        bytes_ += piece.chunk.plain;
    }
    void finish() {
        if (bytes_ == 0) return;
        const std::byte* from = gathered_ ? buffer_.data() : span_.plain.data() + begin_;
        const auto made = codec_.pack({from, bytes_}, span_.packed.data() + packed_);
        span_.blocks.push_back({made.codec, packed_, made.bytes, 0});
        packed_ += made.bytes;
        bytes_ = 0;
        gathered_ = false;
    }

   private:
    Span& span_;
    BlockCodec& codec_;
    std::vector<std::byte>& buffer_;
    std::size_t begin_ = 0, bytes_ = 0;  // of the block that is being gathered
    bool gathered_ = false;              // it is in buffer_
    std::size_t packed_ = 0;
};

}  // namespace

void ImageReader::pack(Span& span, BlockCodec& codec, std::vector<std::byte>& gathered) const {
    span.blocks.clear();
    Gathering block(span, codec, gathered);
    std::size_t offset = 0;
    for (Span::Piece& piece : span.pieces) {
        Chunk& chunk = piece.chunk;
        const auto plain = std::span<const std::byte>(span.plain).subspan(offset, chunk.plain);
        if (!is_zero(plain)) {
            Blake3 hash;
            hash.update(plain.data(), plain.size());
            chunk.hash = hash.digest();
            chunk.codec = Codec::raw;
            if (!finder_.expects(chunk.hash)) block.add(piece, offset);
        }
        offset += chunk.plain;
    }
    block.finish();
}

Result<Span*> ImageReader::take() {
    std::unique_lock lock(mutex_);
    if (Slot& before = slots_[taken_ % slots_.size()]; before.state == State::taken) {
        before.state = State::free;
        ++taken_;
        changed_.notify_all();
    }
    Slot& slot = slots_[taken_ % slots_.size()];
    while (slot.state != State::ready) {
        if (at_end_ && taken_ == claimed_) return nullptr;
        lock.unlock();
        SCKPT_TRY(work_.tell());
        if (work_.stopped()) return fail(Errc::busy, "stopped");
        lock.lock();
        if (slot.state != State::ready) changed_.wait_for(lock, kLook);
    }
    slot.state = State::taken;
    return &slot.span;
}

}  // namespace sckpt
