// SPDX-License-Identifier: GPL-3.0-or-later
#include "image_store/codec.h"

#include <zstd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "tests/unit/image_store_tools.h"

using namespace sckpt;

namespace {

using Bytes = std::vector<std::byte>;

Bytes bytes_of(const std::string& text) {
    const auto span = std::as_bytes(std::span(text));
    return {span.begin(), span.end()};
}
Bytes random_bytes(std::size_t size, std::uint64_t seed = 1) { return bytes_of(test::noise(size, seed)); }
Bytes doubles(std::size_t size) {
    Bytes bytes(size);
    for (std::size_t i = 0; i + 8 <= size; i += 8) {
        const double value = 300.0 + std::sin(static_cast<double>(i));
        std::memcpy(bytes.data() + i, &value, 8);
    }
    return bytes;
}
Bytes records(std::size_t size) {
    std::string text;
    for (int i = 0; text.size() < size; ++i) text += std::format("{{'name': 'record {}', 'list': [], 'next': None}}\n", i * 7919);
    text.resize(size);
    return bytes_of(text);
}

// → the codec; what comes back must be what went in.
Codec round_trip(BlockCodec& codec, const Bytes& plain, std::size_t* stored = nullptr) {
    Bytes packed(plain.size());
    const auto made = codec.pack(plain, packed.data());
    REQUIRE(made.bytes <= plain.size());
    const auto back = codec.unpack(made.codec, std::span(packed).first(made.bytes));
    REQUIRE(back);
    CHECK(std::ranges::equal(*back, plain));
    if (stored != nullptr) *stored = made.bytes;
    return made.codec;
}

}  // namespace

TEST_CASE("zero chunks are known") {
    Bytes bytes(70000);
    CHECK(is_zero(bytes));
    for (const std::size_t at : {std::size_t{0}, std::size_t{1}, std::size_t{35000}, bytes.size() - 1}) {
        bytes[at] = std::byte{1};
        CHECK_FALSE(is_zero(bytes));
        bytes[at] = std::byte{0};
    }
    CHECK(is_zero({}));
}

TEST_CASE("the shuffle puts byte b of element e at b * elements + e, and is undone") {
    for (const std::size_t size : {0u, 1u, 7u, 8u, 9u, 127u, 128u, 129u, 1000u, 4096u, 65536u, 65543u}) {
        const Bytes plain = random_bytes(size);
        Bytes shuffled(size), back(size);
        shuffle8(plain, shuffled.data());
        const std::size_t elements = size / 8;
        bool right = true;
        for (std::size_t e = 0; e < elements; ++e)
            for (std::size_t b = 0; b < 8; ++b) right = right && shuffled[b * elements + e] == plain[e * 8 + b];
        for (std::size_t i = elements * 8; i < size; ++i) right = right && shuffled[i] == plain[i];
        CHECK(right);
        unshuffle8(shuffled, back.data());
        CHECK(back == plain);
    }
}

TEST_CASE("each kind of data gets the codec that pays, and comes back") {
    BlockCodec codec;
    std::size_t stored = 0;
    CHECK(round_trip(codec, random_bytes(65536), &stored) == Codec::raw);
    CHECK(stored == 65536);
    CHECK(round_trip(codec, doubles(65536), &stored) == Codec::shuffle_zstd);
    CHECK(stored < 65536 * 85 / 100);
    CHECK(round_trip(codec, records(65536), &stored) == Codec::zstd);
    CHECK(stored < 65536 / 3);
    for (const std::size_t size : {1u, 2u, 8u, 17u, 100u, 4095u, 4097u, 131072u, 262144u}) {
        round_trip(codec, random_bytes(size));
        round_trip(codec, doubles(size));
        round_trip(codec, records(size));
        round_trip(codec, Bytes(size, std::byte{7}));
    }
}

TEST_CASE("a sample that looks better than the chunk is does no harm") {
    BlockCodec codec;
    Bytes plain = random_bytes(65536);
    std::fill_n(plain.begin(), 1024, std::byte{5});  // where a sample is taken
    std::fill_n(plain.end() - 1024, 1024, std::byte{5});
    round_trip(codec, plain);
}

TEST_CASE("bytes that are not those of a block are refused") {
    BlockCodec codec;
    const Bytes plain = records(65536);
    Bytes packed(plain.size());
    const auto made = codec.pack(plain, packed.data());
    REQUIRE(made.codec == Codec::zstd);
    const auto good = std::span<const std::byte>(packed).first(made.bytes);
    const auto refused = [&](Codec kind, std::span<const std::byte> stored) {
        const auto result = codec.unpack(kind, stored);
        REQUIRE_FALSE(result);
        CHECK(result.error().code == Errc::corrupt);
    };
    refused(Codec::zstd, good.first(good.size() - 1));
    refused(Codec::zstd, random_bytes(1000));
    refused(Codec::shuffle_zstd, random_bytes(1000));
    Bytes bomb(1000);  // a block that says it is far larger than any
    const std::size_t size = ZSTD_compress(bomb.data(), bomb.size(), Bytes(8 * kMaxBlock).data(), 8 * kMaxBlock, 1);
    REQUIRE_FALSE(ZSTD_isError(size));
    refused(Codec::zstd, std::span(bomb).first(size));
    refused(Codec::shuffle_zstd, std::span(bomb).first(size));
}
