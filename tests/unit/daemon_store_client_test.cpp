// SPDX-License-Identifier: GPL-3.0-or-later
//
// StoreClient with the real sckpt-store: images go into the store and come back, and what has been tampered with, is missing or is not the
// store that was meant is told for what it is, with nothing left behind.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/store_client_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

TEST_CASE("an image goes into the store and comes back") {
    const Site site;
    const std::string image = site.make_image("image", 3 * kMiB, 1);
    std::uint64_t told = 0;
    StoreCall call;
    call.progress = [&](std::uint64_t plain, std::uint64_t) { told = plain; };
    call.idle = true;
    CHECK(good(site.client().usable({})));
    const auto stored = site.client().drain(Site::drain_of(image, 1), call);
    REQUIRE(good(stored));
    CHECK(stored->plain_bytes == 4 * kMiB + 1000);
    CHECK(stored->new_bytes > 3 * kMiB);
    CHECK(stored->new_bytes < 3 * kMiB + 100'000);
    CHECK(stored->packs.size() == 1);
    CHECK(told <= stored->plain_bytes);
    CHECK(is_private(image));

    const auto fetched = site.client().fetch(site.fetch_of(*stored, 1), {});
    REQUIRE(good(fetched));
    check_same_files(image, site.top / "back");
    CHECK(is_private(site.top / "back"));
    REQUIRE(fetched->user_files.size() == 1);
    CHECK(fetched->user_files[0].path == "/home/u/\xff out");
    CHECK(fetched->needs.backend == "none");
    CHECK(site.client().fetch(site.fetch_of(*stored, 1), {}).error().code == Errc::exists);
    check_same_files(image, site.top / "back");

    auto local = site.fetch_of(*stored, 1, "image");
    CHECK(site.client().verify_local(local, {}).error().code == Errc::corrupt);
    local.besides = {"dump.log"};
    CHECK(site.client().verify_local(local, {}).has_value());
    write_text(image + "/core-1.img", noise(1000, 99));
    CHECK(site.client().verify_local(local, {}).error().code == Errc::corrupt);
}

TEST_CASE("what an earlier image has is not stored again; a base that is bad is done without") {
    const Site site;
    const auto first = site.client().drain(Site::drain_of(site.make_image("one", 3 * kMiB, 1), 1), {});
    REQUIRE(good(first));
    auto second = Site::drain_of(site.make_image("two", 3 * kMiB, 1), 2);
    second.base = {first->manifest, first->digest};
    const auto stored = site.client().drain(second, {});
    REQUIRE(good(stored));
    CHECK(stored->new_bytes < 100'000);
    CHECK(stored->packs[0].path == first->packs[0].path);
    REQUIRE(good(site.client().fetch(site.fetch_of(*stored, 2), {})));
    check_same_files(second.image, site.top / "back");

    second.base.digest = std::string(64, '0');
    CHECK(site.client().drain(second, {})->new_bytes > 3 * kMiB);
    second.base = {first->manifest, first->digest};
    second.identity.job_id = 13;  // another job's chunks are not for it
    CHECK(site.client().drain(second, {})->new_bytes > 3 * kMiB);
    second.base.path = "job-12-7/gone.manifest";
    CHECK(site.client().drain(second, {})->new_bytes > 3 * kMiB);
}

TEST_CASE("a manifest that is not the one, or not sealed with our key, is refused, and nothing is left of the fetch") {
    const Site site;
    const auto one = site.client().drain(Site::drain_of(site.make_image("one", kMiB, 1), 1), {});
    const auto two = site.client().drain(Site::drain_of(site.make_image("two", kMiB, 2), 2), {});
    REQUIRE(good(one));
    REQUIRE(good(two));
    const auto refused = [&](const StoreClient::Fetch& fetch) {
        const auto fetched = site.client().fetch(fetch, {});
        REQUIRE_FALSE(fetched.has_value());
        CHECK_FALSE(fs::exists(fetch.target));
        return fetched.error();
    };
    // Whole and sealed, but of another checkpoint, job or user.
    CHECK(refused(site.fetch_of(*two, 1)).code == Errc::corrupt);
    auto fetch = site.fetch_of(*one, 1);
    fetch.uid = 1001;
    CHECK(refused(fetch).text.contains("user 1000"));
    // Swapped in the store.
    fs::copy_file(site.in_store(two->manifest), site.in_store(one->manifest), fs::copy_options::overwrite_existing);
    CHECK(refused(site.fetch_of(*one, 1)).code == Errc::corrupt);
    // Changed, and the digest with it: the seal tells.
    std::string bytes = read_text(site.in_store(two->manifest));
    const auto scanned = [&] { return site.client().scan(true, {}).value(); };
    REQUIRE(scanned().images.size() == 2);
    bytes[bytes.size() / 2] ^= 1;
    write_text(site.in_store(one->manifest), bytes);
    CHECK(scanned().images.size() == 1);
    REQUIRE(scanned().unusable.size() == 1);
    CHECK(scanned().unusable[0].starts_with(one->manifest));
    // With another key.
    fs::remove(site.config.store.key);
    REQUIRE(write_key_file(site.config.store.key, false).has_value());
    CHECK(refused(site.fetch_of(*two, 2)).code == Errc::unsupported);
    const auto checked = site.client().check({{two->manifest, two->digest}}, true, 1, {});
    REQUIRE(good(checked));
    REQUIRE(checked->at(0).faults.size() == 1);
    CHECK(checked->at(0).faults[0].contains("key"));
    CHECK(scanned().images.empty());
    CHECK(scanned().unreadable.size() == 2);
}

TEST_CASE("a scan and a check go on past what cannot be read") {
    const Site site;
    const auto one = site.client().drain(Site::drain_of(site.make_image("one", kMiB, 1), 1), {});
    const auto two = site.client().drain(Site::drain_of(site.make_image("two", kMiB, 2), 2), {});
    REQUIRE(good(one));
    REQUIRE(good(two));
    REQUIRE(::chmod(site.in_store(one->manifest).c_str(), 0) == 0);
    fs::create_directory(site.in_store("job-13-8"));  // root's, where the test is root
    REQUIRE(::chmod(site.in_store("job-13-8").c_str(), 0) == 0);
    fs::create_symlink(base_of(two->manifest), site.in_store("job-12-7/ckpt-3-batch-00aa.manifest"));
    const auto scan = site.client().scan(true, {});
    REQUIRE(good(scan));
    REQUIRE(scan->images.size() == 1);
    CHECK(scan->images[0].image.manifest == two->manifest);
    CHECK(scan->files.size() == 4);
    CHECK(scan->unusable.empty());
    REQUIRE(scan->unreadable.size() == 2);
    std::set<std::string> paths;
    for (const Store::Unreadable& unreadable : scan->unreadable) paths.insert(unreadable.path);
    CHECK(paths == std::set<std::string>{"job-13-8", one->manifest});
    for (const bool quick : {true, false}) {
        const auto checked = site.client().check({{one->manifest, one->digest}, {two->manifest, two->digest}}, quick, 1, {});
        REQUIRE(good(checked));
        CHECK(checked->at(0).faults.empty());
        CHECK(checked->at(0).unreadable.contains("Permission denied"));
        CHECK(checked->at(1).faults.empty());
        CHECK(checked->at(1).unreadable.empty());
    }
}

TEST_CASE("upkeep: a scan, checks, compaction, removal, quarantine and backups") {
    const Site site;
    const auto one = site.client().drain(Site::drain_of(site.make_image("one", 2 * kMiB, 1), 1), {});
    auto changed = Site::drain_of(site.make_image("two", 2 * kMiB, 1), 2);
    REQUIRE(good(one));
    write_text(changed.image + "/pages-1.img", read_text(site.top / "one/pages-1.img").substr(0, kMiB) + noise(kMiB, 5));
    changed.base = {one->manifest, one->digest};
    const auto two = site.client().drain(changed, {});
    REQUIRE(good(two));

    const auto scan = site.client().scan(true, {});
    REQUIRE(good(scan));
    CHECK(scan->files.size() == 4);
    CHECK(scan->images.size() == 2);
    CHECK(scan->unusable.empty());
    CHECK(scan->space.total > 0);
    const auto found = std::ranges::find(scan->images, two->manifest, [](const auto& image) { return image.image.manifest; });
    REQUIRE(found != scan->images.end());
    CHECK(found->image.digest == two->digest);
    CHECK(found->image.new_bytes == two->new_bytes);
    CHECK(found->identity.checkpoint_row == 2);
    CHECK(parse_head(found->head)->identity.job_row == 7);

    const std::vector<ManifestName> both{{one->manifest, one->digest}, {two->manifest, two->digest}};
    for (const bool quick : {true, false}) {
        const auto checked = site.client().check(both, quick, 2, {});
        REQUIRE(good(checked));
        CHECK(checked->size() == 2);
        for (const auto& image : *checked) CHECK((image.faults.empty() && image.unreadable.empty()));
    }
    const auto rewritten = site.client().compact({both[1]}, {one->packs[0].path}, 2, {});
    REQUIRE(good(rewritten));
    REQUIRE(rewritten->size() == 1);
    CHECK(site.client().remove({one->manifest, two->manifest, one->packs[0].path}, {}).has_value());
    CHECK(site.client().remove({one->manifest}, {}).has_value());
    CHECK_FALSE(fs::exists(site.in_store(one->packs[0].path)));
    REQUIRE(good(site.client().fetch(site.fetch_of((*rewritten)[0], 2), {})));
    check_same_files(changed.image, site.top / "back");

    REQUIRE(fs::create_directories(site.in_store("job-12-7/no-file.pack")));  // one that cannot be removed
    const auto unremoved = site.client().remove({two->manifest, "job-12-7/no-file.pack", "job-12-7/nor-this.pack"}, {});
    REQUIRE(good(unremoved));
    REQUIRE(unremoved->size() == 1);
    CHECK(unremoved->front().path == "job-12-7/no-file.pack");
    CHECK_FALSE(unremoved->front().why.empty());

    const ManifestName left{(*rewritten)[0].manifest, (*rewritten)[0].digest};
    REQUIRE(site.client().quarantine({(*rewritten)[0].packs[0].path}, {}).has_value());
    for (const bool quick : {true, false}) CHECK(site.client().check({left, both[0]}, quick, 1, {}).value().at(0).faults.size() > 0);

    for (int number = 1; number <= 5; ++number) {
        int pieces = 3;
        const auto next = [&]() -> Result<std::string> { return pieces-- > 0 ? noise(100'000, static_cast<std::uint64_t>(number)) : ""; };
        REQUIRE(site.client().backup("catalogue-" + std::to_string(number), next, {}).has_value());
    }
    CHECK(read_text(site.in_store("catalogue/catalogue-5")).size() == 300'000);
    CHECK(std::distance(fs::directory_iterator(site.in_store("catalogue")), {}) == 3);
    Config impatient = site.config;  // each piece takes longer than the store may stand still, and comes
    impatient.store.timeout_seconds = 3;
    int pieces = 1, signs = 0;
    StoreCall call;
    call.alive = [&] { ++signs; };
    const auto late = [&]() -> Result<std::string> {
        std::this_thread::sleep_for(3200ms);
        return pieces-- > 0 ? "piece" : "";
    };
    REQUIRE(good(site.client(impatient).backup("catalogue-6", late, call)));
    CHECK(signs >= 2);
    CHECK(read_text(site.in_store("catalogue/catalogue-6")) == "piece");
    const auto broken = [&]() -> Result<std::string> { return fail(Errc::unavailable, "the connection is gone"); };
    CHECK_FALSE(site.client().backup("catalogue-7", broken, {}).has_value());
    CHECK_FALSE(fs::exists(site.in_store("catalogue/catalogue-7")));
    CHECK_FALSE(site.client().backup("../evil", broken, {}).has_value());
}

TEST_CASE("a store that is not there, or not the service user's alone, is refused with a word what to do") {
    Site site;
    const std::string image = site.make_image("image", 1000, 1);
    const auto refusal = [&] {
        const auto stored = site.client().drain(Site::drain_of(image, 1), {});
        REQUIRE_FALSE(stored.has_value());
        CHECK(stored.error().text.contains(site.config.store.directory));
        CHECK(site.client().usable({}).error().code == stored.error().code);
        CHECK(is_private(image));
        return stored.error();
    };
    REQUIRE(::chmod(site.config.store.directory.c_str(), 0750) == 0);
    CHECK(refusal().text.contains("chmod 0700"));
    REQUIRE(::chmod(site.config.store.directory.c_str(), 0700) == 0);
    if (::geteuid() == 0) {
        REQUIRE(::chown(site.config.store.directory.c_str(), 0, 0) == 0);
        CHECK(refusal().code == Errc::denied);
        REQUIRE(::chmod(site.config.store.directory.c_str(), 0755) == 0);
        CHECK(refusal().text.contains("belongs to user 0"));
    }
    site.config.store.directory = site.top / "elsewhere";
    CHECK(refusal().code == Errc::unavailable);
    CHECK(refusal().text.contains("mounted"));
    if (::geteuid() == 0) {
        site.config.store.user = "no-such-user";
        CHECK(site.client().usable({}).error().text.contains("no-such-user"));
        site.config.store.user = "root";
        CHECK(site.client().usable({}).error().code == Errc::unavailable);
    }
    fs::remove(site.config.store.key);
    CHECK(site.client().usable({}).error().code == Errc::unavailable);
    CHECK_FALSE(site.client().drain(Site::drain_of(image, 1), {}).has_value());
}

TEST_CASE("in another store than the one that was meant, or in none, nothing is done") {
    const Site site;
    const auto one = site.client().drain(Site::drain_of(site.make_image("one", kMiB, 1), 1), {.store = kThisStore});
    REQUIRE(good(one));
    const std::string two = site.make_image("two", kMiB, 2);
    const auto refused = [&](const auto& result) {
        REQUIRE_FALSE(result.has_value());
        CHECK(result.error().code == Errc::unavailable);
        CHECK(result.error().text.contains("mounted"));
        CHECK_FALSE(result.error().text.contains("install"));
    };
    const auto all_refused = [&](const StoreCall& call) {
        const std::vector<ManifestName> names{{one->manifest, one->digest}};
        refused(site.client().drain(Site::drain_of(two, 2), call));
        refused(site.client().fetch(site.fetch_of(*one, 1), call));
        refused(site.client().remove({one->manifest}, call));
        refused(site.client().quarantine({one->manifest}, call));
        refused(site.client().scan(true, call));
        refused(site.client().check(names, true, 1, call));
        refused(site.client().compact(names, {one->packs[0].path}, 1, call));
        refused(site.client().backup("catalogue-1", []() -> Result<std::string> { return ""; }, call));
        CHECK(fs::exists(site.in_store(one->manifest)));
        CHECK_FALSE(fs::exists(site.in_store("catalogue")));
        CHECK(std::distance(fs::directory_iterator(site.in_store("job-12-7")), {}) == 2);
    };
    all_refused({.store = kOtherStore});
    site.mark("");
    all_refused({.store = kThisStore});
    CHECK(site.client().usable({}).error().text.contains("make-store"));
    site.mark("nonsense");
    CHECK(site.client().usable({}).error().code == Errc::corrupt);
    site.mark(kThisStore);
    CHECK(site.client().usable({})->id == kThisStore);
    CHECK(site.client().usable({})->cluster == "c");
    CHECK(good(site.client().fetch(site.fetch_of(*one, 1), {.store = kThisStore})));
}
