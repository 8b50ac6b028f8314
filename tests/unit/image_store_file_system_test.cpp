// SPDX-License-Identifier: GPL-3.0-or-later
//
// The three file systems: that the kernel's and the one in memory do the same, that no name leads out of the kernel's, what is
// durable in memory, and that the faulty one fails where it is told to.
#include "image_store/file_system.h"

#include <algorithm>
#include <cerrno>
#include <thread>
#include <vector>

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <catch2/catch_template_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "image_store/faulty_file_system.h"
#include "image_store/image_tree.h"
#include "tests/unit/image_store_file_systems.h"

using namespace sckpt;
using namespace sckpt::test;
namespace fs = std::filesystem;
using Survival = MemoryFileSystem::Survival;

#define BOTH_FILE_SYSTEMS RealFiles, MemoryFiles

TEMPLATE_TEST_CASE("a file gives back what was written at any place", "[files]", BOTH_FILE_SYSTEMS) {
    TestType f;
    const auto file = f.files.create("a");
    REQUIRE(file);
    CHECK((*file)->size() == 0u);
    REQUIRE((*file)->write_at(3, as_bytes("def")));
    REQUIRE((*file)->write_at(0, as_bytes("ab")));
    REQUIRE((*file)->write_at(6, {}));
    CHECK((*file)->size() == 6u);
    std::string read(10, 'x');
    CHECK((*file)->read_at(1, std::as_writable_bytes(std::span(read))) == 5u);
    CHECK(read == std::string("b\0defxxxxx", 10));
    CHECK((*file)->read_at(6, std::as_writable_bytes(std::span(read))) == 0u);
    CHECK((*file)->read_at(99, std::as_writable_bytes(std::span(read))) == 0u);
    REQUIRE((*file)->truncate(8));
    REQUIRE((*file)->sync());
    CHECK(contents(f.files, "a") == std::string("ab\0def\0\0", 8));
    REQUIRE((*file)->truncate(1));
    (*file)->start_writing(0, 1);
    CHECK(contents(f.files, "a") == "a");
}

TEMPLATE_TEST_CASE("a file that was opened cannot be written", "[files]", BOTH_FILE_SYSTEMS) {
    TestType f;
    put_file(f.files, "a", "text");
    const auto file = f.files.open("a");
    REQUIRE(file);
    CHECK_FALSE((*file)->write_at(0, as_bytes("x")));
    CHECK_FALSE((*file)->truncate(0));
    CHECK(contents(f.files, "a") == "text");
}

TEMPLATE_TEST_CASE("names come, move and go", "[files]", BOTH_FILE_SYSTEMS) {
    TestType f;
    CHECK(f.files.open("a").error().code == Errc::not_found);
    CHECK(f.files.open("d/a").error().code == Errc::not_found);
    CHECK(f.files.create("d/a").error().code == Errc::not_found);
    REQUIRE(f.files.make_directory("d"));
    CHECK(f.files.make_directory("d"));
    CHECK(f.files.make_directory("e/f").error().code == Errc::not_found);
    put_file(f.files, "d/a", "1");
    CHECK(f.files.create("d/a").error().code == Errc::exists);
    CHECK(f.files.make_directory("d/a").error().code == Errc::invalid);
    CHECK(f.files.open("d").error().code == Errc::invalid);
    CHECK(f.files.remove("d").error().code == Errc::invalid);
    CHECK(f.files.open("d/a/b").error().code == Errc::invalid);
    CHECK(f.files.remove_directory("d").error().code == Errc::busy);
    put_file(f.files, "b", "2");
    REQUIRE(f.files.rename("d/a", "b"));
    CHECK(contents(f.files, "b") == "1");
    CHECK(f.files.rename("d/a", "b").error().code == Errc::not_found);
    CHECK(f.files.rename("b", "e/b").error().code == Errc::not_found);
    REQUIRE(f.files.remove("b"));
    CHECK(f.files.remove("b").error().code == Errc::not_found);
    REQUIRE(f.files.remove_directory("d"));
    CHECK(f.files.remove_directory("d").error().code == Errc::not_found);
    CHECK(f.files.sync_directory("d").error().code == Errc::not_found);
    CHECK(f.files.list("d").error().code == Errc::not_found);
    CHECK(f.files.sync_directory(""));
    CHECK(f.files.list("")->empty());
}

TEMPLATE_TEST_CASE("list() tells names, kinds, sizes and times in order", "[files]", BOTH_FILE_SYSTEMS) {
    TestType f;
    for (const char* name : {"c", "a", "b"}) put_file(f.files, name, std::string(3, *name));
    REQUIRE(f.files.make_directory("aa"));
    const auto listed = f.files.list("");
    REQUIRE(listed);
    std::vector<std::string> names;
    for (const DirectoryEntry& entry : *listed) {
        names.push_back(entry.name);
        CHECK(entry.directory == (entry.name == "aa"));
        CHECK(entry.bytes == (entry.directory ? 0u : 3u));
        CHECK(entry.modified > 900'000'000);
    }
    CHECK(names == std::vector<std::string>{"a", "aa", "b", "c"});
}

TEMPLATE_TEST_CASE("make_directories() makes what is missing, read_whole() has a limit", "[files]", BOTH_FILE_SYSTEMS) {
    TestType f;
    REQUIRE(make_directories(f.files, "a/b/c"));
    REQUIRE(make_directories(f.files, "a/b/c"));
    REQUIRE(make_directories(f.files, ""));
    put_file(f.files, "a/b/c/file", "12345");
    CHECK(read_whole(f.files, "a/b/c/file", 5) == "12345");
    CHECK(read_whole(f.files, "a/b/c/file", 4).error().code == Errc::invalid);
    CHECK(read_whole(f.files, "a/b/c/none", 4).error().code == Errc::not_found);
    CHECK(make_directories(f.files, "a/b/c/file/d").error().code == Errc::invalid);
}

TEMPLATE_TEST_CASE("threads may write one file at different places, and read it", "[files]", BOTH_FILE_SYSTEMS) {
    TestType f;
    const auto file = f.files.create("a");
    REQUIRE(file);
    const std::string part = noise(64u << 10, 7);
    const auto work = [&](unsigned self) {
        for (std::uint64_t i = 0; i < 8; ++i) static_cast<void>((*file)->write_at((2 * i + self) * part.size(), as_bytes(part)));
    };
    std::thread first(work, 0), second(work, 1);
    first.join();
    second.join();
    std::string expected;
    for (int i = 0; i < 16; ++i) expected += part;
    CHECK(contents(f.files, "a") == expected);
}

TEST_CASE("what is made below a real directory is private", "[files]") {
    RealFiles f;
    const mode_t before = ::umask(0);
    put_file(f.files, "a", "");
    REQUIRE(f.files.make_directory("d"));
    ::umask(before);
    CHECK(fs::status(f.directory / "a").permissions() == (fs::perms::owner_read | fs::perms::owner_write));
    CHECK(fs::status(f.directory / "d").permissions() == fs::perms::owner_all);
}

TEST_CASE("no name leads out of a real directory", "[files]") {
    const TempDir directory;
    fs::create_directories(directory / "top/d");
    fs::create_directory(directory / "outside");
    write_text(directory / "outside/file", "secret");
    write_text(directory / "file", "secret");
    const auto files = real_files(directory / "top");
    SECTION("by ..") {
        const std::string path =
            GENERATE(as<std::string>(), "../file", "d/../../file", "..", ".", "", "d/..", "/file", "d//file");
        INFO(path);
        CHECK_FALSE(files->open(path));
        CHECK_FALSE(files->create(path));
        CHECK_FALSE(files->remove(path));
        CHECK_FALSE(files->remove_directory(path));
        CHECK_FALSE(files->make_directory(path));
        CHECK_FALSE(files->rename("d", path));
    }
    SECTION("from the root of the system") { CHECK_FALSE(files->open(directory / "file")); }
    SECTION("by a link to a directory") {
        const std::string link = GENERATE(as<std::string>(), "link", "d/link");
        fs::create_directory_symlink(directory / "outside", directory / ("top/" + link));
        CHECK(files->open(link + "/file").error().code == Errc::denied);
        CHECK(files->create(link + "/new").error().code == Errc::denied);
        CHECK(files->make_directory(link).error().code == Errc::denied);
        CHECK(files->make_directory(link + "/new").error().code == Errc::denied);
        CHECK(files->remove(link + "/file").error().code == Errc::denied);
        CHECK(files->rename(link + "/file", "d/file").error().code == Errc::denied);
        CHECK(files->sync_directory(link).error().code == Errc::denied);
        CHECK(files->list(link).error().code == Errc::denied);
        CHECK(make_directories(*files, link + "/new/newer").error().code == Errc::denied);
    }
    SECTION("by a link to a file") {
        fs::create_symlink("../file", directory / "top/link");
        CHECK(files->open("link").error().code == Errc::denied);
        CHECK(files->create("link").error().code == Errc::exists);
        CHECK(std::ranges::count(*files->list(""), true, &DirectoryEntry::odd) == 1);
        CHECK(files->remove("link"));
    }
    SECTION("by a link to what is not there") {
        fs::create_symlink(directory / "new", directory / "top/link");
        CHECK_FALSE(files->create("link"));
    }
    CHECK(read_text(directory / "file") == "secret");
    CHECK(read_text(directory / "outside/file") == "secret");
    CHECK(std::distance(fs::directory_iterator(directory / "outside"), {}) == 1);
    CHECK_FALSE(fs::exists(directory / "new"));
}

TEST_CASE("what is no regular file is not opened, and does not block", "[files]") {
    RealFiles f;
    REQUIRE(::mkfifo((f.directory / "fifo").c_str(), 0600) == 0);
    CHECK(f.files.open("fifo").error().code == Errc::invalid);
    REQUIRE(f.files.list("")->size() == 1);
    CHECK(f.files.list("")->front().odd);
    CHECK(image_files(f.files).error().code == Errc::invalid);  // an image has none
    CHECK(f.files.open("fifo/x").error().code == Errc::invalid);
}

TEST_CASE("a full file system is no_space", "[files]") {
    const std::string megabyte = noise(1u << 20, 3);
    const auto fills_up = [&](FileSystem& files) {
        const auto small = files.create("small");
        if (!small || !(*small)->write_at(0, as_bytes("kept")) || !(*small)->sync()) return 1;
        const auto large = files.create("large");
        if (!large) return 2;
        for (std::uint64_t i = 0; i < 16; ++i) {
            const auto written = (*large)->write_at(i * megabyte.size(), as_bytes(megabyte));
            if (written) continue;
            const auto space = files.space(), after = files.remove("large") ? files.space() : space;
            if (written.error().code != Errc::no_space) return 3;
            if (!space || space->total == 0 || space->free > megabyte.size() || !after) return 4;
            if (const auto kept = read_whole(files, "small", 100); !kept || *kept != "kept") return 5;
            return i > 2 ? 0 : 6;
        }
        return 7;
    };
    SECTION("in memory") {
        MemoryFileSystem files(8u << 20);
        CHECK(fills_up(files) == 0);
    }
    SECTION("the kernel's") {
        if (::geteuid() != 0) SKIP("only root can mount the small tmpfs that this needs");
        constexpr int kNoMount = 99;
        const TempDir directory;
        Child child([&] {  // with a mount namespace of its own, which goes with it
            if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return kNoMount;
            if (::mount("tmpfs", (directory / ".").c_str(), "tmpfs", 0, "size=8m,mode=0700") != 0) return kNoMount;
            auto top = open_file(directory / ".", O_RDONLY | O_DIRECTORY);
            if (!top) return 98;
            return fills_up(*real_file_system(std::move(*top)));
        });
        const int code = child.exit_code();
        if (code == kNoMount) SKIP("this system lets root make no mount namespace");
        CHECK(code == 0);
    }
}

// ---- in memory: what a power failure leaves ----

TEST_CASE("after a power failure there is what was made durable", "[files]") {
    MemoryFileSystem files;
    REQUIRE(make_directories(files, "d"));
    put_file(files, "d/named", "old");
    REQUIRE(files.sync_directory("d"));
    put_file(files, "d/unnamed", "new");       // synced, but not its name
    const auto open = files.create("d/empty");  // named, but not synced
    REQUIRE(open);
    REQUIRE(files.sync_directory("d"));
    REQUIRE((*open)->write_at(0, as_bytes("lost")));
    put_file(files, "d/last", "x");
    REQUIRE(files.remove("d/named"));
    const auto survival = GENERATE(Survival::none, Survival::all);
    files.power_failure(survival);
    const bool all = survival == Survival::all;
    CHECK(is_there(files, "d/named") == !all);
    CHECK(contents(files, "d/unnamed") == "new");
    CHECK(contents(files, "d/empty") == (all ? "lost" : ""));
    CHECK(is_there(files, "d/last") == all);
    REQUIRE((*open)->write_at(0, as_bytes("from the dead")));
    CHECK(contents(files, "d/empty") == (all ? "lost" : ""));
    const auto left = *files.list("d");
    files.power_failure(Survival::none);  // nothing is undecided any more
    CHECK(files.list("d")->size() == left.size());
}

TEST_CASE("a file is not there when the directory that it is in is not", "[files]") {
    MemoryFileSystem files;
    REQUIRE(files.make_directory("d"));
    put_file(files, "d/a", "x");
    REQUIRE(files.sync_directory("d"));
    files.power_failure(Survival::none);
    CHECK(files.list("")->empty());
}

TEST_CASE("what was not durable survives in every mixture, each write and name on its own", "[files]") {
    std::vector<std::string> seen;
    int both = 0, neither = 0, removed = 0;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        MemoryFileSystem files;
        put_file(files, "old", "x");
        const auto a = files.create("a");
        REQUIRE((*a)->write_at(0, as_bytes("1111")));
        REQUIRE((*a)->sync());
        REQUIRE(files.sync_directory(""));
        REQUIRE((*a)->write_at(0, as_bytes("22")));
        REQUIRE((*a)->write_at(2, as_bytes("33")));
        REQUIRE(files.rename("old", "new"));
        put_file(files, "c", "");
        files.power_failure(Survival::some, seed);
        seen.push_back(contents(files, "a"));
        CHECK(is_there(files, "old") != is_there(files, "new"));
        removed += is_there(files, "new");
        both += is_there(files, "new") && is_there(files, "c");
        neither += is_there(files, "old") && !is_there(files, "c");
    }
    for (const char* expected : {"1111", "2211", "2111", "1133", "1131", "2233", "2231", "2133"})
        CHECK(std::ranges::contains(seen, expected));
    CHECK((both > 20 && neither > 20 && removed > 60 && removed < 140));
}

TEST_CASE("an older change does not come back over a newer one that is durable", "[files]") {
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        MemoryFileSystem files;
        REQUIRE(files.make_directory("d"));
        REQUIRE(files.sync_directory(""));
        put_file(files, "a", "old");
        put_file(files, "d/b", "new");
        REQUIRE(files.rename("d/b", "a"));
        REQUIRE(files.sync_directory("d"));  // takes the rename with it
        files.power_failure(Survival::some, seed);
        CHECK(contents(files, "a") == "new");
        CHECK(files.list("d")->empty());
    }
}

TEST_CASE("damage stays, and time is the test's", "[files]") {
    MemoryFileSystem files;
    files.set_time(1'700'000'000);
    put_file(files, "a", "xyz");
    REQUIRE(files.sync_directory(""));
    REQUIRE(files.damage("a", 1));
    CHECK_FALSE(files.damage("a", 3));
    files.power_failure(Survival::none);
    CHECK(contents(files, "a") == "xxz");
    CHECK(files.list("")->front().modified == 1'700'000'000);
}

// ---- faults ----

TEST_CASE("the N-th call of a kind fails, once", "[files]") {
    MemoryFileSystem memory;
    FaultyFileSystem files(memory);
    const auto [error, code] = GENERATE(table<int, Errc>({{ENOSPC, Errc::no_space}, {EIO, Errc::io}}));
    files.set({kWrite | kSync, 3, error, false});
    const auto file = files.create("a");
    REQUIRE(file);
    CHECK((*file)->write_at(0, as_bytes("ab")));
    CHECK((*file)->sync());
    CHECK((*file)->write_at(2, as_bytes("cdef")).error().code == code);
    CHECK(contents(memory, "a") == "abcd");
    CHECK((*file)->write_at(2, as_bytes("xy")));
    CHECK(files.sync_directory(""));
    CHECK(files.count() == 5);
    CHECK_FALSE(files.crashed());
    CHECK(contents(memory, "a") == "abxy");
}

TEST_CASE("after a crash nothing reaches the disk", "[files]") {
    MemoryFileSystem memory;
    FaultyFileSystem files(memory);
    put_file(files, "old", "1");
    const auto open = files.create("open");
    files.set({kChanges, 2, EIO, true});
    CHECK(files.make_directory("d"));
    CHECK_FALSE(files.remove("old"));
    CHECK(files.crashed());
    CHECK_FALSE((*open)->write_at(0, as_bytes("x")));
    CHECK_FALSE((*open)->sync());
    CHECK_FALSE((*open)->size());
    CHECK_FALSE(files.open("old"));
    CHECK_FALSE(files.create("new"));
    CHECK_FALSE(files.rename("old", "d/old"));
    CHECK_FALSE(files.sync_directory(""));
    CHECK_FALSE(files.remove_directory("d"));
    CHECK_FALSE(files.list(""));
    CHECK_FALSE(files.space());
    CHECK(contents(memory, "old") == "1");
    CHECK(contents(memory, "open").empty());
    CHECK(memory.list("")->size() == 3);
    files.set({});
    CHECK(files.remove("old"));
}

TEST_CASE("a hook runs before every call, and may change things itself", "[files]") {
    MemoryFileSystem memory;
    FaultyFileSystem files(memory);
    std::vector<Call> calls;
    files.set_hook([&](Call call) {
        calls.push_back(call);
        if (call == kCreate) REQUIRE(files.remove_directory("d"));
    });
    REQUIRE(files.make_directory("d"));
    CHECK(files.create("d/a").error().code == Errc::not_found);
    CHECK(files.list("")->empty());
    CHECK(calls == std::vector<Call>{kMakeDirectory, kCreate, kRemove, kList});
}
