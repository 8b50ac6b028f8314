// SPDX-License-Identifier: GPL-3.0-or-later
#include <catch2/catch_test_macros.hpp>

#include "backend/criu/record.h"

using namespace sckpt;
using namespace sckpt::criu;

namespace {

ImageRecord example() {
    ImageRecord record;
    record.uid = 1000;
    record.root = 4711;
    record.groups = {1000, 27};
    record.ids = {4711, 4712};
    record.streams[0] = {"pipe:[99]", "", "", 99, 0, 0, false, false};
    record.streams[1] = record.streams[2] = {"file[1c:2a]", "file[1d:2a]", "/home/u/out", 42, 100, 100, true, true};
    record.files = {{"/home/u/data \xff\xc3\xa4\n\"", 7, 1ULL << 40, false, false}};
    record.script = "/var/spool/slurmd/job00012/slurm_script";
    record.directories = {"/home/u"};
    return record;
}

}  // namespace

TEST_CASE("a record comes back as it was written, with paths that are not text") {
    const ImageRecord record = example();
    const auto again = parse_record(to_text(record));
    REQUIRE(again);
    CHECK(again->uid == record.uid);
    CHECK(again->root == record.root);
    CHECK(again->groups == record.groups);
    CHECK(again->ids == record.ids);
    CHECK(again->script == record.script);
    CHECK(again->directories == record.directories);
    REQUIRE(again->files.size() == 1);
    CHECK(again->files[0].path == record.files[0].path);
    CHECK(again->files[0].size == record.files[0].size);
    CHECK(again->streams[0].resource == "pipe:[99]");
    CHECK(again->streams[2].append);
}

TEST_CASE("what is no record of ours is corrupt, never half read") {
    const std::string whole = to_text(example());
    for (std::size_t length = 0; length + 2 < whole.size(); length += 7) {
        const auto cut = parse_record(whole.substr(0, length));
        REQUIRE_FALSE(cut);
        CHECK(cut.error().code == Errc::corrupt);
    }
    CHECK_FALSE(parse_record("[]"));
    CHECK(parse_record(R"({"version": 2})").error().code == Errc::unsupported);  // nothing is known against it
    CHECK_FALSE(parse_record(R"({"version": "1", "uid": 1})"));
}

TEST_CASE("the report has the output once, marked as the task's own") {
    const auto files = reported_files(example());
    REQUIRE(files.size() == 2);
    CHECK_FALSE(files[0].stdio);
    CHECK(files[1].stdio);
    CHECK(files[1].path == "/home/u/out");
}
