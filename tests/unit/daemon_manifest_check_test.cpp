// SPDX-License-Identifier: GPL-3.0-or-later
//
// What is sealed: a head that says what was ordered, in every member, and nothing else.
#include "daemon/manifest_check.h"

#include <functional>

#include <catch2/catch_test_macros.hpp>
#include <nlohmann/json.hpp>

using namespace sckpt;
using Json = nlohmann::json;

namespace {

const Digest kRest = digest_of("table");

SealKeys some_keys() { return *SealKeys::parse("00112233 " + std::string(64, 'a') + "\n"); }

Manifest some_image() {
    Manifest image;
    image.identity = {"cluster", "user1", "account", "n1",          "batch", 4711, 1001, 1'700'000'000, 2, 8,
                      15,        3,       1,         1'700'000'100, 900,     3,    250};
    image.needs = {"criu", "4.2.1", "x86_64", "6.18", {"avx2", "fma"}};
    image.user_files = {{"/home/user1/out", 78, 5, true, false}};
    image.files = {{"pages-1.img", 100'000, 0, 2}};
    image.packs = {{"job-4711-8/ckpt-3-batch-0123456789abcdef.pack", 5000, 4000}};
    image.chunk_count = 2;
    image.plain_bytes = 100'000;
    image.chunk_size = 65536;
    return image;
}

std::string changed(const std::function<void(Json&)>& change) {
    Json head = Json::parse(head_text(some_image()));
    change(head);
    return head.dump();
}

Result<Seal> sealed(SealScope scope, const std::string& head) { return seal_as_ordered(some_keys(), some_image(), scope, head, kRest); }

}  // namespace

TEST_CASE("what was ordered is sealed, over the head as it was shown", "[manifest_check]") {
    for (const SealScope scope : {SealScope::whose, SealScope::image}) {
        const std::string head = head_text(some_image());
        const auto seal = sealed(scope, head);
        REQUIRE(seal);
        CHECK(some_keys().verify({digest_of(head), kRest}, *seal));
        CHECK_FALSE(some_keys().verify({digest_of(head + " "), kRest}, *seal));
        const auto packs = [](Json& json) { json["packs"][0]["path"] = "job-4711-8/ckpt-9-batch-0123456789abcdef.pack"; };
        CHECK(sealed(scope, changed(packs)));  // which the catalogue judges
    }
}

TEST_CASE("another identity is not sealed, whichever member of it is another", "[manifest_check]") {
    const Json identity = Json::parse(head_text(some_image()))["identity"];
    CHECK(identity.size() == 19);
    for (const auto& [name, value] : identity.items()) {
        INFO(name);
        const auto change = [&](Json& head) {
            Json& member = head["identity"][name];
            if (value.is_array()) member = Json::array({{{"task", "0.9"}, {"wait_status", 0}}});
            else member = value.is_string() ? Json("other") : Json(value.get<std::uint64_t>() + 1);
        };
        for (const SealScope scope : {SealScope::whose, SealScope::image}) {
            const auto seal = sealed(scope, changed(change));
            REQUIRE_FALSE(seal);
            CHECK(seal.error().code == Errc::denied);
        }
    }
    CHECK(sealed(SealScope::whose, changed([](Json& head) { head["identity"]["job_id"] = 12; })).error().text.contains("of job 12"));
}

TEST_CASE("other needs or files of the user are not sealed, and no other image at a compaction", "[manifest_check]") {
    const auto refused = [](SealScope scope, const std::function<void(Json&)>& change) { CHECK_FALSE(sealed(scope, changed(change))); };
    refused(SealScope::whose, [](Json& head) { head["needs"]["cpu_flags"] = Json::array(); });
    refused(SealScope::whose, [](Json& head) { head["needs"]["backend"] = "none"; });
    refused(SealScope::whose, [](Json& head) { head["user_files"][0]["size"] = 0; });
    refused(SealScope::whose, [](Json& head) { head["user_files"] = Json::array(); });
    const auto renamed = [](Json& head) { head["files"][0]["name"] = "pages-2.img"; };
    CHECK(sealed(SealScope::whose, changed(renamed)));  // before a drain nobody knows what its files are cut into
    refused(SealScope::image, renamed);
    refused(SealScope::image, [](Json& head) { head["chunk_size"] = 8192; });
}

TEST_CASE("what is no head is not sealed", "[manifest_check]") {
    for (const char* head : {"", "{}", "[]", "no JSON"}) CHECK_FALSE(sealed(SealScope::whose, head));
    CHECK_FALSE(sealed(SealScope::whose, changed([](Json& head) { head["format"] = 2; })));
    CHECK_FALSE(seal_as_ordered(some_keys(), Manifest(), SealScope::image, head_text(some_image()), kRest));  // none was verified before
}
