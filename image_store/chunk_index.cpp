// SPDX-License-Identifier: GPL-3.0-or-later
//
// The index is an open hash table with linear probing that doubles until it has its greatest size.
#include "image_store/chunk_index.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <mutex>

namespace sckpt {
namespace {

constexpr std::size_t kFirstSlots = 1u << 12, kSlots = 4u << 20;  // powers of two; at most three quarters are used
constexpr std::size_t kWindow = 64, kWindows = 64;
constexpr std::uint64_t kTableShare = ChunkIndex::kCapacity / 4 * 3;  // of the index, for tables of finished images

std::uint64_t key_of(std::uint64_t key) { return key == 0 ? 1 : key; }  // 0 marks an empty slot

}  // namespace

std::uint64_t chunk_place(const Chunk& chunk) { return (static_cast<std::uint64_t>(chunk.pack) << 48) ^ chunk.offset; }

std::uint64_t chunk_key(const Digest& hash) {
    std::uint64_t key;
    std::memcpy(&key, hash.data(), sizeof key);
    return key;
}

// The slot that has the key, or the one that it would get.
std::size_t ChunkIndex::place_of(std::uint64_t key) const {
    const int bits = std::countr_zero(slots_.size());
    std::size_t place = (key * 0x9e3779b97f4a7c15u) >> (64 - bits);
    const auto low = static_cast<std::uint32_t>(key), high = static_cast<std::uint32_t>(key >> 32);
    const auto is_here = [&](const Slot& slot) {
        return (slot.low == low && slot.high == high) || (slot.low == 0 && slot.high == 0);
    };
    while (!is_here(slots_[place])) place = (place + 1) & (slots_.size() - 1);
    return place;
}

void ChunkIndex::grow() {
    std::vector<Slot> old(slots_.empty() ? kFirstSlots : slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old)
        if (slot.low != 0 || slot.high != 0) slots_[place_of((static_cast<std::uint64_t>(slot.high) << 32) | slot.low)] = slot;
}

bool ChunkIndex::insert(std::uint64_t key, std::uint32_t value) {
    if (full()) return false;
    if (size_ >= slots_.size() / 4 * 3 && slots_.size() < kSlots) grow();
    key = key_of(key);
    Slot& slot = slots_[place_of(key)];
    if (slot.low != 0 || slot.high != 0) return false;
    slot = {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32), value};
    ++size_;
    return true;
}

std::optional<std::uint32_t> ChunkIndex::find(std::uint64_t key) const {
    if (slots_.empty()) return std::nullopt;
    const Slot& slot = slots_[place_of(key_of(key))];
    return slot.low == 0 && slot.high == 0 ? std::nullopt : std::optional(slot.value);
}

ChunkFinder::ChunkFinder() : windows_(kWindows) {}

void ChunkFinder::index(const Chunk& chunk, std::uint64_t number) {
    if (chunk.codec == Codec::zero || number > std::numeric_limits<std::uint32_t>::max()) return;
    const std::lock_guard lock(mutex_);
    index_.insert(chunk_key(chunk.hash), static_cast<std::uint32_t>(number));
}

Result<> ChunkFinder::add_table(ReadChunks read, std::uint64_t records) {
    const std::uint64_t first = tables_.empty() ? 0 : tables_.back().first + tables_.back().records;
    const std::uint64_t step = 1 + records / kTableShare;
    std::vector<Chunk> chunks(1024);
    for (std::uint64_t done = 0; done < records;) {
        const auto some = std::span(chunks).first(std::min<std::uint64_t>(chunks.size(), records - done));
        SCKPT_TRY(read(done, some));
        for (std::size_t i = 0; i < some.size(); ++i)
            if ((done + i) % step == 0) index(some[i], first + done + i);
        done += some.size();
    }
    tables_.push_back({std::move(read), first, records});
    finished_ += records;
    return {};
}

void ChunkFinder::add_growing_table(ReadChunks read) {
    tables_.push_back({std::move(read), tables_.empty() ? 0 : tables_.back().first + tables_.back().records, 0});
}

void ChunkFinder::added(const Chunk& chunk) {
    Table& table = tables_.back();
    index(chunk, table.first + table.records);
    ++table.records;
}

Result<ChunkFinder::Found> ChunkFinder::record(std::uint64_t number) {
    const auto after = std::ranges::upper_bound(tables_, number, {}, &Table::first);
    const Table& table = *std::prev(after);
    const std::uint64_t local = number - table.first, block = local / kWindow * kWindow;
    Window& window = windows_[(table.first + block) / kWindow % kWindows];
    if (window.first != table.first + block || window.chunks.size() <= local - block) {
        window.chunks.resize(std::min<std::uint64_t>(kWindow, table.records - block));
        window.first = table.first + block;
        if (auto got = table.read(block, window.chunks); !got) {
            window.chunks.clear();
            return std::unexpected(got.error());
        }
    }
    return Found{window.chunks[local - block], static_cast<std::size_t>(after - tables_.begin() - 1)};
}

Result<std::optional<ChunkFinder::Found>> ChunkFinder::find(const Digest& hash) {
    const std::uint64_t expected = next_++;
    if (expected < finished_) {
        SCKPT_ASSIGN(const Found found, record(expected));
        if (found.chunk.codec != Codec::zero && found.chunk.hash == hash) return found;
    }
    std::optional<std::uint32_t> number;
    {
        const std::shared_lock lock(mutex_);
        number = index_.find(chunk_key(hash));
    }
    if (!number) return std::nullopt;
    SCKPT_ASSIGN(const Found found, record(*number));
    if (found.chunk.hash != hash) return std::nullopt;
    if (*number < finished_) next_ = std::uint64_t{*number} + 1;
    return found;
}

bool ChunkFinder::expects(const Digest& hash) const {
    const std::shared_lock lock(mutex_);
    return index_.find(chunk_key(hash)).has_value();
}

}  // namespace sckpt
