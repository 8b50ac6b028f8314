// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the store does with an image that was changed behind its back: it names the file and gives out nothing.
#include "image_store/store.h"

#include <functional>
#include <string>

#include <sys/stat.h>

#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>

#include "tests/unit/image_store_fixture.h"

using namespace sckpt;
using namespace sckpt::test;
using Catch::Matchers::ContainsSubstring;
namespace fs = std::filesystem;

namespace {

void flip_byte(const std::string& path, std::size_t at) {
    std::string bytes = read_text(path);
    REQUIRE(at < bytes.size());
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    write_text(path, bytes);
}

}  // namespace

TEST_CASE("an image that was changed in any way is corrupt, and nothing of it stays in the target", "[store]") {
    struct Damage {
        const char* what;
        std::function<void(const std::string&)> make;
        const char* named;
    };
    const Damage damage = GENERATE(values<Damage>({
        {"a byte of the manifest", [](const std::string& i) { flip_byte(i + "/manifest.json", 40); }, "manifest.json"},
        {"no manifest", [](const std::string& i) { fs::remove(i + "/manifest.json"); }, "manifest.json"},
        {"an empty manifest", [](const std::string& i) { write_text(i + "/manifest.json", ""); }, "manifest.json"},
        {"the first byte of a file", [](const std::string& i) { flip_byte(i + "/core-1.img", 0); }, "core-1.img"},
        {"a byte in the middle", [](const std::string& i) { flip_byte(i + "/pages-1.img", 2u << 20); }, "pages-1.img"},
        {"the last byte", [](const std::string& i) { flip_byte(i + "/pages-1.img", (3u << 20) + 16); }, "pages-1.img"},
        {"a byte below", [](const std::string& i) { flip_byte(i + "/files/slurm_script", 3); }, "files/slurm_script"},
        {"a byte of the log", [](const std::string& i) { flip_byte(i + "/dump.log", 3); }, "dump.log"},
        {"a short file", [](const std::string& i) { fs::resize_file(i + "/pages-1.img", 1u << 20); }, "pages-1.img"},
        {"a long file", [](const std::string& i) { fs::resize_file(i + "/pages-1.img", 4u << 20); }, "pages-1.img"},
        {"an empty file that is not", [](const std::string& i) { write_text(i + "/empty.img", "x"); }, "empty.img"},
        {"a missing file", [](const std::string& i) { fs::remove(i + "/core-2.img"); }, "core-2.img"},
        {"an added file", [](const std::string& i) { write_text(i + "/core-3.img", "x"); }, "core-3.img"},
        {"an added file below", [](const std::string& i) { write_text(i + "/files/more", "x"); }, "files/more"},
        {"two files under each other's name",
         [](const std::string& i) {
             fs::rename(i + "/core-1.img", i + "/x");
             fs::rename(i + "/core-2.img", i + "/core-1.img");
             fs::rename(i + "/x", i + "/core-2.img");
         },
         "core-1.img"},
        {"a symbolic link to the same bytes",
         [](const std::string& i) {
             fs::rename(i + "/core-1.img", i + "/../outside");
             fs::create_symlink("../outside", i + "/core-1.img");
         },
         "core-1.img"},
        {"a manifest behind a symbolic link",
         [](const std::string& i) {
             fs::rename(i + "/manifest.json", i + "/../outside");
             fs::create_symlink("../outside", i + "/manifest.json");
         },
         "manifest.json"},
        {"a FIFO",
         [](const std::string& i) {
             fs::remove(i + "/empty.img");
             REQUIRE(::mkfifo((i + "/empty.img").c_str(), 0600) == 0);
         },
         "empty.img"},
    }));
    INFO(damage.what);
    const Fixture f;
    damage.make(f.image);
    const auto got = f.store.get(kPath, f.stored.digest, f.target);
    REQUIRE_FALSE(got);
    CHECK(got.error().code == Errc::corrupt);
    CHECK_THAT(got.error().text, ContainsSubstring(damage.named));
    CHECK_FALSE(fs::exists(f.target));
}

TEST_CASE("a manifest that fits changed files does not fit the digest", "[store]") {
    const Fixture f;
    make_source(f.directory / "other", 9);
    const auto other = f.store.put(f.directory / "other", "jobs/12/2", {});
    REQUIRE(other);
    fs::remove_all(f.image);
    fs::rename(f.top + "/jobs/12/2", f.image);
    CHECK(f.store.get(kPath, f.stored.digest, f.target).error().code == Errc::corrupt);
    CHECK(f.store.get(kPath, "", f.target).error().code == Errc::corrupt);
    CHECK(f.store.get(kPath, other->digest, f.target));
}

TEST_CASE("a manifest is refused when it names anything but files of the image", "[store]") {
    const std::string hash(64, 'a');
    const auto entry = [&](const std::string& name) {
        return R"({"name":")" + name + R"(","size":1,"blake3":")" + hash + R"("})";
    };
    const auto manifest = [](const std::string& files) { return R"({"format":1,"files":[)" + files + "]}"; };
    const auto [text, code] = GENERATE_COPY(table<std::string, Errc>({
        {manifest(entry("../core")), Errc::corrupt},
        {manifest(entry("a/../../core")), Errc::corrupt},
        {manifest(entry("/etc/passwd")), Errc::corrupt},
        {manifest(entry("a//b")), Errc::corrupt},
        {manifest(entry("")), Errc::corrupt},
        {manifest(entry(".")), Errc::corrupt},
        {manifest(entry("manifest.json")), Errc::corrupt},
        {manifest(entry("a\\u0000b")), Errc::corrupt},
        {manifest(entry("a\\nb")), Errc::corrupt},
        {manifest(entry("a") + "," + entry("a")), Errc::corrupt},
        {manifest(entry("b") + "," + entry("a")), Errc::corrupt},
        {manifest(R"({"name":"a","size":-1,"blake3":")" + hash + R"("})"), Errc::corrupt},
        {manifest(R"({"name":"a","size":"1","blake3":")" + hash + R"("})"), Errc::corrupt},
        {manifest(R"({"name":"a","size":1,"blake3":"aa"})"), Errc::corrupt},
        {manifest("7"), Errc::corrupt},
        {R"({"format":2,"files":[]})", Errc::unsupported},
        {R"({"files":[]})", Errc::corrupt},
        {R"({"format":1})", Errc::corrupt},
        {"[]", Errc::corrupt},
        {"{", Errc::corrupt},
    }));
    INFO(text);
    const Fixture f;
    write_text(f.image + "/manifest.json", text);
    const auto got = f.store.get(kPath, blake3_hex(text), f.target);
    REQUIRE_FALSE(got);
    CHECK(got.error().code == code);
    CHECK_FALSE(fs::exists(f.target));
}
