// SPDX-License-Identifier: GPL-3.0-or-later
//
// The fast tier: who gets room, who waits, who has to go; and the tmpfs itself, in a mount namespace of the test's own.
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "common/fd.h"
#include "daemon/fast_tier.h"

using namespace sckpt;
using namespace std::chrono_literals;

namespace {

constexpr std::uint64_t kKib = 1024;

struct Tier {
    std::string top;
    std::vector<std::string> evicted;
    FastTier tier;

    explicit Tier(std::uint64_t bytes)
        : top(make()),
          tier(top, bytes,
               {[](const std::string& path) { return remove_tree(path); }, [this](const std::string& name) { evicted.push_back(name); }}) {}
    ~Tier() { std::filesystem::remove_all(top); }
    static std::string make() {
        std::string path = (std::filesystem::temp_directory_path() / "sckpt-tier.XXXXXX").string();
        REQUIRE(mkdtemp(path.data()) != nullptr);
        return path;
    }
    // An image of that size, as a dump leaves it.
    void write(const std::string& name, std::uint64_t bytes) {
        REQUIRE(make_directories(tier.directory(name), 0700));
        std::ofstream(tier.directory(name) + "/pages-1.img") << std::string(bytes, 'x');
        std::ofstream(tier.state_file(name)) << "{}";
    }
    void put(const std::string& name, std::uint64_t bytes) {
        auto room = tier.reserve(name, bytes, FastTier::Clock::now());
        REQUIRE(room);
        write(name, bytes);
        room->keep();
    }
    bool is_there(const std::string& name) const { return std::filesystem::exists(tier.directory(name)); }
};

}  // namespace

TEST_CASE("what can never fit is refused at once, with both sizes", "[fast_tier]") {
    Tier t(1024 * kKib);
    const auto begin = FastTier::Clock::now();
    const auto room = t.tier.reserve("ckpt-1", 2048 * kKib, begin + 1h);
    REQUIRE(!room);
    CHECK(room.error().code == Errc::no_space);
    CHECK(room.error().text.contains("about 2.0 MiB"));
    CHECK(room.error().text.contains("has 1.0 MiB (node.fast_tier_size)"));
    CHECK(FastTier::Clock::now() - begin < 10min);
}

TEST_CASE("a reservation that grows waits for room like a new one, and can be cancelled", "[fast_tier]") {
    Tier t(1024 * kKib);
    auto room = t.tier.reserve("ckpt-1", 300 * kKib, FastTier::Clock::now());
    REQUIRE(room);
    REQUIRE(room->grow(300 * kKib, FastTier::Clock::now()));
    CHECK(t.tier.used() == 600 * kKib);
    const auto full = room->grow(500 * kKib, FastTier::Clock::now());
    REQUIRE(!full);
    CHECK(full.error().code == Errc::no_space);
    CHECK(t.tier.used() == 600 * kKib);
    Result<> cancelled;
    std::jthread waiting([&] { cancelled = room->grow(500 * kKib, FastTier::Clock::now() + 1h); });
    std::atomic<bool> ended = false;
    std::jthread canceller([&] {
        while (!ended) t.tier.cancel("ckpt-1");  // until it has begun to wait
    });
    waiting.join();
    ended = true;
    REQUIRE(!cancelled);
    CHECK(cancelled.error().code == Errc::busy);
}

TEST_CASE("a reservation that is not kept leaves nothing", "[fast_tier]") {
    Tier t(1024 * kKib);
    {
        const auto room = t.tier.reserve("ckpt-1", 1000 * kKib, FastTier::Clock::now());
        REQUIRE(room);
        CHECK(t.tier.used() == 1000 * kKib);
        t.write("ckpt-1", 10);
        CHECK_FALSE(t.tier.read("ckpt-1"));  // not whole
        const auto twice = t.tier.reserve("ckpt-1", 1, FastTier::Clock::now());
        REQUIRE(!twice);
        CHECK(twice.error().code == Errc::exists);
    }
    CHECK(t.tier.used() == 0);
    CHECK_FALSE(t.is_there("ckpt-1"));
    CHECK_FALSE(std::filesystem::exists(t.tier.state_file("ckpt-1")));
}

TEST_CASE("an image that is kept takes what it really uses", "[fast_tier]") {
    Tier t(1024 * kKib);
    auto room = t.tier.reserve("ckpt-1", 900 * kKib, FastTier::Clock::now());
    REQUIRE(room);
    t.write("ckpt-1", 100 * kKib);
    room->keep();
    CHECK(t.tier.used() >= 100 * kKib);
    CHECK(t.tier.used() <= 108 * kKib);
    CHECK(t.tier.bytes_of("ckpt-1") == t.tier.used());
    CHECK(t.is_there("ckpt-1"));
}

TEST_CASE("stored images make room, the oldest first and no more than needed", "[fast_tier]") {
    Tier t(1024 * kKib);
    t.put("ckpt-1", 300 * kKib);
    t.put("ckpt-2", 300 * kKib);
    t.put("ckpt-3", 300 * kKib);
    t.tier.may_evict("ckpt-3", 300);
    t.tier.may_evict("ckpt-1", 200);
    t.tier.may_evict("ckpt-2", 100);
    const auto room = t.tier.reserve("ckpt-4", 350 * kKib, FastTier::Clock::now());
    REQUIRE(room);
    CHECK(t.evicted == std::vector<std::string>{"ckpt-2"});
    CHECK_FALSE(t.is_there("ckpt-2"));
    CHECK_FALSE(std::filesystem::exists(t.tier.state_file("ckpt-2")));
    CHECK(t.is_there("ckpt-1"));
}

TEST_CASE("what is not stored stays, and so does the cache when its going would not help", "[fast_tier]") {
    Tier t(1024 * kKib);
    t.put("ckpt-1", 600 * kKib);
    t.put("ckpt-2", 300 * kKib);
    t.tier.may_evict("ckpt-2", 1);
    const auto room = t.tier.reserve("ckpt-3", 500 * kKib, FastTier::Clock::now() + 20ms);
    REQUIRE(!room);
    CHECK(room.error().code == Errc::no_space);
    CHECK(room.error().text.contains("full of images that are not yet stored"));
    CHECK(t.is_there("ckpt-1"));
    CHECK(t.is_there("ckpt-2"));
}

TEST_CASE("an image that is read stays until the reader has gone", "[fast_tier]") {
    Tier t(1024 * kKib);
    t.put("ckpt-1", 800 * kKib);
    t.tier.may_evict("ckpt-1", 1);
    auto reader = t.tier.read("ckpt-1");
    REQUIRE(reader);
    CHECK_FALSE(t.tier.reserve("ckpt-2", 800 * kKib, FastTier::Clock::now() + 10ms));
    CHECK(t.is_there("ckpt-1"));
    std::jthread waiting([&] { CHECK(t.tier.reserve("ckpt-3", 800 * kKib, FastTier::Clock::now() + 1min)); });
    std::jthread dropping([&] { CHECK(t.tier.remove("ckpt-1")); });
    CHECK(t.is_there("ckpt-1"));
    reader.reset();
    waiting.join();
    dropping.join();
    CHECK_FALSE(t.is_there("ckpt-1"));
}

TEST_CASE("who waits goes on when room is made, and ends when cancelled", "[fast_tier]") {
    Tier t(1024 * kKib);
    t.put("ckpt-1", 800 * kKib);
    std::jthread waits([&] { CHECK(t.tier.reserve("ckpt-2", 800 * kKib, FastTier::Clock::now() + 1min)); });
    CHECK(t.tier.remove("ckpt-1"));
    waits.join();
    t.put("ckpt-3", 800 * kKib);
    std::atomic<bool> ended = false;
    std::jthread cancelled([&] {
        const auto room = t.tier.reserve("ckpt-4", 800 * kKib, FastTier::Clock::now() + 1min);
        REQUIRE(!room);
        CHECK(room.error().code == Errc::busy);
        ended = true;
    });
    while (!ended) {  // it may not be waiting yet
        t.tier.cancel("ckpt-4");
        std::this_thread::yield();
    }
}

TEST_CASE("what an earlier daemon left is counted", "[fast_tier]") {
    Tier t(1024 * kKib);
    t.write("ckpt-7", 500 * kKib);
    t.tier.adopt("ckpt-7");
    CHECK(t.tier.used() >= 500 * kKib);
    CHECK_FALSE(t.tier.reserve("ckpt-8", 600 * kKib, FastTier::Clock::now()));
    t.tier.may_evict("ckpt-7", 1);
    CHECK(t.tier.reserve("ckpt-8", 600 * kKib, FastTier::Clock::now()));
    CHECK(t.evicted == std::vector<std::string>{"ckpt-7"});
}

namespace {

// In a child with a mount namespace of its own; its exit code is the line that failed, modulo 256.
#define NEED(condition)                              \
    do {                                             \
        if (!(condition)) _exit(__LINE__ % 255 + 1); \
    } while (false)

[[noreturn]] void mount_and_look(const std::string& path) {
    NEED(unshare(CLONE_NEWNS) == 0);
    NEED(mount(nullptr, "/", nullptr, MS_PRIVATE | MS_REC, nullptr) == 0);
    const auto first = mount_fast_tier(path, 64u << 20);
    NEED(first && first->bytes == 64u << 20);
    struct stat status {};
    NEED(stat(path.c_str(), &status) == 0 && (status.st_mode & 07777) == 0700 && status.st_uid == 0);
    std::ofstream(path + "/kept") << "x";
    const auto mounts = read_file("/proc/self/mounts");
    NEED(mounts && mounts->contains(path + " tmpfs rw,nosuid,nodev,noexec"));
    // an earlier daemon's is kept, at the size that is configured now
    const auto again = mount_fast_tier(path, 96u << 20);
    NEED(again && again->bytes == 96u << 20 && again->notes.empty());
    NEED(std::filesystem::exists(path + "/kept"));
    // too small for what is in it: as it was, and said
    { std::ofstream(path + "/much") << std::string(40u << 20, 'x'); }
    const auto small = mount_fast_tier(path, 8u << 20);
    NEED(small && small->bytes == 96u << 20 && small->notes.size() == 1);
    // something else is mounted there
    NEED(mkdir((path + "/other").c_str(), 0700) == 0 && mount("proc", (path + "/other").c_str(), "proc", 0, nullptr) == 0);
    NEED(!mount_fast_tier(path + "/other", 8u << 20));
    _exit(0);
}

}  // namespace

TEST_CASE("the tmpfs is mounted, kept, resized, or refused", "[fast_tier]") {
    if (geteuid() != 0) SKIP("mounts need root");
    const std::string path = Tier::make();
    const pid_t child = fork();
    if (child == 0) mount_and_look(path);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
    std::filesystem::remove_all(path);
}
