// SPDX-License-Identifier: GPL-3.0-or-later
//
// The store's files as names: what is listed, removed and put aside, beside others that work in the same store.
#include <algorithm>
#include <cerrno>
#include <ranges>
#include <vector>

#include <sys/stat.h>

#include <catch2/catch_template_test_macros.hpp>

#include "image_store/faulty_file_system.h"
#include "image_store/names.h"
#include "image_store/store.h"
#include "image_store/store_id.h"
#include "tests/unit/image_store_file_systems.h"

using namespace sckpt;
using namespace sckpt::test;
using Survival = MemoryFileSystem::Survival;
using Paths = std::vector<std::string>;

#define BOTH_FILE_SYSTEMS RealFiles, MemoryFiles

namespace {

void put_durably(FileSystem& files, const std::string& path, std::string_view bytes = "x") {
    REQUIRE(make_directories(files, directory_of(path)));
    put_file(files, path, bytes);
    REQUIRE(files.sync_directory(directory_of(path)));
}

Paths listed(FileSystem& files) {
    const auto list = Store(files).list();
    if (!list) FAIL(list.error().text);
    CHECK(list->unreadable.empty());
    return list->files | std::views::transform(&Store::Listed::path) | std::ranges::to<Paths>();
}

Paths names_of(FileSystem& files, const std::string& directory) {
    const auto list = files.list(directory);
    REQUIRE(list);
    return *list | std::views::transform(&DirectoryEntry::name) | std::ranges::to<Paths>();
}

const Paths kImage{"job-1-2/ckpt-1-batch-aa.manifest", "job-1-2/ckpt-1-batch-aa.pack"};
const Paths kOther{"job-1-2/ckpt-2-batch-bb.manifest", "job-1-2/ckpt-2-batch-bb.pack"};

void put_all(FileSystem& files, const Paths& paths) {
    for (const std::string& path : paths) put_durably(files, path);
}

}  // namespace

TEMPLATE_TEST_CASE("list() tells every pack and manifest, and nothing else", "[store]", BOTH_FILE_SYSTEMS) {
    TestType f;
    CHECK(listed(f.files).empty());
    const Paths ours{"job-10-1/a.manifest", "job-10-1/a.pack", "job-10-1/deeper/c.pack", "job-9-1/b.pack", "top.pack"};
    put_all(f.files, ours);
    put_all(f.files, {"quarantine/job-1-1/q.pack", "catalogue/2026.pack", "job-10-1/.nfs0001.pack", "job-10-1/notes.txt",
                      ".snapshot/job-1-1/s.pack", "lost+found/x.pack"});
    REQUIRE(f.files.make_directory("job-11-1"));
    CHECK(listed(f.files) == ours);
    const auto list = Store(f.files).list();
    CHECK(list->files.front().bytes == 1);
    CHECK(list->files.front().modified > 900'000'000);
}

TEMPLATE_TEST_CASE("a store has one identity, made once", "[store]", BOTH_FILE_SYSTEMS) {
    TestType f;
    CHECK(read_store_id(f.files).error().code == Errc::not_found);
    const auto made = make_store_id(f.files, "a \"cluster\"");
    REQUIRE(made);
    const auto found = read_store_id(f.files);
    REQUIRE(found);
    CHECK(found->id == made->id);
    CHECK(found->cluster == "a \"cluster\"");
    CHECK(make_store_id(f.files, "b").error().code == Errc::exists);
    CHECK(read_store_id(f.files)->id == made->id);
    CHECK(listed(f.files).empty());
    for (const char* text : {"", "{", "[]", "{\"id\": 1, \"cluster\": \"b\"}", "{\"id\": \"../x\", \"cluster\": \"b\"}"}) {
        REQUIRE(f.files.remove(kStoreIdFile));
        put_file(f.files, kStoreIdFile, text);
        CHECK(read_store_id(f.files).error().code == Errc::corrupt);
    }
}

TEST_CASE("a store is made once, and never where the known one should be", "[store]") {
    MemoryFileSystem files;
    CHECK(make_store(files, "c", "known").error().code == Errc::denied);
    CHECK_FALSE(read_store_id(files));
    const auto made = make_store(files, "c", "");
    REQUIRE(made);
    CHECK(made->is_new);
    for (const std::string& known : {std::string(), made->store.id}) {
        const auto again = make_store(files, "c", known);
        REQUIRE(again);
        CHECK_FALSE(again->is_new);
        CHECK(again->store.id == made->store.id);
    }
    CHECK(make_store(files, "d", "").error().code == Errc::exists);
    CHECK(make_store(files, "c", "known").error().code == Errc::exists);
}

TEST_CASE("the making of a store's identity leaves the whole of it or nothing", "[store]") {
    for (std::uint64_t at = 1;; ++at) {
        MemoryFileSystem memory;
        FaultyFileSystem files(memory);
        files.set({.calls = kChanges & ~kRemove, .at = at, .error = EIO});
        const auto made = make_store_id(files, "c");
        CHECK(made.has_value() == read_store_id(memory).has_value());
        CHECK((made || read_store_id(memory).error().code == Errc::not_found));
        if (made) break;
    }
}

TEST_CASE("list() goes on past what it cannot read, and past what is no file", "[store]") {
    RealFiles real;
    put_all(real.files, kImage);
    std::filesystem::create_symlink("ckpt-1-batch-aa.pack", real.directory / "job-1-2/ckpt-3-batch-cc.pack");
    REQUIRE(::mkfifo((real.directory / "job-1-2/ckpt-3-batch-cc.manifest").c_str(), 0600) == 0);
    CHECK(listed(real.files) == kImage);

    MemoryFileSystem memory;
    put_all(memory, kImage);
    put_durably(memory, "job-2-2/ckpt-1-batch-cc.pack");
    FaultyFileSystem files(memory);
    files.set({.calls = kList, .at = 2, .error = EIO});  // the first job's directory
    const auto list = Store(files).list();
    REQUIRE(list);
    REQUIRE(list->files.size() == 1);
    CHECK(list->files.front().path == "job-2-2/ckpt-1-batch-cc.pack");
    REQUIRE(list->unreadable.size() == 1);
    CHECK(list->unreadable.front().path == "job-1-2");
    files.set({.calls = kList, .at = 1, .error = EIO});  // the store's
    CHECK_FALSE(Store(files).list());
}

TEMPLATE_TEST_CASE("remove() takes files and directories that became empty, and nothing else", "[store]", BOTH_FILE_SYSTEMS) {
    TestType f;
    const Store store(f.files);
    put_all(f.files, kImage);
    put_all(f.files, kOther);
    put_durably(f.files, "job-2-2/ckpt-1-batch-cc.pack");
    REQUIRE(store.remove(kImage));
    CHECK(listed(f.files) == Paths{kOther[0], kOther[1], "job-2-2/ckpt-1-batch-cc.pack"});
    REQUIRE(store.remove(kImage));
    REQUIRE(store.remove(kOther));
    CHECK(names_of(f.files, "") == Paths{"job-2-2"});
    REQUIRE(store.remove(kOther));
    REQUIRE(store.remove({"never/was/there.pack"}));
    REQUIRE(store.remove({}));
    REQUIRE(store.remove({"job-2-2/ckpt-1-batch-cc.pack"}));
    CHECK(names_of(f.files, "").empty());
}

TEMPLATE_TEST_CASE("quarantine() puts files aside under their own names", "[store]", BOTH_FILE_SYSTEMS) {
    TestType f;
    const Store store(f.files);
    put_all(f.files, kImage);
    put_all(f.files, kOther);
    REQUIRE(store.quarantine({kImage[0], kImage[1], "job-1-2/missing.pack"}));
    CHECK(listed(f.files) == kOther);
    CHECK(is_there(f.files, "quarantine/" + kImage[0]));
    CHECK(is_there(f.files, "quarantine/" + kImage[1]));
    REQUIRE(store.quarantine(kImage));
    REQUIRE(store.quarantine(kOther));
    CHECK(names_of(f.files, "") == Paths{"quarantine"});
    CHECK(names_of(f.files, "quarantine/job-1-2").size() == 4);
}

TEST_CASE("a path that leads out of the store is refused before anything is done", "[store]") {
    MemoryFileSystem files;
    put_all(files, kImage);
    for (const char* path : {"../x", "/etc/passwd", "", "job-1-2/../../x", "job-1-2/a b"}) {
        CHECK(Store(files).remove({kImage[0], path}).error().code == Errc::invalid);
        CHECK(Store(files).quarantine({kImage[0], path}).error().code == Errc::invalid);
    }
    CHECK(listed(files) == kImage);
}

TEST_CASE("what was removed or put aside is so after a power failure too", "[store]") {
    MemoryFileSystem files;
    put_all(files, kImage);
    put_all(files, kOther);
    REQUIRE(Store(files).quarantine(kOther));
    REQUIRE(Store(files).remove(kImage));
    files.power_failure(Survival::none);
    CHECK(names_of(files, "") == Paths{"quarantine"});
    CHECK(names_of(files, "quarantine/job-1-2").size() == 2);
}

TEST_CASE("a remove() that was cut short is finished by the next, and never leaves a manifest without its pack", "[store]") {
    for (const Survival survival : {Survival::none, Survival::all, Survival::some}) {
        for (std::uint64_t step = 1; step < 100; ++step) {
            INFO("step " << step);
            MemoryFileSystem memory;
            put_all(memory, kImage);
            put_all(memory, kOther);
            FaultyFileSystem files(memory);
            files.set({kAllCalls, step, EIO, true});
            const auto removed = Store(files).remove({kImage[0], kOther[0], kImage[1], kOther[1]});
            REQUIRE(removed);
            CHECK(removed->empty() == !files.crashed());
            memory.power_failure(survival, step);
            for (const Paths& image : {kImage, kOther})
                if (is_there(memory, image[0])) CHECK(is_there(memory, image[1]));
            REQUIRE(Store(memory).remove({kImage[0], kOther[0], kImage[1], kOther[1]}));
            CHECK(listed(memory).empty());
            if (!files.crashed()) break;
        }
    }
}

TEST_CASE("what cannot be removed is told, and holds up nothing else", "[store]") {
    const Paths all{kImage[0], kOther[0], "job-2-2/ckpt-1-batch-cc.manifest", kImage[1], kOther[1], "job-2-2/ckpt-1-batch-cc.pack"};
    for (const unsigned kind : {kRemove, kSync}) {
        for (std::uint64_t at = 1;; ++at) {
            INFO("call " << at);
            MemoryFileSystem memory;
            put_all(memory, all);
            FaultyFileSystem files(memory);
            files.set({.calls = kind, .at = at, .error = EPERM});
            const auto unremoved = Store(files).remove(all);
            REQUIRE(unremoved);
            if (files.count() < at) {
                CHECK(unremoved->empty());
                break;
            }
            REQUIRE_FALSE(unremoved->empty());
            memory.power_failure(Survival::none);
            for (const std::string& path : all)
                if (is_there(memory, path)) CHECK(std::ranges::contains(*unremoved, path, &Store::Unremoved::path));
            CHECK(unremoved->size() <= 2);
            CHECK_FALSE(unremoved->front().why.empty());
            REQUIRE(Store(memory).remove(all)->empty());  // when it can be: with what was told, and its directory
            CHECK(names_of(memory, "").empty());
        }
    }
}

TEST_CASE("a remove() whose predecessor was killed makes durable what that one did", "[store]") {
    MemoryFileSystem files;
    put_all(files, kImage);
    for (const std::string& path : kImage) REQUIRE(files.remove(path));  // and was killed
    REQUIRE(Store(files).remove(kImage));
    files.power_failure(Survival::none);
    CHECK(listed(files).empty());
}

TEST_CASE("a quarantine() that was cut short at any step loses nothing and is finished by the next", "[store]") {
    for (std::uint64_t step = 1; step < 100; ++step) {
        INFO("step " << step);
        MemoryFileSystem memory;
        put_all(memory, kImage);
        FaultyFileSystem files(memory);
        files.set({kAllCalls, step, EIO, true});
        const auto done = Store(files).quarantine(kImage);
        CHECK(done.has_value() == !files.crashed());
        memory.power_failure(Survival::some, step);
        for (const std::string& path : kImage) CHECK(is_there(memory, path) != is_there(memory, "quarantine/" + path));
        REQUIRE(Store(memory).quarantine(kImage));
        CHECK(listed(memory).empty());
        CHECK(names_of(memory, "quarantine/job-1-2").size() == 2);
        if (!files.crashed()) break;
    }
}

TEST_CASE("a directory that gets a file just when it is to be removed stays", "[store]") {
    for (int step = 1; step < 20; ++step) {
        INFO("step " << step);
        MemoryFileSystem memory;
        put_all(memory, kImage);
        FaultyFileSystem files(memory);
        int calls = 0;
        files.set_hook([&](Call) {
            if (++calls == step && is_there(memory, kImage[1])) put_durably(memory, kOther[1]);
            else if (calls == step) put_all(memory, kOther);
        });
        REQUIRE(Store(files).remove(kImage));
        CHECK(is_there(memory, kOther[1]) == (calls >= step));
        if (calls < step) break;
    }
}

TEST_CASE("a directory that vanishes while it is listed is left out", "[store]") {
    MemoryFileSystem memory;
    put_all(memory, kImage);
    put_durably(memory, "job-2-2/ckpt-1-batch-cc.pack");
    FaultyFileSystem files(memory);
    int lists = 0;
    files.set_hook([&](Call call) {
        if (call == kList && ++lists == 2) REQUIRE(Store(memory).remove(kImage));
    });
    CHECK(listed(files) == Paths{"job-2-2/ckpt-1-batch-cc.pack"});
}
