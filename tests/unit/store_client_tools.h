// SPDX-License-Identifier: GPL-3.0-or-later
//
// A store, its key and images for the tests of StoreClient, with the real sckpt-store, as the service user where the tests run as root.
#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/store_client.h"
#include "image_store/names.h"
#include "tests/unit/image_store_tools.h"

namespace sckpt::test {

inline constexpr std::size_t kMiB = 1u << 20;
inline const std::string kThisStore = "00000000-0000-4000-8000-000000000001", kOtherStore = "00000000-0000-4000-8000-000000000002";

struct Site {
    Site() {
        REQUIRE(::chmod((top / "").c_str(), 0711) == 0);
        config.store.directory = top / "store";
        config.store.key = top / "key";
        config.store.timeout_seconds = 20;
        config.store.user = ::getpwnam("sckpt") != nullptr ? "sckpt" : "nobody";
        REQUIRE(write_key_file(config.store.key, false).has_value());
        std::filesystem::create_directory(config.store.directory);
        mark(kThisStore);
        REQUIRE(::chmod(config.store.directory.c_str(), 0700) == 0);
        if (::geteuid() == 0) REQUIRE(::chown(config.store.directory.c_str(), service()->pw_uid, service()->pw_gid) == 0);
    }
    // Makes it that store; "": none.
    void mark(const std::string& id) const {
        const std::string file = in_store(kStoreIdFile);
        std::filesystem::remove(file);
        if (id.empty()) return;
        write_text(file, "{\"id\": \"" + id + "\", \"cluster\": \"c\"}");
        if (::geteuid() == 0) REQUIRE(::chown(file.c_str(), service()->pw_uid, service()->pw_gid) == 0);
    }
    const passwd* service() const { return ::getpwnam(config.store.user.c_str()); }
    static StoreClient client(const Config& config) { return StoreClient(config, std::filesystem::read_symlink("/proc/self/exe").parent_path() / "sckpt-store"); }
    StoreClient client() const { return client(config); }
    // One whose worker is this script.
    StoreClient client(const std::string& script) const {
        write_text(top / "worker", "#!/bin/sh\n" + script + "\n");
        std::filesystem::permissions(top / "worker", std::filesystem::perms(0755));
        return StoreClient(config, top / "worker");
    }
    std::string make_image(const std::string& name, std::size_t bytes, std::uint64_t seed) const {
        const std::string directory = top / name;
        std::filesystem::create_directories(directory + "/below");
        write_text(directory + "/pages-1.img", noise(bytes, seed) + std::string(kMiB, '\0'));
        write_text(directory + "/core-1.img", noise(1000, seed + 1));
        write_text(directory + "/below/files.img", "");
        write_text(directory + "/dump.log", "not part of it");
        return directory;
    }
    static StoreClient::Drain drain_of(const std::string& image, std::int64_t row) {
        StoreClient::Drain drain;
        drain.image = image;
        drain.backend = "none";
        drain.identity.job_id = 12;
        drain.identity.uid = 1000;
        drain.identity.job_row = 7;
        drain.identity.checkpoint_row = row;
        drain.identity.task = "batch";
        drain.needs.backend = "none";
        drain.user_files = {{"/home/u/\xff out", 5, 6, true, false}};
        drain.directory = "job-12-7";
        drain.name = "ckpt-" + std::to_string(row) + "-batch";
        drain.leave_out = {"dump.log"};
        drain.threads = 2;
        return drain;
    }
    StoreClient::Fetch fetch_of(const StoredImage& image, std::int64_t row, const std::string& name = "back") const {
        return {{image.manifest, image.digest}, row, 12, 1000, top / name, {}, 2};
    }
    std::string in_store(const std::string& path) const { return config.store.directory + "/" + path; }

    TempDir top;
    Config config;
};

inline void check_same_files(const std::string& image, const std::string& back) {
    for (const char* name : {"/pages-1.img", "/core-1.img", "/below/files.img"}) CHECK(read_text(image + name) == read_text(back + name));
    CHECK_FALSE(std::filesystem::exists(back + "/dump.log"));
}

// Every file and directory of the tree is the caller's, and nobody else gets at it.
inline bool is_private(const std::string& tree) {
    const auto mine = [](const std::filesystem::path& path) {
        struct stat st {};
        return ::lstat(path.c_str(), &st) == 0 && st.st_uid == ::geteuid() && st.st_gid == ::getegid() &&
               (st.st_mode & 07777) == (S_ISDIR(st.st_mode) ? 0700 : 0600);
    };
    return mine(tree) && std::ranges::all_of(std::filesystem::recursive_directory_iterator(tree), mine, [](const auto& entry) { return entry.path(); });
}

// Says why, where a test fails for it.
template <class T>
bool good(const Result<T>& result) {
    if (!result) UNSCOPED_INFO(result.error().text);
    return result.has_value();
}

}  // namespace sckpt::test
