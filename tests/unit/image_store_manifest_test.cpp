// SPDX-License-Identifier: GPL-3.0-or-later
#include "image_store/manifest.h"

#include <nlohmann/json.hpp>

#include "image_store/manifest_writer.h"
#include "image_store/wire.h"
#include "tests/unit/image_store_images.h"

using namespace sckpt;
using namespace sckpt::test;
using Json = nlohmann::json;

namespace {

Manifest some_head() {
    Manifest head;
    head.identity = {"cluster", "user1", "account", "n1",          "batch", 4711, 1001, 1'700'000'000, 2, 8,
                     15,        3,       2,         1'700'000'100, 900,     3,    250,           "batch", {{"0.3", 256}, {"1.0", 9}}};
    head.needs = {"criu", "4.2.1", "x86_64", "6.18", {"avx2", "fma"}};
    head.user_files = {{"/home/user1/\xff\xfe odd \"name\"\n", 77, 1234, true, false}, {"/home/user1/out", 78, 0, false, true}};
    head.files = {{"empty", 0, 0, 0}, {"pages-1.img", 100'000, 0, 2}, {"sub/file", 5000, 0, 1}};
    head.plain_bytes = 105'000;
    head.chunk_size = 65536;
    return head;
}

Digest digest_of(std::uint8_t first) {
    Digest digest{};
    digest[0] = first;
    return digest;
}

// Writes a manifest whose table is `chunks`; → its bytes.
std::string written(const std::vector<Chunk>& chunks, Manifest head, std::uint64_t pack_bytes = 1'000'000) {
    MemoryFileSystem files;
    auto file = files.create("m");
    REQUIRE(file);
    ManifestWriter writer(std::move(*file));
    REQUIRE(writer.pack_number("job-1-1/a.pack", pack_bytes) == 0);
    REQUIRE(writer.pack_number("job-1-1/b.pack", 500'000) == 1);
    for (const Chunk& chunk : chunks) REQUIRE(writer.add(chunk));
    const auto digest = writer.finish(std::move(head), sealed_with(test_keys()));
    REQUIRE(digest);
    return contents(files, "m");
}

const std::vector<Chunk> kChunks = {{digest_of(1), 16, 40'000, 65536, 0, 0, Codec::zstd},
                                    {{}, 0, 0, 34464, 0, 0, Codec::zero},
                                    {digest_of(2), 400'000, 6000, 5000, 1000, 1, Codec::raw}};

Result<Manifest> open_bytes(const std::string& bytes) {
    static MemoryFileSystem files;  // the manifest reads on
    static int count = 0;
    const std::string name = std::format("m{}", ++count);
    put_file(files, name, bytes);
    auto file = files.open(name);
    REQUIRE(file);
    return Manifest::open(std::move(*file));
}

void refused(const std::string& bytes, Errc code = Errc::corrupt) {
    const auto manifest = open_bytes(bytes);
    REQUIRE_FALSE(manifest);
    CHECK(manifest.error().code == code);
}

// The head with one change.
void head_refused(const std::function<void(Json&)>& change, Errc code = Errc::corrupt) {
    Manifest head = some_head();
    head.chunk_count = 3;
    Json json = Json::parse(head_text(head));
    REQUIRE(parse_head(json.dump()));
    change(json);
    const auto parsed = parse_head(json.dump());
    REQUIRE_FALSE(parsed);
    CHECK(parsed.error().code == code);
}

bool same(const Manifest& a, const Manifest& b) {
    return head_text(a) == head_text(b) && a.identity.frozen_ms == b.identity.frozen_ms &&
           a.user_files[0].path == b.user_files[0].path;
}

}  // namespace

TEST_CASE("what is written into a manifest is read from it") {
    const auto manifest = open_bytes(written(kChunks, some_head()));
    if (!manifest) FAIL(manifest.error().text);
    Manifest expected = some_head();
    expected.chunk_count = 3;
    expected.packs = {{"job-1-1/a.pack", 1'000'000, 40'000}, {"job-1-1/b.pack", 500'000, 6000}};
    CHECK(same(*manifest, expected));
    CHECK(manifest->files[2].first_chunk == 2);
    CHECK(manifest->seal.key_id == "00112233");
    CHECK(manifest->chunk_size == 65536);
    std::vector<Chunk> chunks(3);
    REQUIRE(manifest->read_chunks(0, chunks));
    CHECK(chunks[0].hash == digest_of(1));
    CHECK(chunks[0].codec == Codec::zstd);
    CHECK(chunks[1].codec == Codec::zero);
    CHECK(chunks[2].offset == 400'000);
    CHECK(chunks[2].pack == 1);
}

TEST_CASE("a chunk that is referred to twice is used once") {
    std::vector<Chunk> chunks = kChunks;
    chunks[1] = chunks[0];
    chunks[1].plain = chunks[0].plain;
    Manifest head = some_head();
    head.files[1].size = 2 * 65536;
    head.plain_bytes = 2 * 65536 + 5000;
    const auto manifest = open_bytes(written(chunks, std::move(head)));
    REQUIRE(manifest);
    CHECK(manifest->packs[0].used == 40'000);
}

TEST_CASE("a manifest says who leads its checkpoint and, if it does itself, which tasks had ended") {
    const ImageIdentity identity = parse_head(Json::parse(head_text(some_head().identity, {}, {})).dump())->identity;
    CHECK(identity.images == 2);
    CHECK(identity.leader == "batch");
    REQUIRE(identity.ended.size() == 2);
    CHECK(identity.ended[0].task == "0.3");
    CHECK(identity.ended[0].wait_status == 256);
    CHECK(identity.ended[1].wait_status == 9);
}

TEST_CASE("a manifest of before checkpoints had several images leads its own") {
    Json json = Json::parse(head_text(some_head().identity, {}, {}));
    json["identity"].erase("leader");
    json["identity"].erase("ended");
    const auto head = parse_head(json.dump());
    REQUIRE(head);
    CHECK(head->identity.leader == "batch");
    CHECK(head->identity.ended.empty());
}

TEST_CASE("a manifest's digests, and its seal, are those of its bytes") {
    MemoryFileSystem files;
    put_file(files, "m", written(kChunks, some_head()));
    auto file = files.open("m");
    REQUIRE(file);
    const auto hashes = Manifest::hash(**file);
    REQUIRE(hashes);
    const std::string bytes = contents(files, "m");
    CHECK(hashes->digest == to_hex(digest_of(bytes)));
    const auto manifest = Manifest::open(std::move(*file));
    REQUIRE(manifest);
    const std::string head = head_text(*manifest);
    const std::size_t at = bytes.find(head);
    REQUIRE(at == wire::kManifestHeader + 3 * wire::kRecordBytes);
    const std::size_t seal = bytes.size() - wire::kManifestSeal;
    CHECK(hashes->parts.head == digest_of(head));
    CHECK(hashes->parts.rest == digest_of(bytes.substr(0, at) + bytes.substr(at + head.size(), seal - at - head.size())));
    CHECK(test_keys().verify(hashes->parts, manifest->seal));
    CHECK(hashes->seal.value == manifest->seal.value);
}

TEST_CASE("a change of any byte of a manifest breaks its seal") {
    MemoryFileSystem files;
    const std::string good = written(kChunks, some_head());
    put_file(files, "m", good);
    const SealKeys keys = test_keys();
    for (std::uint64_t at = 0; at < good.size(); at += at < 300 || at + 200 > good.size() ? 1 : 17) {
        REQUIRE(files.damage("m", at));
        auto file = files.open("m");
        REQUIRE(file);
        const auto hashes = Manifest::hash(**file);
        if (hashes) CHECK_FALSE(keys.verify(hashes->parts, hashes->seal));
        else CHECK(hashes.error().code == Errc::corrupt);
        (void)Manifest::open(std::move(*file));  // whatever it says of this: it ends
        REQUIRE(files.damage("m", at));
    }
}

TEST_CASE("a manifest that is cut off, or longer, is refused, and has a digest all the same") {
    const std::string good = written(kChunks, some_head());
    MemoryFileSystem files;
    for (const std::string& bytes : {good.substr(0, good.size() - 100), good.substr(0, 5), good + "x", std::string()}) {
        put_file(files, "m", bytes);
        const auto hashes = Manifest::hash(**files.open("m"));
        REQUIRE(hashes);
        CHECK(hashes->digest == to_hex(digest_of(bytes)));
        CHECK(test_keys().verify(hashes->parts, hashes->seal).error().code == Errc::corrupt);
        REQUIRE(files.remove("m"));
    }
    for (std::size_t size = 0; size < good.size(); size += 13) refused(good.substr(0, size));
    refused(good + "x");
    refused("x" + good);
}

TEST_CASE("a manifest of another version says so, and nothing vouches for that") {
    for (const unsigned format : {2u, 4u}) {
        std::string bytes = written(kChunks, some_head());
        bytes[8] = static_cast<char>(format);
        refused(bytes, Errc::unsupported);
        head_refused([&](Json& head) { head["format"] = format; }, Errc::unsupported);
        MemoryFileSystem files;
        put_file(files, "m", bytes);
        const auto hashes = Manifest::hash(**files.open("m"));
        REQUIRE_FALSE(hashes);
        CHECK(hashes.error().code == Errc::corrupt);
        CHECK(hashes.error().text.contains(std::format("format {}", format)));
    }
}

TEST_CASE("a table that cannot be is refused") {
    const auto with = [](std::size_t which, const std::function<void(Chunk&)>& change) {
        std::vector<Chunk> chunks = kChunks;
        change(chunks[which]);
        refused(written(chunks, some_head()));
    };
    with(0, [](Chunk& chunk) { chunk.codec = static_cast<Codec>(4); });
    with(0, [](Chunk& chunk) { chunk.offset = 8; });
    with(0, [](Chunk& chunk) { chunk.offset = 999'990; });
    with(0, [](Chunk& chunk) { chunk.offset = ~0ull - 100; });
    with(0, [](Chunk& chunk) { chunk.stored = 0; });
    with(0, [](Chunk& chunk) { chunk.stored = kMaxBlock + 1; });
    with(0, [](Chunk& chunk) { chunk.at = kMaxBlock - 100; });
    with(0, [](Chunk& chunk) { chunk.at = ~0u; });
    with(1, [](Chunk& chunk) { chunk.at = 1; });
    with(0, [](Chunk& chunk) { chunk.plain -= 1; });  // the file's size
    with(1, [](Chunk& chunk) { chunk.plain = 0; });
    with(1, [](Chunk& chunk) { chunk.stored = 1; });
    with(1, [](Chunk& chunk) { chunk.hash = digest_of(7); });
    with(2, [](Chunk& chunk) { chunk.at = 1001; });  // raw
    std::string bytes = written(kChunks, some_head());
    bytes[wire::kManifestHeader + 52] = 2;  // a pack that is not named
    refused(bytes);
    std::vector<Chunk> large = kChunks;
    large[0].plain = kMaxBlock + 1;
    Manifest head = some_head();
    head.files[1].size += kMaxBlock + 1 - 65536;
    head.plain_bytes += kMaxBlock + 1 - 65536;
    refused(written(large, std::move(head)));
}

TEST_CASE("a head that cannot be is refused") {
    head_refused([](Json& head) { head.erase("identity"); });
    head_refused([](Json& head) { head["identity"]["job_id"] = -1; });
    head_refused([](Json& head) { head["identity"]["job_id"] = 1ull << 32; });
    head_refused([](Json& head) { head["identity"]["created"] = ~0ull; });
    head_refused([](Json& head) { head["identity"]["user"] = 5; });
    head_refused([](Json& head) { head["identity"]["leader"] = 5; });
    head_refused([](Json& head) { head["identity"].erase("ended"); });
    head_refused([](Json& head) { head["identity"]["ended"][0].erase("wait_status"); });
    head_refused([](Json& head) { head["identity"]["ended"][0]["wait_status"] = 1ull << 31; });
    head_refused([](Json& head) { head["needs"]["cpu_flags"] = {1}; });
    head_refused([](Json& head) { head["user_files"][0].erase("append"); });
    head_refused([](Json& head) { head["files"] = 1; });
    head_refused([](Json& head) { head["files"][0] = 1; });
    head_refused([](Json& head) { head["files"][0]["name"] = "../x"; });
    head_refused([](Json& head) { head["files"][0]["name"] = "/etc/passwd"; });
    head_refused([](Json& head) { head["files"][0]["name"] = "z"; });  // not in order
    head_refused([](Json& head) { head["files"][1]["name"] = "empty"; });
    head_refused([](Json& head) { head["files"][1]["size"] = 1; });
    head_refused([](Json& head) { head["files"][1]["chunks"] = 3; });
    head_refused([](Json& head) { head["files"][1]["chunks"] = ~0ull; });
    head_refused([](Json& head) { head["plain_bytes"] = 1; });
    head_refused([](Json& head) { head["packs"] = {{{"path", "../a.pack"}, {"bytes", 10}, {"used", 1}}}; });
    head_refused([](Json& head) { head["packs"] = {{{"path", "a.pack"}, {"bytes", 10}, {"used", 11}}}; });
    head_refused([](Json& head) {
        head["packs"] = {{{"path", "a"}, {"bytes", 1}, {"used", 1}}, {{"path", "a"}, {"bytes", 1}, {"used", 1}}};
    });
    CHECK_FALSE(parse_head("not JSON"));
    CHECK_FALSE(parse_head("[]"));
}

TEST_CASE("a manifest without files") {
    Manifest head = some_head();
    head.files.clear();
    head.plain_bytes = 0;
    const auto manifest = open_bytes(written({}, std::move(head)));
    if (!manifest) FAIL(manifest.error().text);
    CHECK(manifest->chunk_count == 0);
}
