// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-clean: its options, and what it prints.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <string>

#include "cli/clean.h"

using namespace sckpt;
using namespace sckpt::cli;

namespace {

Result<rpc::RetentionRules> rules_with(std::string_view name, std::string_view text) {
    const auto option =
        std::ranges::find(rule_options(), name, [](const RuleOption& one) { return std::string_view(one.option); });
    REQUIRE(option != rule_options().end());
    rpc::RetentionRules rules;
    SCKPT_TRY(option->set(rules, text));
    return rules;
}

void add_usage(rpc::Usage* usage, const char* name, std::uint64_t checkpoints, std::uint64_t bytes) {
    usage->set_name(name);
    usage->set_checkpoints(checkpoints);
    usage->set_bytes(bytes);
}

rpc::ReportReply sample_report() {
    rpc::ReportReply reply;
    add_usage(reply.add_users(), "alice", 3, 5ULL << 30);
    add_usage(reply.add_users(), "bob", 40, 90ULL << 30);
    add_usage(reply.add_accounts(), "", 43, 95ULL << 30);
    add_usage(reply.mutable_total(), "", 43, 95ULL << 30);
    reply.set_store_total(10ULL << 40);
    reply.set_store_free(4ULL << 40);
    reply.set_garbage_bytes(1ULL << 30);
    rpc::Removal* removal = reply.add_removals();
    removal->set_job_id(12);
    removal->set_checkpoint(3);
    removal->set_user("bob");
    removal->set_why(
        "job 12 succeeded 2 h ago (retention.keep_success), and this reason is longer than a terminal is wide: 0123456789");
    removal->set_bytes(2ULL << 30);
    reply.add_over("user bob: 88.0 GiB of 80.0 GiB even then");
    return reply;
}

rpc::CheckProgress checked(std::uint32_t number, std::uint32_t total, bool bad, bool done = false) {
    rpc::CheckProgress progress;
    progress.set_job_id(12);
    progress.set_checkpoint(number);
    progress.set_checked(number);
    progress.set_total(total);
    progress.set_bytes(number * (1ULL << 30));
    progress.set_done(done);
    if (bad) {
        progress.add_faults("pages-1.img at 65536: a chunk does not match its hash");
        progress.add_faults("pages-1.img at 131072: a chunk does not match its hash");
        progress.set_repaired("put aside; checkpoint 12.2 is marked BAD");
    }
    return progress;
}

}  // namespace

TEST_CASE("limits on the command line: only what was given is set, and forms are those of the configuration") {
    const auto keep = rules_with("--keep", "5");
    REQUIRE(keep.has_value());
    CHECK(keep->keep() == 5);
    CHECK_FALSE(keep->has_max_age_seconds());
    CHECK(rules_with("--keep-success", "2h")->keep_success_seconds() == 7200);
    CHECK(rules_with("--keep-failed", "7d")->keep_failed_seconds() == 7 * 86400);
    CHECK(rules_with("--max-age", "0")->has_max_age_seconds());  // no limit is something else than the configuration's
    CHECK(rules_with("--max-size", "1.5T")->max_bytes() == 3ULL << 39);
    CHECK(rules_with("--user-quota", "0")->user_bytes() == 0);
    CHECK(rules_with("--account-quota", "512G")->account_bytes() == 1ULL << 39);
}

TEST_CASE("a limit that is no limit is refused with what is right") {
    for (const auto& [option, text, part] : {std::tuple{"--keep", "0", "from 1 to 100"},
                                             {"--keep", "2.5", "whole number"},
                                             {"--max-age", "30", "no unit"},
                                             {"--max-age", "soon", "not a time"},
                                             {"--max-age", "-1d", "not a time"},
                                             {"--max-age", "9999d", "more than"},
                                             {"--max-size", "big", "512M"},
                                             {"--max-size", "-1G", "no size"}}) {
        INFO(option << " " << text);
        const auto rules = rules_with(option, text);
        REQUIRE_FALSE(rules.has_value());
        CHECK(rules.error().code == Errc::invalid);
        CHECK(rules.error().text.contains(part));
    }
}

TEST_CASE("a report tells who uses what, the largest first, what would go and why") {
    const std::string text = render_report(sample_report(), {});
    INFO(text);
    for (const char* part :
         {"95.0 GiB in 43 checkpoints", "4.0 TiB free of 10.0 TiB", "even then", "a run would remove 1 checkpoint, 2.0 GiB",
          "1.0 GiB that no checkpoint needs", "12.3", "is wide: 0123456789"})
        CHECK(text.contains(part));
    CHECK(text.find("bob") < text.find("alice"));
}

TEST_CASE("a report of an empty store") {
    const std::string text = render_report({}, {});
    INFO(text);
    CHECK(text.contains("0 B in 0 checkpoints"));
    CHECK(text.contains("not known"));
    CHECK(text.contains("would remove no checkpoint\n"));
    CHECK_FALSE(text.contains("USER"));
}

TEST_CASE("what a run has done") {
    rpc::CleanProgress end;
    CHECK(render_cleaned(end) == "nothing was to be removed\n");
    end.set_checkpoints_removed(1);
    end.set_files_removed(12);
    end.set_bytes_freed(3ULL << 30);
    CHECK(render_cleaned(end) == "removed 1 checkpoint and 12 files, 3.0 GiB freed\n");
}

TEST_CASE("orphans are told by kind, with their whole names") {
    CHECK(render_orphans({}, false) == "no orphans\n");
    rpc::OrphansReply reply;
    const std::string path = "job-12-3/ckpt-1-batch-" + std::string(100, 'a') + ".pack";
    rpc::Orphan* file = reply.add_orphans();
    file->set_kind(rpc::Orphan::FILE);
    file->set_what(path);
    file->set_bytes(1ULL << 30);
    rpc::Orphan* image = reply.add_orphans();
    image->set_kind(rpc::Orphan::IMAGE);
    image->set_what("12.4\033[2J");
    image->set_done("run `sckpt-clean rebuild-catalogue`");
    const std::string text = render_orphans(reply, false);
    INFO(text);
    for (const std::string& part :
         {std::string("files in the store that no checkpoint needs (1.0 GiB)\n"), path,
          std::string("12.4?[2J: run `sckpt-clean rebuild"), std::string("2 orphans, 1.0 GiB; `sckpt-clean orphans --remove`")})
        CHECK(text.contains(part));
    CHECK_FALSE(render_orphans(reply, true).contains("--remove`"));
}

TEST_CASE("a check tells every fault, and the sum") {
    CheckState state;
    CHECK(state.update(checked(1, 3, false)).empty());
    CHECK(state.progress() == "1 of 3 images checked, 1.0 GiB");
    CHECK(state.update(checked(2, 3, true)) ==
          "checkpoint 12.2: 2 faults, the first: pages-1.img at 65536: a chunk does not match its hash");
    CHECK(state.update(checked(3, 3, false, true)).empty());
    CHECK(state.done());
    CHECK(state.faults());
    const std::string text = state.render({});
    INFO(text);
    for (const char* part :
         {"checkpoint 12.2 is not whole\n", "at 131072", "marked BAD", "3 images checked, 3.0 GiB: 1 not whole", "--repair"})
        CHECK(text.contains(part));
    CHECK_FALSE(state.render({.repair = true}).contains("--repair"));
    const auto json = state.json();
    CHECK(json["checked"] == 3);
    CHECK(json["bad"][0]["checkpoint"] == 2);
    CHECK(json["bad"][0]["faults"].size() == 2);
}

TEST_CASE("what a check cannot read is no fault, and yet not well") {
    CheckState state;
    rpc::CheckProgress progress = checked(1, 2, false);
    progress.set_unreadable("input/output error");
    CHECK(state.update(progress) == "checkpoint 12.1: it cannot be read: input/output error");
    state.update(checked(2, 2, false));
    state.update(checked(2, 2, false, true));
    CHECK(state.faults());
    const std::string text = state.render({});
    INFO(text);
    CHECK(text.contains("checkpoint 12.1 cannot be read\n  input/output error\n"));
    CHECK(text.ends_with("2 images checked, 2.0 GiB: 1 cannot be read\n"));
    CHECK(state.json()["unreadable"][0]["checkpoint"] == 1);
    CHECK(state.json()["bad"].empty());
}

TEST_CASE("a check that finds nothing says so") {
    CheckState state;
    state.update(checked(3, 3, false, true));
    CHECK_FALSE(state.faults());
    CHECK(state.render({.quick = true}) == "3 images checked (quick), 3.0 GiB: all of them are whole\n");
    CHECK(state.json()["bad"].empty());
}

TEST_CASE("what a rebuild has found") {
    rpc::RebuildProgress end;
    end.set_found(10);
    end.set_imported(7);
    CHECK(render_rebuilt(end) == "10 images in the store: 7 taken into the catalogue, 3 known already\n");
    end.set_unusable(3);
    CHECK(render_rebuilt(end) ==
          "10 images in the store: 7 taken into the catalogue, 3 not usable: `sckpt-clean orphans` names their files\n");
}

TEST_CASE("a store that was made, or was there") {
    const MadeStore made{{"1a2b", "c1"}, true};
    CHECK(render_made_store(made, "/shared/sckpt").starts_with("/shared/sckpt is now store 1a2b of cluster c1\n"));
    CHECK(render_made_store(made, "/shared/sckpt").contains("sckpt status"));
    CHECK(render_made_store({made.store, false}, "/shared/sckpt") == "/shared/sckpt is already store 1a2b of cluster c1\n");
}

TEST_CASE("a new key comes with what is to be done with it") {
    const std::string first = render_key("/etc/sckpt/sckpt.key", "1a2b3c4d", false);
    for (const char* part : {"1a2b3c4d", "every node", "0600", "scp -p /etc/sckpt/sckpt.key NODE:/etc/sckpt/sckpt.key"})
        CHECK(first.contains(part));
    CHECK(render_key("/etc/sckpt/sckpt.key", "1a2b3c4d", true).contains("leave them in"));
}
