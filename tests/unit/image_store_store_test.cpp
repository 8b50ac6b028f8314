// SPDX-License-Identifier: GPL-3.0-or-later
//
// The store: what is put comes back verified or not at all, whatever was done to it, and whatever crash came in between.
#include "image_store/store.h"

#include <algorithm>
#include <thread>
#include <vector>

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <catch2/generators/catch_generators.hpp>

#include "tests/unit/image_store_fixture.h"

using namespace sckpt;
using namespace sckpt::test;
namespace fs = std::filesystem;

TEST_CASE("the hash is BLAKE3", "[store]") {
    CHECK(blake3_hex("") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    CHECK(blake3_hex("abc") == "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
}

TEST_CASE("what is put comes back whole, private and with its digest", "[store]") {
    const Fixture f;
    CHECK(f.stored.bytes == kSourceBytes);
    CHECK(f.stored.digest == blake3_hex(read_text(f.image + "/" + kManifestName)));
    CHECK(f.nothing_incoming());
    const auto got = f.store.get(kPath, f.stored.digest, f.target);
    if (!got) FAIL(got.error().text);
    CHECK(same_tree(f.source, f.target));
    CHECK_FALSE(fs::exists(f.target + "/" + kManifestName));
    for (const std::string& top : {f.image, f.target}) {
        CHECK(fs::status(top).permissions() == fs::perms::owner_all);
        CHECK(fs::status(top + "/files").permissions() == fs::perms::owner_all);
        CHECK(fs::status(top + "/core-1.img").permissions() == (fs::perms::owner_read | fs::perms::owner_write));
    }
}

TEST_CASE("the same files have the same digest, wherever they are put", "[store]") {
    const Fixture f;
    CHECK(f.store.put(f.source, "jobs/12/2", {})->digest == f.stored.digest);
}

TEST_CASE("progress grows to the size of the image", "[store]") {
    const Fixture f;
    std::vector<std::uint64_t> told;
    REQUIRE(f.store.put(f.source, "jobs/12/2", [&](std::uint64_t bytes) { told.push_back(bytes); }));
    REQUIRE(told.size() >= 4);
    CHECK(std::ranges::is_sorted(told));
    CHECK(told.back() == kSourceBytes);
}

TEST_CASE("get() makes its target, and tells what is not there", "[store]") {
    const Fixture f;
    CHECK(f.store.get("jobs/12/9", f.stored.digest, f.target).error().code == Errc::not_found);
    CHECK_FALSE(fs::exists(f.target));
    fs::create_directory(f.target);
    write_text(f.target + "/mine", "x");
    CHECK(f.store.get(kPath, f.stored.digest, f.target).error().code == Errc::exists);
    CHECK(read_text(f.target + "/mine") == "x");
}

TEST_CASE("put() takes regular files alone and leaves nothing of what it refuses", "[store]") {
    const Fixture f;
    const std::string bad = f.directory / "bad";
    make_source(bad);
    SECTION("symbolic link") { fs::create_symlink("/etc/passwd", bad + "/link"); }
    SECTION("symbolic link to a directory") { fs::create_directory_symlink("/etc", bad + "/link"); }
    SECTION("FIFO") { REQUIRE(::mkfifo((bad + "/fifo").c_str(), 0600) == 0); }
    SECTION("a manifest") { write_text(bad + "/manifest.json", "{}"); }
    SECTION("a control character in a name") { write_text(bad + "/a\nb", "x"); }
    const auto put = f.store.put(bad, "jobs/13/1", {});
    REQUIRE_FALSE(put);
    CHECK(put.error().code == Errc::invalid);
    CHECK_FALSE(fs::exists(f.top + "/jobs/13"));
    CHECK(f.nothing_incoming());
}

TEST_CASE("put() of a source that is not there, or is a symbolic link, fails", "[store]") {
    const Fixture f;
    CHECK(f.store.put(f.directory / "none", "a", {}).error().code == Errc::not_found);
    fs::create_directory_symlink(f.source, f.directory / "link");
    CHECK_FALSE(f.store.put(f.directory / "link", "a", {}));
    CHECK_FALSE(fs::exists(f.top + "/a"));
}

TEST_CASE("a path that could lead out of the store is invalid in every call", "[store]") {
    const Fixture f;
    const std::string path =
        GENERATE(as<std::string>(), "", ".", "..", "/", "/etc", "a/../b", "../a", "a//b", "a/", "a/.", "./a", "a b", "a~old",
                 "~incoming", "a\nb", "\xc3\xa4", std::string("a\0b", 3), std::string(300, 'a'));
    INFO(path);
    CHECK(f.store.put(f.source, path, {}).error().code == Errc::invalid);
    CHECK(f.store.get(path, f.stored.digest, f.target).error().code == Errc::invalid);
    CHECK(f.store.remove(path).error().code == Errc::invalid);
    CHECK(f.store.get(kPath, f.stored.digest, f.target));
}

TEST_CASE("a symbolic link in place of a directory of the store is not followed", "[store]") {
    const Fixture f;
    const std::string outside = f.directory / "outside";
    const std::string link = GENERATE(as<std::string>(), "jobs", "jobs/12", "jobs/12/1");
    INFO(link);
    fs::rename(f.top + "/" + link, outside);
    fs::create_directory_symlink(outside, f.top + "/" + link);
    CHECK(f.store.put(f.source, kPath, {}).error().code == Errc::denied);
    CHECK(f.store.get(kPath, f.stored.digest, f.target).error().code == Errc::denied);
    CHECK(f.store.remove(kPath).error().code == Errc::denied);
    const std::string rest = std::string(kPath).substr(link.size());
    CHECK(same_tree(outside + rest, f.source));
    CHECK(fs::exists(outside + rest + "/" + kManifestName));
}

TEST_CASE("a symbolic link in place of the store's own directory is not followed", "[store]") {
    const Fixture f;
    const std::string outside = f.directory / "outside";
    fs::create_directory(outside);
    write_text(outside + "/0.lock", "");
    fs::remove_all(f.top + "/~incoming");
    fs::create_directory_symlink(outside, f.top + "/~incoming");
    CHECK(f.store.put(f.source, "a", {}).error().code == Errc::denied);
    CHECK(f.store.sweep().error().code == Errc::denied);
    CHECK(fs::exists(outside + "/0.lock"));
}

TEST_CASE("an image is replaced only once the new one is durable", "[store]") {
    const Fixture f;
    const std::string newer = f.directory / "newer";
    make_source(newer, 50);
    SECTION("the old one can be had until the last byte is copied") {
        int reads = 0;
        const auto put = f.store.put(newer, kPath, [&](std::uint64_t) {
            const std::string target = f.target + std::to_string(reads++);
            CHECK(f.store.get(kPath, f.stored.digest, target));
        });
        REQUIRE(put);
        CHECK(reads >= 4);
        REQUIRE(f.store.get(kPath, put->digest, f.target));
        CHECK(same_tree(newer, f.target));
        CHECK_FALSE(fs::exists(f.image + "~old"));
    }
    SECTION("a put that fails changes nothing") {
        REQUIRE(::mkfifo((newer + "/zz").c_str(), 0600) == 0);
        CHECK_FALSE(f.store.put(newer, kPath, {}));
        CHECK(f.store.get(kPath, f.stored.digest, f.target));
    }
    SECTION("a crash between the two renames leaves the old one to be had") {
        fs::rename(f.image, f.image + "~old");
        CHECK(f.store.get(kPath, f.stored.digest, f.target));
        const auto put = f.store.put(newer, kPath, {});
        REQUIRE(put);
        CHECK(f.store.get(kPath, put->digest, f.target + "2"));
        CHECK_FALSE(fs::exists(f.image + "~old"));
    }
    SECTION("a crash after them leaves the new one to be had, and remove() removes both") {
        fs::copy(f.image, f.image + "~old", fs::copy_options::recursive);
        CHECK(f.store.get(kPath, f.stored.digest, f.target));
        REQUIRE(f.store.remove(kPath));
        CHECK_FALSE(fs::exists(f.top + "/jobs"));
    }
}

TEST_CASE("no image in an image, and none in place of a directory of images", "[store]") {
    const Fixture f;
    CHECK(f.store.put(f.source, std::string(kPath) + "/deeper", {}).error().code == Errc::invalid);
    CHECK(f.store.put(f.source, "jobs", {}).error().code == Errc::invalid);
    CHECK(f.store.put(f.source, "jobs/12", {}).error().code == Errc::invalid);
    CHECK(f.store.get(kPath, f.stored.digest, f.target));
}

TEST_CASE("remove() takes the image and what became empty, and nothing else", "[store]") {
    const Fixture f;
    REQUIRE(f.store.put(f.source, "jobs/12/2", {}));
    REQUIRE(f.store.remove(kPath));
    CHECK_FALSE(fs::exists(f.image));
    CHECK(fs::exists(f.top + "/jobs/12/2"));
    CHECK(f.store.remove(kPath));
    CHECK(f.store.remove("never/was"));
    fs::remove(f.top + "/jobs/12/2/manifest.json");  // a remove() that was cut short
    REQUIRE(f.store.remove("jobs/12/2"));
    CHECK_FALSE(fs::exists(f.top + "/jobs"));
    CHECK(fs::exists(f.top));
}

TEST_CASE("a full file system is no_space and leaves nothing behind", "[store]") {
    if (::geteuid() != 0) SKIP("only root can mount the small tmpfs that this needs");
    const TempDir directory;
    make_source(directory / "small");
    make_source(directory / "large");
    write_text(directory / "large/zz.img", noise(6u << 20, 3));
    const std::string top = directory / "full";
    fs::create_directory(top);
    constexpr int kNoMount = 99;
    Child child([&] {  // with a mount namespace of its own, which goes with it
        if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return kNoMount;
        if (::mount("tmpfs", top.c_str(), "tmpfs", 0, "size=8m,mode=0700") != 0) return kNoMount;
        auto store = Store::open(top);
        if (!store) return 1;
        const auto old = store->put(directory / "small", "jobs/1", {});
        if (!old) return 2;
        const auto put = store->put(directory / "large", "jobs/2", {});
        if (put || put.error().code != Errc::no_space) return 3;
        if (fs::exists(top + "/jobs/2") || !fs::is_empty(top + "/~incoming")) return 4;
        const auto replaced = store->put(directory / "large", "jobs/1", {});
        if (replaced || replaced.error().code != Errc::no_space || !fs::is_empty(top + "/~incoming")) return 5;
        if (!store->get("jobs/1", old->digest, directory / "target")) return 6;
        if (!store->put(directory / "small", "jobs/2", {})) return 7;
        return 0;
    });
    const int code = child.exit_code();
    if (code == kNoMount) SKIP("this system lets root make no mount namespace");
    CHECK(code == 0);
}

TEST_CASE("sweep() leaves a put() of another process alone, and clears up after one that was killed", "[store]") {
    const Fixture f;
    int started[2], go[2];
    REQUIRE(::pipe(started) == 0);
    REQUIRE(::pipe(go) == 0);
    Child writer([&] {
        bool waited = false;
        const auto put = f.store.put(f.source, "jobs/13/1", [&](std::uint64_t) {
            if (std::exchange(waited, true)) return;
            char byte = 'x';
            if (::write(started[1], &byte, 1) != 1 || ::read(go[0], &byte, 1) != 1) ::_exit(9);
        });
        return put ? 0 : 1;
    });
    char byte = 0;
    REQUIRE(::read(started[0], &byte, 1) == 1);
    CHECK_FALSE(f.nothing_incoming());
    REQUIRE(f.store.sweep());
    CHECK_FALSE(f.nothing_incoming());
    SECTION("it goes on") {
        REQUIRE(::write(go[1], "g", 1) == 1);
        CHECK(writer.exit_code() == 0);
        CHECK(f.store.get("jobs/13/1", f.stored.digest, f.target));
    }
    SECTION("it is killed") {
        writer.kill_and_reap();
        REQUIRE(f.store.sweep());
        CHECK(f.nothing_incoming());
        CHECK_FALSE(fs::exists(f.top + "/jobs/13"));
        CHECK(f.store.put(f.source, "jobs/13/1", {}));
    }
    for (const int fd : {started[0], started[1], go[0], go[1]}) ::close(fd);
    CHECK(f.store.get(kPath, f.stored.digest, f.target + "2"));
}

TEST_CASE("a put() whose lock nobody sees fails when its directory is swept away", "[store]") {
    const Fixture f;
    const auto put = f.store.put(f.source, "jobs/13/1", [&](std::uint64_t) {
        for (const auto& entry : fs::directory_iterator(f.top + "/~incoming"))
            if (entry.path().extension() == ".lock") fs::remove(entry.path());
        CHECK(f.store.sweep());
    });
    CHECK_FALSE(put);
    CHECK_FALSE(fs::exists(f.top + "/jobs/13"));
    CHECK(f.nothing_incoming());
}

TEST_CASE("sweep() clears remains of every kind", "[store]") {
    const Fixture f;
    for (const char* name : {"0", "1.dead", "2", "2.dead"}) make_source(f.top + "/~incoming/" + name);
    write_text(f.top + "/~incoming/2.lock", "");
    write_text(f.top + "/~incoming/3.lock", "");
    REQUIRE(f.store.sweep());
    CHECK(f.nothing_incoming());
    CHECK(f.store.get(kPath, f.stored.digest, f.target));
}

TEST_CASE("threads may put and remove beside each other", "[store]") {
    const Fixture f;
    fs::create_directory(f.directory / "tiny");
    write_text(f.directory / "tiny/a", "x");
    std::vector<std::string> errors[2];
    const auto work = [&](int self) {
        for (int i = 0; i < 60; ++i) {
            const std::string path = "shared/deep/" + std::to_string(self);
            if (auto put = f.store.put(f.directory / "tiny", path, {}); !put) errors[self].push_back(put.error().text);
            if (auto removed = f.store.remove(path); !removed) errors[self].push_back(removed.error().text);
        }
    };
    std::thread first(work, 0), second(work, 1);
    first.join();
    second.join();
    for (const auto& list : errors)
        if (!list.empty()) FAIL(list.front());
    CHECK(f.nothing_incoming());
    CHECK_FALSE(fs::exists(f.top + "/shared"));
}

TEST_CASE("only a private directory of our own is a store", "[store]") {
    const TempDir directory;
    const std::string top = directory / "a/store";
    // A store that is not mounted must not come into being on the node's own disk.
    CHECK(Store::open(top).error().code == Errc::unavailable);
    CHECK_FALSE(std::filesystem::exists(top));
    open_store(top);
    REQUIRE(Store::open(top));
    CHECK(fs::status(top).permissions() == fs::perms::owner_all);
    CHECK(Store::open(top + "/"));
    SECTION("readable by others") {
        const int mode = GENERATE(0755, 0750, 0770, 0701);
        REQUIRE(::chmod(top.c_str(), static_cast<mode_t>(mode)) == 0);
        CHECK(Store::open(top).error().code == Errc::denied);
    }
    SECTION("another user's") {
        if (::geteuid() != 0) SKIP("only root can give a directory away");
        REQUIRE(::chown(top.c_str(), 12345, 0) == 0);
        CHECK(Store::open(top).error().code == Errc::denied);
    }
    SECTION("a symbolic link") {
        fs::create_directory_symlink(top, directory / "link");
        CHECK_FALSE(Store::open(directory / "link"));
        CHECK_FALSE(Store::open(directory / "link/"));
    }
    SECTION("no directory") {
        write_text(directory / "file", "x");
        CHECK_FALSE(Store::open(directory / "file"));
        CHECK(Store::open("relative").error().code == Errc::invalid);
        CHECK(Store::open("").error().code == Errc::invalid);
    }
    SECTION("opened up later") {
        const Store store = open_store(top);
        make_source(directory / "source");
        REQUIRE(::chmod(top.c_str(), 0755) == 0);
        CHECK(store.put(directory / "source", "a", {}).error().code == Errc::denied);
    }
}
