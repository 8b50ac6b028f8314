// SPDX-License-Identifier: GPL-3.0-or-later
//
// Images and stores in memory, for the tests of what makes and reads images.
#pragma once

#include <map>
#include <string>

#include "image_store/memory_file_system.h"
#include "image_store/names.h"
#include "image_store/store.h"
#include "tests/unit/image_store_file_systems.h"

namespace sckpt::test {

using Files = std::map<std::string, std::string>;  // name → bytes

inline void make_image(FileSystem& image, const Files& files) {
    for (const auto& [name, bytes] : files) {
        REQUIRE(make_directories(image, directory_of(name)));
        put_file(image, name, bytes);
    }
}

inline Files all_files(FileSystem& image, const std::string& directory = "") {
    Files files;
    const auto entries = image.list(directory);
    REQUIRE(entries);
    for (const DirectoryEntry& entry : *entries) {
        const std::string name = directory.empty() ? entry.name : directory + "/" + entry.name;
        if (entry.directory) files.merge(all_files(image, name));
        else files[name] = contents(image, name);
    }
    return files;
}

inline SealKeys test_keys() {
    auto keys = SealKeys::parse("00112233 " + std::string(64, 'a') + "\n");
    if (!keys) FAIL(keys.error().text);
    return std::move(*keys);
}

// As who has the key and nothing to compare the head with.
inline SealFn sealed_with(const SealKeys& keys) {
    return [keys](std::string_view head, const Digest& rest) { return Result<Seal>(keys.seal({digest_of(head), rest})); };
}

// A store in memory with what a session of sckptd and the catalogue would do around it.
struct StoreBed {
    MemoryFileSystem files;
    Store store{files};
    SealKeys keys = test_keys();

    PutRequest request(const Manifest* base = nullptr) const {
        PutRequest put;
        put.identity.job_id = 4711;
        put.identity.checkpoint = 3;
        put.identity.task = "batch";
        put.directory = "job-4711-8";
        put.name = "ckpt-3-batch";
        put.base = base;
        put.seal = sealed_with(keys);
        return put;
    }
    StoredImage put(const Files& image, const PutRequest& request, int threads = 2) const {
        MemoryFileSystem source;
        make_image(source, image);
        auto stored = store.put(source, request, {.threads = threads});
        if (!stored) FAIL(stored.error().text);
        return std::move(*stored);
    }
    StoredImage put(const Files& image, const Manifest* base = nullptr) const { return put(image, request(base)); }

    Manifest open(const StoredImage& stored) {
        auto file = files.open(stored.manifest);
        REQUIRE(file);
        const auto hashes = Manifest::hash(**file);
        REQUIRE(hashes);
        CHECK(hashes->digest == stored.digest);
        auto manifest = Manifest::open(std::move(*file));
        if (!manifest) FAIL(manifest.error().text);
        CHECK(keys.verify(hashes->parts, manifest->seal));
        return std::move(*manifest);
    }
    Files get(const Manifest& manifest, int threads = 2) const {
        MemoryFileSystem target;
        if (const auto got = store.get(manifest, target, {.threads = threads}); !got) FAIL(got.error().text);
        CHECK(verify_files(manifest, target, {}, threads));
        return all_files(target);
    }
    bool is_whole(const Manifest& manifest) const {
        const auto faults = store.check(manifest, {.threads = 2});
        REQUIRE(faults);
        return faults->empty();
    }
};

}  // namespace sckpt::test
