// SPDX-License-Identifier: GPL-3.0-or-later
#include "image_store/pack.h"

#include "image_store/wire.h"
#include "tests/unit/image_store_images.h"

using namespace sckpt;
using namespace sckpt::test;

namespace {

// A pack with three chunks, and a manifest that names it.
struct PackBed {
    MemoryFileSystem files;
    std::vector<std::string> chunks = {noise(70000, 1), noise(5u << 20, 2), "x"};
    std::vector<std::uint64_t> offsets;
    Manifest manifest;

    PackBed() {
        auto file = files.create("a.pack");
        REQUIRE(file);
        PackWriter writer(std::move(*file));
        for (const std::string& chunk : chunks) {
            const auto offset = writer.append(as_bytes(chunk));
            REQUIRE(offset);
            offsets.push_back(*offset);
        }
        for (std::size_t i = 0; i < chunks.size(); ++i) {
            const auto bytes = static_cast<std::uint32_t>(chunks[i].size());
            const Chunk chunk{{}, offsets[i], bytes, bytes, 0, 9, Codec::raw};
            REQUIRE(writer.add_to_index(chunk));
        }
        REQUIRE(writer.finish());
        manifest.packs = {{"a.pack", writer.end(), 0}};
    }
    std::uint64_t size() const { return manifest.packs[0].bytes; }
    Result<> index() {
        PackReader reader(files, manifest);
        return reader.verify_index(0);
    }
    void replace(const std::string& bytes) {
        REQUIRE(files.remove("a.pack"));
        put_file(files, "a.pack", bytes);
    }
};

void is_corrupt(const Result<>& result, const std::string& what) {
    REQUIRE_FALSE(result);
    CHECK(result.error().code == Errc::corrupt);
    CHECK(result.error().text.contains(what));
    CHECK(result.error().text.contains("a.pack"));
}

}  // namespace

TEST_CASE("a pack has its chunks one after another, and an index that says where") {
    PackBed bed;
    CHECK(bed.offsets ==
          std::vector<std::uint64_t>{wire::kPackHeader, wire::kPackHeader + 70000, wire::kPackHeader + 70000 + (5u << 20)});
    CHECK(bed.size() == bed.offsets[2] + 1 + 3 * wire::kPackRecord + wire::kPackTrailer);
    PackReader reader(bed.files, bed.manifest);
    for (std::size_t i = 0; i < bed.chunks.size(); ++i) {
        std::string bytes(bed.chunks[i].size(), '\0');
        REQUIRE(reader.read(0, bed.offsets[i], std::as_writable_bytes(std::span(bytes))));
        CHECK(bytes == bed.chunks[i]);
    }
    CHECK(reader.verify_index(0));
}

TEST_CASE("a pack that is missing, of another size, or no pack is told apart before anything of it is used") {
    PackBed bed;
    const std::string good = contents(bed.files, "a.pack");
    bed.replace(good.substr(0, good.size() - 1));
    is_corrupt(bed.index(), "bytes, not");
    bed.replace(good + "x");
    is_corrupt(bed.index(), "bytes, not");
    bed.replace(std::string(good.size(), 'x'));
    is_corrupt(bed.index(), "no pack");
    bed.replace(good.substr(0, good.size() - 8) + "nonsense");
    is_corrupt(bed.index(), "no proper end");
    REQUIRE(bed.files.remove("a.pack"));
    is_corrupt(bed.index(), "missing");
}

TEST_CASE("any change of the index or the trailer is seen") {
    PackBed bed;
    for (std::uint64_t at = bed.offsets[2] + 1; at < bed.size(); at += 5) {
        REQUIRE(bed.files.damage("a.pack", at));
        const auto result = bed.index();
        REQUIRE_FALSE(result);
        CHECK(result.error().code == Errc::corrupt);
        REQUIRE(bed.files.damage("a.pack", at));  // back
    }
    CHECK(bed.index());
}
