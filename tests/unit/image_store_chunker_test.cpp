// SPDX-License-Identifier: GPL-3.0-or-later
#include "image_store/chunker.h"

#include <vector>

#include <catch2/catch_test_macros.hpp>

using namespace sckpt;

namespace {

constexpr std::uint32_t kChunk = 64u << 10;
constexpr std::uint64_t kPage = 4096, kGiB = 1ull << 30;

std::vector<std::uint32_t> cut(std::uint64_t bytes, const std::vector<PageRun>& runs = {}) {
    REQUIRE(check_runs(runs, bytes));
    Chunker chunker(bytes, runs, kChunk);
    std::vector<std::uint32_t> chunks;
    while (const std::uint32_t chunk = chunker.next()) chunks.push_back(chunk);
    CHECK(chunker.position() == bytes);
    return chunks;
}

using Chunks = std::vector<std::uint32_t>;

}  // namespace

TEST_CASE("a file without pages is cut at fixed offsets") {
    CHECK(cut(0).empty());
    CHECK(cut(1) == Chunks{1});
    CHECK(cut(kChunk) == Chunks{kChunk});
    CHECK(cut(2 * kChunk + 7) == Chunks{kChunk, kChunk, 7});
}

TEST_CASE("pages are cut where their address crosses a multiple of the chunk size") {
    // three pages below the border, then whole chunks, then one page
    CHECK(cut(2 * kChunk + 4 * kPage, {{0, 2 * kChunk + 4 * kPage, 10 * kChunk - 3 * kPage}}) ==
          Chunks{3 * kPage, kChunk, kChunk, kPage});
}

TEST_CASE("the same memory makes the same chunks wherever it lies in the file") {
    const PageRun array{7 * kPage, 4 * kChunk, 100 * kChunk + kPage}, moved{108 * kPage, 4 * kChunk, 100 * kChunk + kPage};
    const Chunks first = cut(7 * kPage + 4 * kChunk, {{0, 7 * kPage, 2 * kChunk}, array});
    const Chunks second = cut(108 * kPage + 4 * kChunk, {{0, 108 * kPage, 2 * kChunk}, moved});
    REQUIRE(first.size() > 5);
    CHECK(Chunks(first.end() - 5, first.end()) == Chunks{15 * kPage, kChunk, kChunk, kChunk, kPage});
    CHECK(Chunks(second.end() - 5, second.end()) == Chunks(first.end() - 5, first.end()));
}

TEST_CASE("where addresses do not follow one another there is a cut, and what is no page is cut by its offset") {
    const std::vector<PageRun> runs = {{kPage, kPage, 5 * kChunk}, {2 * kPage, 2 * kPage, 9 * kChunk - kPage}};
    CHECK(cut(6 * kPage, runs) == Chunks{kPage, kPage, kPage, kPage, 2 * kPage});
}

TEST_CASE("runs that do not lie in the file in order are refused") {
    CHECK_FALSE(check_runs(std::vector<PageRun>{{0, 2 * kPage, 0}}, kPage));
    CHECK_FALSE(check_runs(std::vector<PageRun>{{2 * kPage, ~0ull, 0}}, 4 * kPage));
    CHECK_FALSE(check_runs(std::vector<PageRun>{{kPage, kPage, 0}, {0, kPage, 0}}, 4 * kPage));
    CHECK_FALSE(check_runs(std::vector<PageRun>{{0, 2 * kPage, 0}, {kPage, kPage, 0}}, 4 * kPage));
}

TEST_CASE("the chunk size grows with the image, and stays that of the base near a border") {
    CHECK(chunk_size_for(kGiB, 0) == 8u << 10);
    CHECK(chunk_size_for(9 * kGiB, 0) == 16u << 10);
    CHECK(chunk_size_for(33 * kGiB, 0) == 64u << 10);
    CHECK(chunk_size_for(129 * kGiB, 0) == 256u << 10);
    CHECK(chunk_size_for(9 * kGiB, 8u << 10) == 8u << 10);
    CHECK(chunk_size_for(7 * kGiB, 16u << 10) == 16u << 10);
    CHECK(chunk_size_for(17 * kGiB, 8u << 10) == 16u << 10);
    CHECK(chunk_size_for(3 * kGiB, 16u << 10) == 8u << 10);
    CHECK(chunk_size_for(33 * kGiB, 8u << 10) == 64u << 10);
    CHECK(chunk_size_for(kGiB, 12345) == 8u << 10);
}
