// SPDX-License-Identifier: GPL-3.0-or-later
//
// Digests, seals, and the file of the keys: who may have touched it, and how it changes.
#include "image_store/seal.h"

#include <filesystem>
#include <format>

#include <sys/stat.h>

#include <catch2/generators/catch_generators.hpp>

#include "image_store/hash.h"
#include "tests/unit/image_store_tools.h"

using namespace sckpt;
using namespace sckpt::test;
namespace fs = std::filesystem;

namespace {

ManifestParts parts_of(const std::string& text) { return {digest_of(text + "'s head"), digest_of(text)}; }

SealKeys keys_of(const std::string& text) {
    auto keys = SealKeys::parse(text);
    if (!keys) FAIL(keys.error().text);
    return std::move(*keys);
}

const std::string kOne = "01234567 " + std::string(64, '1'), kTwo = "89abcdef " + std::string(64, '2');

}  // namespace

TEST_CASE("the hash is BLAKE3", "[seal]") {
    CHECK(Blake3().hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    CHECK(to_hex(digest_of("abc")) == "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
    Digest key;
    std::ranges::copy(std::string_view("whats the Elvish word for friend"), key.begin());  // of the official test vectors
    CHECK(Blake3(key).hex() == "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26");
}

TEST_CASE("a digest is 64 lower-case digits", "[seal]") {
    const Digest digest = digest_of("abc");
    CHECK(digest_from_hex(to_hex(digest)) == digest);
    const std::string bad =
        GENERATE(as<std::string>(), "", "ab", std::string(63, 'a'), std::string(65, 'a'), std::string(64, 'A'),
                 std::string(63, 'a') + "g", std::string(62, '0') + "0x", std::string(64, ' '));
    CHECK(digest_from_hex(bad).error().code == Errc::invalid);
}

TEST_CASE("a seal fits its head, its rest and its key alone", "[seal]") {
    const SealKeys keys = keys_of("# a comment\n\n" + kOne + "\r\n  " + kTwo + "\n");
    const ManifestParts body = parts_of("body");
    const Seal seal = keys.seal(body);
    CHECK(seal.key_id == "01234567");
    CHECK(keys.verify(body, seal));
    CHECK(keys.verify({digest_of("other"), body.rest}, seal).error().code == Errc::corrupt);
    CHECK(keys.verify({body.head, digest_of("other")}, seal).error().code == Errc::corrupt);
    CHECK(keys.verify({body.rest, body.head}, seal).error().code == Errc::corrupt);
    Seal changed = seal;
    changed.value[31] ^= 1;
    CHECK(keys.verify(body, changed).error().code == Errc::corrupt);
    changed = seal;
    changed.key_id = "89abcdef";
    CHECK(keys.verify(body, changed).error().code == Errc::corrupt);
    changed.key_id = "00000000";
    CHECK(keys.verify(body, changed).error().code == Errc::unsupported);
    changed.key_id = std::string(8, '\0');  // what is at the end of a manifest that was never finished
    CHECK(keys.verify(body, changed).error().code == Errc::corrupt);
}

TEST_CASE("after a rotation the new key seals, and the old one verifies as long as it is there", "[seal]") {
    const ManifestParts body = parts_of("body");
    const Seal old = keys_of(kOne).seal(body);
    const SealKeys rotated = keys_of(kTwo + "\n" + kOne);
    CHECK(rotated.seal(body).key_id == "89abcdef");
    CHECK(rotated.verify(body, old));
    CHECK(keys_of(kTwo).verify(body, old).error().code == Errc::unsupported);
}

TEST_CASE("a key file that is not plain is refused, and the key is not shown", "[seal]") {
    const std::string text =
        GENERATE_COPY(as<std::string>(), "", "\n", "# only a comment\n", "01234567", "01234567 ", "01234567 12", kOne + "0",
                      kOne.substr(1), kOne + " x", kOne + "\n" + kOne, "0123456g " + std::string(64, '1'),
                      "01234567  " + std::string(64, '1'), "01234567 " + std::string(64, 'F'), kOne + "\n" + kTwo + "x\n");
    INFO(text);
    const auto keys = SealKeys::parse(text);
    REQUIRE_FALSE(keys);
    CHECK(keys.error().code == Errc::invalid);
    CHECK_FALSE(keys.error().text.contains("1111"));
    CHECK_FALSE(keys.error().text.contains("2222"));
}

TEST_CASE("keys are random", "[seal]") {
    const auto one = make_key_line(), two = make_key_line();
    REQUIRE(one);
    REQUIRE(two);
    CHECK(*one != *two);
    CHECK(one->substr(0, 8) != two->substr(0, 8));
    CHECK(SealKeys::parse(*one));
}

TEST_CASE("a key file is made once, private, and rotated", "[seal]") {
    const TempDir directory;
    const std::string path = directory / "sckpt.key";
    CHECK(SealKeys::load(path).error().code == Errc::not_found);
    CHECK(write_key_file(path, true).error().code == Errc::not_found);
    const auto made = write_key_file(path, false);
    REQUIRE(made);
    CHECK(fs::status(path).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
    const auto keys = SealKeys::load(path);
    if (!keys) FAIL(keys.error().text);
    const ManifestParts body = parts_of("body");
    const Seal seal = keys->seal(body);
    CHECK(seal.key_id == *made);

    const std::string before = read_text(path);
    CHECK(write_key_file(path, false).error().code == Errc::exists);
    CHECK(read_text(path) == before);

    const auto rotated = write_key_file(path, true);
    REQUIRE(rotated);
    CHECK(*rotated != *made);
    CHECK(fs::status(path).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
    const auto both = SealKeys::load(path);
    REQUIRE(both);
    CHECK(both->seal(body).key_id == *rotated);
    CHECK(both->verify(body, seal));
    CHECK(read_text(path).starts_with("#"));
    CHECK(std::distance(fs::directory_iterator(fs::path(path).parent_path()), {}) == 1);  // nothing temporary is left
    CHECK(write_key_file(directory / "none/sckpt.key", false).error().code == Errc::not_found);
}

TEST_CASE("a key file that somebody else could have read or written is refused", "[seal]") {
    const TempDir directory;
    const std::string path = directory / "sckpt.key";
    REQUIRE(write_key_file(path, false));
    SECTION("mode") {
        const int mode = GENERATE(0640, 0604, 0620, 0602, 0644);
        REQUIRE(::chmod(path.c_str(), static_cast<mode_t>(mode)) == 0);
    }
    SECTION("another user's") {
        if (::geteuid() != 0) SKIP("only root can give a file away");
        REQUIRE(::chown(path.c_str(), 12345, 0) == 0);
    }
    SECTION("a FIFO") {
        fs::remove(path);
        REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
    }
    CHECK(SealKeys::load(path).error().code == Errc::denied);
    CHECK(write_key_file(path, true).error().code == Errc::denied);
}

TEST_CASE("a key file behind a symbolic link, or much too long, is refused", "[seal]") {
    const TempDir directory;
    REQUIRE(write_key_file(directory / "real.key", false));
    fs::create_symlink("real.key", directory / "sckpt.key");
    CHECK_FALSE(SealKeys::load(directory / "sckpt.key"));
    write_text(directory / "long.key", std::string(1u << 20, '#'));
    REQUIRE(::chmod((directory / "long.key").c_str(), 0600) == 0);
    CHECK(SealKeys::load(directory / "long.key").error().code == Errc::invalid);
}
