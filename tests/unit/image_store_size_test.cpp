// SPDX-License-Identifier: GPL-3.0-or-later
//
// Images larger than memory may hold: what a put and a get need does not grow with them.
#include <algorithm>
#include <cstring>
#include <fstream>

#include "image_store/chunk_index.h"
#include "tests/unit/image_store_images.h"

using namespace sckpt;
using namespace sckpt::test;

namespace {

constexpr std::size_t kChunk = 8u << 10;

// One file of any size, made as it is read: each chunk is another one, and compresses to next to nothing.
class GeneratedFile final : public File {
   public:
    explicit GeneratedFile(std::uint64_t size) : size_(size) {}
    Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> to) override {
        const std::size_t bytes = std::min<std::uint64_t>(to.size(), size_ - offset);
        for (std::size_t i = 0; i + 8 <= bytes; i += 8) {
            const std::uint64_t value = (offset + i) / kChunk + 1;
            std::memcpy(to.data() + i, &value, 8);
        }
        return bytes;
    }
    Result<> write_at(std::uint64_t, std::span<const std::byte>) override { return {}; }
    Result<> truncate(std::uint64_t) override { return {}; }
    Result<std::uint64_t> size() override { return size_; }
    void start_writing(std::uint64_t, std::uint64_t) override {}
    Result<> sync() override { return {}; }

   private:
    std::uint64_t size_;
};

class GeneratedImage final : public FileSystem {
   public:
    explicit GeneratedImage(std::uint64_t size) : size_(size) {}
    Result<std::unique_ptr<File>> open(const std::string&) override { return std::make_unique<GeneratedFile>(size_); }
    Result<std::unique_ptr<File>> create(const std::string& path) override { return open(path); }
    Result<> make_directory(const std::string&) override { return {}; }
    Result<> rename(const std::string&, const std::string&) override { return {}; }
    Result<> remove(const std::string&) override { return {}; }
    Result<> remove_directory(const std::string&) override { return {}; }
    Result<> sync_directory(const std::string&) override { return {}; }
    Result<std::vector<DirectoryEntry>> list(const std::string&) override {
        return std::vector<DirectoryEntry>{{"pages-1.img", false, size_, 0}};
    }
    Result<Space> space() override { return Space{}; }

   private:
    std::uint64_t size_;
};

std::uint64_t memory_fact(const std::string& name) {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.starts_with(name + ":")) return std::stoull(line.substr(name.size() + 1)) << 10;
    FAIL("no " + name);
    return 0;
}

}  // namespace

TEST_CASE("memory does not grow with the image") {
    StoreBed bed;
    GeneratedImage image(2ull << 30);
    std::ofstream("/proc/self/clear_refs") << "5";  // the peak begins here
    const std::uint64_t before = memory_fact("VmRSS");
    const auto stored = bed.store.put(image, bed.request(), {.threads = 2});
    REQUIRE(stored);
    const std::uint64_t store_itself = stored->new_bytes * 2;  // in memory here, and twice while its vectors grow
    CHECK(memory_fact("VmHWM") - before < (48u << 20) + store_itself);
    const Manifest base = bed.open(*stored);
    const auto again = bed.store.put(image, bed.request(&base), {.threads = 2});
    REQUIRE(again);
    CHECK(again->packs.size() == 1);
    CHECK(memory_fact("VmHWM") - before < (56u << 20) + 2 * store_itself);
    GeneratedImage target(2ull << 30);
    REQUIRE(bed.store.get(base, target, {.threads = 2}));
}

TEST_CASE("a table that is too long for the index is followed from the chunks that are in it") {
    const std::uint64_t records = ChunkIndex::kCapacity + 100;
    const auto chunk_number = [](std::uint64_t number) {
        Chunk chunk;
        const std::uint64_t mixed = (number + 1) * 0x9e3779b97f4a7c15u;
        std::memcpy(chunk.hash.data(), &mixed, 8);
        chunk.codec = Codec::raw;
        chunk.offset = number;
        return chunk;
    };
    ChunkFinder finder;
    REQUIRE(finder.add_table(
        [&](std::uint64_t first, std::span<Chunk> to) -> Result<> {
            for (std::size_t i = 0; i < to.size(); ++i) to[i] = chunk_number(first + i);
            return {};
        },
        records));
    std::uint64_t found = 0;
    for (std::uint64_t number = 1'000'001; number < 1'001'001; ++number) {
        const auto result = finder.find(chunk_number(number).hash);
        REQUIRE(result);
        if (!*result) continue;
        CHECK((*result)->chunk.offset == number);
        ++found;
    }
    CHECK(found >= 998);
    const auto unknown = finder.find(chunk_number(records + 7).hash);
    REQUIRE(unknown);
    CHECK_FALSE(*unknown);
}

TEST_CASE("a 64-bit key that two hashes share leads to no wrong chunk") {
    ChunkFinder finder;
    Chunk chunk;
    chunk.codec = Codec::raw;
    chunk.hash = Digest{1, 2, 3, 4, 5, 6, 7, 8, 9};
    finder.add_growing_table([&](std::uint64_t, std::span<Chunk> to) -> Result<> {
        to[0] = chunk;
        return {};
    });
    finder.added(chunk);
    Digest other = chunk.hash;
    CHECK(finder.expects(other));
    other[8] = 10;
    CHECK(finder.expects(other));
    const auto found = finder.find(other);
    REQUIRE(found);
    CHECK_FALSE(*found);
}
