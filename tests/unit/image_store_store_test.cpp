// SPDX-License-Identifier: GPL-3.0-or-later
#include "image_store/store.h"

#include <sys/stat.h>

#include <algorithm>

#include "tests/unit/image_store_images.h"

using namespace sckpt;
using namespace sckpt::test;

namespace {

constexpr std::size_t kPage = 4096, kChunk = 64u << 10;

Files mixed_image() {
    Files files = {{"core-1.img", "core"},
                   {"empty.img", ""},
                   {"fs/inner/deep.img", noise(777, 5)},
                   {"zero.img", std::string(5 * kChunk + 3, '\0')}};
    files["pages-1.img"] = noise(3'000'017, 1);
    files["pages-2.img"] =
        std::string(200'000, 'a') + std::string(300'000, '\0') + noise(100'000, 2) + std::string(kChunk * 3, '\0');
    for (int i = 0; i < 300; ++i)
        files[std::format("files/{}", i)] = noise(static_cast<std::size_t>(i), 100u + static_cast<unsigned>(i));
    return files;
}

Files small_image() {
    return {{"core-1.img", "core of a process"}, {"pages-1.img", noise(2 * kPage, 1) + std::string(kPage, 'x')}};
}

std::uint64_t files_below(FileSystem& files) { return all_files(files).size(); }

}  // namespace

TEST_CASE("an image comes back as it was") {
    StoreBed bed;
    const Files image = mixed_image();
    for (const int threads : {1, 3}) {
        const StoredImage stored = bed.put(image, bed.request(), threads);
        const Manifest manifest = bed.open(stored);
        CHECK(bed.get(manifest, threads) == image);
        CHECK(bed.is_whole(manifest));
        CHECK(manifest.identity.job_id == 4711);
        CHECK(stored.plain_bytes == manifest.plain_bytes);
        CHECK(stored.manifest.starts_with("job-4711-8/ckpt-3-batch-"));
        REQUIRE(stored.packs.size() == 1);
        CHECK(stored.new_bytes == stored.packs[0].bytes + contents(bed.files, stored.manifest).size());
        CHECK(stored.packs[0].used < stored.packs[0].bytes);
        CHECK(contents(bed.files, stored.packs[0].path).size() == stored.packs[0].bytes);
    }
}

TEST_CASE("images of no file, of empty files and of nothing but zeros need no pack") {
    StoreBed bed;
    for (const Files& image : {Files{}, Files{{"a", ""}, {"b/c", ""}}, Files{{"a", std::string(1'000'000, '\0')}}}) {
        const StoredImage stored = bed.put(image);
        CHECK(stored.packs.empty());
        CHECK(bed.get(bed.open(stored)) == image);
    }
}

TEST_CASE("zero chunks are holes in what is read back") {
    RealFiles target;
    StoreBed bed;
    const Manifest manifest = bed.open(bed.put({{"pages-1.img", std::string(64 * kChunk, '\0') + noise(kChunk, 1)}}));
    REQUIRE(bed.store.get(manifest, target.files, {}));
    struct stat facts{};
    REQUIRE(::stat((target.directory / "pages-1.img").c_str(), &facts) == 0);
    CHECK(facts.st_size == 65 * static_cast<off_t>(kChunk));
    CHECK(facts.st_blocks * 512 <= 2 * static_cast<off_t>(kChunk));
}

TEST_CASE("what the base has is referred to") {
    StoreBed bed;
    const Files image = mixed_image();
    const StoredImage first = bed.put(image);
    const Manifest base = bed.open(first);

    const StoredImage again = bed.put(image, &base);
    REQUIRE(again.packs.size() == 1);
    CHECK(again.packs[0].path == first.packs[0].path);
    CHECK(again.packs[0].used == first.packs[0].used);
    CHECK(bed.get(bed.open(again)) == image);

    Files changed = image;
    changed["pages-1.img"].replace(kChunk * 10 + 100, 3, "new");
    changed["other.img"] = image.at("pages-1.img").substr(5 * kChunk, 2 * kChunk);  // known, from another place
    const StoredImage third = bed.put(changed, &base);
    REQUIRE(third.packs.size() == 2);
    CHECK(third.new_bytes < first.new_bytes / 10);
    CHECK(bed.get(bed.open(third)) == changed);
}

TEST_CASE("memory that did not change is found wherever in its file it lies") {
    StoreBed bed;
    const std::string array = noise(40 * kChunk, 3);
    const auto image_with = [&](std::size_t heap_pages, std::uint64_t seed) {
        return Files{{"pages-1.img", noise(heap_pages * kPage, seed) + array}};
    };
    const auto request_with = [&](std::size_t heap_pages, const Manifest* base) {
        PutRequest request = bed.request(base);
        const std::uint64_t heap = heap_pages * kPage;
        request.pages["pages-1.img"] = {{0, heap, 0x10000}, {heap, array.size(), 0x7fff00003000}};
        return request;
    };
    const Manifest base = bed.open(bed.put(image_with(7, 1), request_with(7, nullptr)));
    const StoredImage grown = bed.put(image_with(20, 2), request_with(20, &base));
    CHECK(grown.new_bytes < 20 * kPage + 25'000);
    CHECK(bed.get(bed.open(grown)) == image_with(20, 2));
    PutRequest without = request_with(20, &base);
    without.pages["pages-1.img"][1].bytes += 1;  // does not fit the file: it is cut at its offsets then
    CHECK(bed.get(bed.open(bed.put(image_with(20, 2), without))) == image_with(20, 2));
}

TEST_CASE("a chunk that an image has twice is written once") {
    StoreBed bed;
    const std::string block = noise(kChunk, 9);
    Files image;
    for (int i = 0; i < 40; ++i) image[std::format("f{}", i)] = block + block + block;
    const StoredImage stored = bed.put(image, bed.request(), 4);
    CHECK(stored.packs.at(0).used <= 2 * kChunk);  // of 120: only within one block of new chunks a chunk may be there twice
    CHECK(bed.get(bed.open(stored)) == image);
}

TEST_CASE("only packs that are referred to are named, and one that is gone is done without") {
    StoreBed bed;
    Files image = {{"a", noise(3 * kChunk, 1)}};
    const StoredImage first = bed.put(image);
    const Manifest base1 = bed.open(first);
    image["b"] = noise(2 * kChunk, 2);
    const StoredImage second = bed.put(image, &base1);
    const Manifest base2 = bed.open(second);
    REQUIRE(base2.packs.size() == 2);
    const StoredImage third = bed.put({{"b", image["b"]}}, &base2);
    REQUIRE(third.packs.size() == 1);
    CHECK(third.packs[0].path != first.packs[0].path);

    REQUIRE(bed.files.remove(first.packs[0].path));
    const StoredImage fourth = bed.put(image, &base2);
    const Manifest healed = bed.open(fourth);
    CHECK(bed.is_whole(healed));
    CHECK(bed.get(healed) == image);
    CHECK_FALSE(bed.is_whole(base2));
}

TEST_CASE("a manifest refers to no more than so many packs") {
    StoreBed bed;
    Files image;
    std::optional<Manifest> base;
    for (std::size_t i = 0; i < kMaxPacks + 3; ++i) {
        image[std::format("{:03}", i)] = noise(100 + i, i);
        base = bed.open(bed.put(image, base ? &*base : nullptr));
        REQUIRE(base->packs.size() == std::min(i + 1, kMaxPacks));
    }
    CHECK(bed.get(*base) == image);
}

TEST_CASE("a change of any byte of a pack is seen, and the place is named") {
    StoreBed bed;
    const StoredImage stored = bed.put(small_image());
    const Manifest manifest = bed.open(stored);
    const PackUse& pack = stored.packs.at(0);
    for (std::uint64_t at = 0; at < pack.bytes; at += 7) {
        REQUIRE(bed.files.damage(pack.path, at));
        const auto faults = bed.store.check(manifest, {});
        REQUIRE(faults);
        REQUIRE_FALSE(faults->empty());
        CHECK(faults->front().pack == pack.path);
        REQUIRE(bed.files.damage(pack.path, at));
    }
    REQUIRE(bed.is_whole(manifest));

    std::vector<Chunk> chunks(manifest.chunk_count);
    REQUIRE(manifest.read_chunks(0, chunks));
    REQUIRE(bed.files.damage(pack.path, chunks.back().offset + 5));
    MemoryFileSystem target;
    const auto got = bed.store.get(manifest, target, {.threads = 2});
    REQUIRE_FALSE(got);
    CHECK(got.error().code == Errc::corrupt);
    CHECK(got.error().text.contains("pages-1.img at 0: chunk "));
    CHECK(got.error().text.contains(pack.path));
}

TEST_CASE("check tells of many faults, but of each bad pack") {
    StoreBed bed;
    Files image;
    for (int i = 0; i < 200; ++i) image[std::format("a{:03}", i)] = noise(1000, static_cast<unsigned>(i));
    const StoredImage first = bed.put(image);
    const Manifest base = bed.open(first);
    image["z"] = noise(1000, 1000);
    const StoredImage second = bed.put(image, &base);
    const Manifest manifest = bed.open(second);
    for (const PackUse& pack : second.packs) REQUIRE(bed.files.remove(pack.path));
    const auto faults = bed.store.check(manifest, {.threads = 2});
    REQUIRE(faults);
    CHECK(faults->size() >= 100);
    CHECK(faults->size() <= 102);
    for (const PackUse& pack : second.packs) CHECK(std::ranges::contains(*faults, pack.path, &ChunkFault::pack));
    CHECK(faults->back().what.contains("more"));
}

TEST_CASE("a put that fails leaves nothing") {
    StoreBed bed;
    const Files image = mixed_image();
    PutRequest request = bed.request();
    MemoryFileSystem source;
    make_image(source, image);
    request.seal = [](std::string_view, const Digest&) -> Result<Seal> { return fail(Errc::unavailable, "nobody seals"); };
    const auto unsealed = bed.store.put(source, request, {.threads = 2});
    REQUIRE_FALSE(unsealed);
    CHECK(unsealed.error().code == Errc::unavailable);
    CHECK(files_below(bed.files) == 0);

    int told = 0;
    const auto stopped =
        bed.store.put(source, bed.request(), {.threads = 2, .progress = [&](std::uint64_t, std::uint64_t) -> Result<> {
                                                  ++told;
                                                  return fail(Errc::busy, "enough");
                                              }});
    REQUIRE_FALSE(stopped);
    CHECK(stopped.error().text == "enough");
    CHECK(told == 1);
    CHECK(files_below(bed.files) == 0);

    bed.files.set_capacity(100'000);
    const auto full = bed.store.put(source, bed.request(), {.threads = 2});
    REQUIRE_FALSE(full);
    CHECK(full.error().code == Errc::no_space);
    CHECK(files_below(bed.files) == 0);

    for (const char* directory : {"../x", "", "/tmp", "a//b"}) {
        PutRequest outside = bed.request();
        outside.directory = directory;
        CHECK_FALSE(bed.store.put(source, outside, {}));
    }
}

TEST_CASE("progress is told, up to all of it") {
    StoreBed bed;
    MemoryFileSystem source;
    make_image(source, mixed_image());
    std::uint64_t plain = 0, written = 0;
    const auto progress = [&](std::uint64_t p, std::uint64_t w) -> Result<> {
        CHECK(p >= plain);
        CHECK(w >= written);
        plain = p;
        written = w;
        return {};
    };
    const auto stored = bed.store.put(source, bed.request(), {.threads = 2, .progress = progress});
    REQUIRE(stored);
    CHECK(plain == stored->plain_bytes);
    CHECK(written >= stored->packs[0].used);
    plain = written = 0;
    MemoryFileSystem target;
    REQUIRE(bed.store.get(bed.open(*stored), target, {.threads = 2, .progress = progress}));
    CHECK(plain == stored->plain_bytes);
}

TEST_CASE("a limit of bytes per second is kept, and does not delay a stop") {
    StoreBed bed;
    MemoryFileSystem source;
    make_image(source, {{"pages-1.img", noise(4u << 20, 1)}});
    auto begin = std::chrono::steady_clock::now();
    REQUIRE(bed.store.put(source, bed.request(), {.threads = 2, .bytes_per_second = 16u << 20}));
    CHECK(std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(180));  // the first megabyte is free
    begin = std::chrono::steady_clock::now();
    const auto stop = [told = 0](std::uint64_t, std::uint64_t) mutable -> Result<> {
        return ++told == 1 ? Result<>{} : fail(Errc::busy, "enough");
    };
    CHECK_FALSE(bed.store.put(source, bed.request(), {.threads = 2, .bytes_per_second = 1000, .progress = stop}));
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(60));
}

TEST_CASE("the files of an image are compared with its manifest, byte for byte and name for name") {
    StoreBed bed;
    const Files image = {{"a", noise(2 * kChunk, 1)}, {"b", ""}, {"c/d", std::string(kChunk, '\0') + "x"}};
    const Manifest manifest = bed.open(bed.put(image));
    const auto verdict = [&](const Files& files, const std::vector<std::string>& besides = {}) {
        MemoryFileSystem found;
        make_image(found, files);
        const auto result = verify_files(manifest, found, besides, 2);
        if (result) return std::string("good");
        CHECK(result.error().code == Errc::corrupt);
        return result.error().text;
    };
    CHECK(verdict(image) == "good");
    Files other = image;
    other["c/e"] = "";
    CHECK(verdict(other).contains("c/e is there"));
    CHECK(verdict(other, {"c/e"}) == "good");
    other = image;
    other.erase("b");
    CHECK(verdict(other).contains("b is missing"));
    other = image;
    other["a"] += "x";
    CHECK(verdict(other).contains("a has"));
    other = image;
    other["a"][kChunk + 1] ^= 1;
    CHECK(verdict(other).contains("a at 65536"));
    other = image;
    other["c/d"][9] = 1;
    CHECK(verdict(other).contains("c/d at 0"));
}

TEST_CASE("what is still used of packs goes into a new one, and every image stays whole") {
    StoreBed bed;
    Files image = {{"a", noise(20 * kChunk, 1)}, {"b", noise(3 * kChunk, 2)}, {"z", std::string(kChunk, '\0')}};
    const StoredImage first = bed.put(image);
    const Manifest one = bed.open(first);
    image["a"] = image["a"].substr(0, kChunk) + noise(19 * kChunk, 3);
    const Manifest two = bed.open(bed.put(image, &one));
    const Files image_two = image;
    image["c"] = "more";
    const Manifest three = bed.open(bed.put(image, &two));
    const Files image_three = image;

    const auto seal = sealed_with(bed.keys);
    const auto compacted = bed.store.compact({&two, &three}, {first.packs[0].path}, seal, {});
    if (!compacted) FAIL(compacted.error().text);
    REQUIRE(compacted->size() == 2);
    REQUIRE(bed.files.remove(first.packs[0].path));
    const Manifest new_two = bed.open(compacted->at(0)), new_three = bed.open(compacted->at(1));
    CHECK(bed.get(new_two) == image_two);
    CHECK(bed.get(new_three) == image_three);
    CHECK(bed.is_whole(new_three));
    CHECK(new_two.identity.job_id == 4711);
    CHECK(compacted->at(0).packs.size() == 2);
    CHECK(compacted->at(1).packs.size() == 3);
    CHECK(compacted->at(0).new_bytes < 6 * kChunk);  // one chunk of a, three of b
    CHECK(compacted->at(1).new_bytes < kChunk);      // a manifest
    CHECK_FALSE(bed.is_whole(two));
}

TEST_CASE("a compaction moves nothing that does not verify, and leaves nothing then") {
    StoreBed bed;
    const StoredImage stored = bed.put(small_image());
    const Manifest manifest = bed.open(stored);
    REQUIRE(bed.files.damage(stored.packs[0].path, 200));
    const auto before = files_below(bed.files);
    const auto seal = sealed_with(bed.keys);
    const auto compacted = bed.store.compact({&manifest}, {stored.packs[0].path}, seal, {});
    REQUIRE_FALSE(compacted);
    CHECK(compacted.error().code == Errc::corrupt);
    CHECK(files_below(bed.files) == before);
}
