// SPDX-License-Identifier: GPL-3.0-or-later
//
// What sckptd keeps of an image beside it, what it finds out about a node, and how large a dump will be.
#include <unistd.h>
#include <catch2/catch_test_macros.hpp>
#include <string>

#include "daemon/dump_size.h"
#include "daemon/held_part.h"
#include "daemon/image_needs.h"

using namespace sckpt;

namespace {

HeldImage image_of(const std::string& task) {
    HeldImage image;
    image.identity.cluster = "bed";
    image.identity.user = "user1";
    image.identity.task = task;
    image.identity.job_id = 4711;
    image.identity.uid = 1001;
    image.identity.checkpoint_row = 88;
    image.identity.checkpoint = 3;
    image.identity.created = 1'700'000'000;
    image.identity.max_restarts = -1;
    image.user_files = {{std::string("/home/user1/\xff\xe4 \"out\"\n.dat"), 12, (1ull << 63) + 5, true, false}};
    image.name = "ckpt-3-" + task;
    image.base = {"job-4711-2/ckpt-2-" + task + "-0.manifest", "ab12"};
    image.bytes = 123456789;
    return image;
}

HeldPart example() {
    HeldPart part;
    part.needs = {"criu", "4.2.1", "x86_64", "6.12.0", {"avx2", "sse4_2"}};
    part.store = "00000000-0000-4000-8000-000000000001";
    part.directory = "job-4711-2";
    part.images = {image_of("batch"), image_of("0.3")};
    part.urgent = true;
    return part;
}

}  // namespace

TEST_CASE("a part's record comes back as it was, whatever bytes its paths have", "[held_part]") {
    HeldPart part = example();
    const auto first = parse_held_part(to_text(part));
    REQUIRE(first);
    CHECK(first->fast_name() == "ckpt-88");
    CHECK(first->bytes() == 2 * 123456789);
    CHECK(first->store == part.store);
    CHECK(first->urgent);
    CHECK_FALSE(first->acknowledged);
    CHECK_FALSE(first->stored());
    CHECK(first->needs.cpu_flags == part.needs.cpu_flags);
    REQUIRE(first->images.size() == 2);
    const HeldImage& task = first->images[1];
    CHECK(task.identity.task == "0.3");
    CHECK(task.identity.user == "user1");
    CHECK(task.identity.max_restarts == -1);
    CHECK(task.name == "ckpt-3-0.3");
    CHECK(task.base.path == part.images[1].base.path);
    REQUIRE(task.user_files.size() == 1);
    CHECK(task.user_files[0].path == part.images[1].user_files[0].path);
    CHECK(task.user_files[0].size == part.images[1].user_files[0].size);
    CHECK(task.user_files[0].append);

    part.images[1].stored = StoredImage{"job-4711-2/a.manifest", std::string(64, 'c'), 100, 20, {{"job-4711-2/a.pack", 19, 18}}};
    part.acknowledged = true;
    const auto second = parse_held_part(to_text(part));
    REQUIRE(second);
    CHECK_FALSE(second->images[0].stored);
    REQUIRE(second->images[1].stored);
    CHECK(second->images[1].stored->manifest == "job-4711-2/a.manifest");
    REQUIRE(second->images[1].stored->packs.size() == 1);
    CHECK(second->images[1].stored->packs[0].used == 18);
    CHECK_FALSE(second->stored());
    CHECK(second->acknowledged);
    part.images[0].stored = part.images[1].stored;
    CHECK(part.stored());
}

TEST_CASE("a record that is cut short or of another kind is no record", "[held_part]") {
    const std::string text = to_text(example());
    for (std::size_t length = 0; length < text.size(); length += 7) CHECK_FALSE(parse_held_part(text.substr(0, length)));
    for (const char* other : {"{}", "[]", "7", R"({"identity": 3, "needs": [], "user_files": {}})"}) CHECK_FALSE(parse_held_part(other));
    std::string wrong = text;
    wrong.replace(wrong.find("\"job_id\":4711") + 9, 4, "-711");
    CHECK_FALSE(parse_held_part(wrong));
    HeldPart part = example();
    part.images[1].identity.checkpoint_row = 89;
    CHECK_FALSE(parse_held_part(to_text(part)));
    part.images.clear();
    CHECK_FALSE(parse_held_part(to_text(part)));
    // what one image of an older sckptd was described by
    CHECK_FALSE(parse_held_part(R"({"head":{},"directory":"d","name":"n","base":"","base_digest":"","bytes":1,"urgent":false,"acknowledged":false})"));
}

TEST_CASE("the processor's features are those of its first core, sorted", "[image_needs]") {
    CHECK(cpu_flags("processor\t: 0\nflags\t\t: sse fpu avx2\nbugs\t: none\nprocessor: 1\nflags\t: other\n") ==
          std::vector<std::string>{"avx2", "fpu", "sse"});
    CHECK(cpu_flags("processor\t: 0\nFeatures\t: fp asimd\n") == std::vector<std::string>{"asimd", "fp"});
    CHECK(cpu_flags("nothing").empty());
    const ImageNeeds needs = image_needs({true, "criu", "4.2.1", "", {}});
    CHECK(needs.backend == "criu");
    CHECK_FALSE(needs.kernel.empty());
    CHECK_FALSE(needs.architecture.empty());
}

TEST_CASE("a dump is expected to be as large as the memory of the tree, or as the last one", "[dump_size]") {
    CHECK(kilobytes_in("Name:\tx\nRssAnon:\t    1024 kB\nRssShmem:\t 8 kB\n", "RssAnon") == 1024 * 1024);
    CHECK(kilobytes_in("Name:\tRssAnon: 5\n", "RssAnon") == 0);
    std::string memory(64u << 20, 'x');
    const auto measured = expected_dump_bytes(getpid(), 0);
    REQUIRE(measured);
    CHECK(*measured > memory.size());
    const auto last = expected_dump_bytes(getpid(), 1ull << 40);
    REQUIRE(last);
    CHECK(*last > (1ull << 40));
}
