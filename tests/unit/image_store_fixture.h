// SPDX-License-Identifier: GPL-3.0-or-later
//
// A store with one image in it, for the tests of the store.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "image_store/store.h"
#include "tests/unit/image_store_tools.h"

namespace sckpt::test {

constexpr const char* kPath = "jobs/12/1";

// Makes the directory first, as an administrator does.
inline Store open_store(const std::string& directory) {
    std::filesystem::create_directories(directory);
    std::filesystem::permissions(directory, std::filesystem::perms::owner_all);
    auto store = Store::open(directory);
    if (!store) FAIL(store.error().text);
    return std::move(*store);
}

// An image as a backend leaves it: large and small files, an empty one, a log, a sub-directory.
inline void make_source(const std::string& source, std::uint64_t seed = 1) {
    std::filesystem::create_directories(source + "/files");
    write_text(source + "/pages-1.img", noise((3u << 20) + 17, seed));
    write_text(source + "/core-1.img", noise(1000, seed + 1));
    write_text(source + "/core-2.img", noise(1000, seed + 2));
    write_text(source + "/empty.img", "");
    write_text(source + "/dump.log", "all is well\n");
    write_text(source + "/files/slurm_script", "#!/bin/sh\n");
}
constexpr std::uint64_t kSourceBytes = (3u << 20) + 17 + 2000 + 12 + 10;

inline bool same_tree(const std::string& a, const std::string& b) {
    std::vector<std::string> names[2];
    for (int i = 0; i < 2; ++i) {
        const std::string& top = i == 0 ? a : b;
        for (const auto& entry : std::filesystem::recursive_directory_iterator(top))
            if (entry.is_regular_file() && entry.path().filename() != kManifestName)
                names[i].push_back(std::filesystem::relative(entry.path(), top).string());
        std::ranges::sort(names[i]);
    }
    if (names[0] != names[1]) return false;
    const auto same = [&](const std::string& name) { return read_text(a + "/" + name) == read_text(b + "/" + name); };
    return std::ranges::all_of(names[0], same);
}

// A store with the image kPath in it, and its source.
struct Fixture {
    TempDir directory;
    std::string source = directory / "source", top = directory / "store", target = directory / "target";
    Store store = open_store(top);
    std::string image = top + "/" + kPath;
    StoredImage stored;

    Fixture() {
        make_source(source);
        auto put = store.put(source, kPath, {});
        if (!put) FAIL(put.error().text);
        stored = *put;
    }
    bool nothing_incoming() const {
        const std::string incoming = top + "/~incoming";
        return !std::filesystem::exists(incoming) || std::filesystem::is_empty(incoming);
    }
};

}  // namespace sckpt::test
