// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a node makes of one checkpoint: who waits for what, and which word counts.
#include <catch2/catch_test_macros.hpp>
#include <sys/stat.h>
#include <unistd.h>
#include <cstdlib>
#include <string>
#include <thread>

#include "common/fd.h"
#include "daemon/node_part.h"

using namespace sckpt;
using namespace std::chrono_literals;
using Until = NodePart::Until;

namespace {

struct Tier {
    std::string path;
    std::unique_ptr<FastTier> tier;
    Tier() {
        char name[] = "/tmp/sckpt-part-XXXXXX";
        REQUIRE(::mkdtemp(name) != nullptr);
        path = name;
        tier = std::make_unique<FastTier>(path, 1u << 20, FastTier::Hooks{[](const std::string& directory) { return remove_tree(directory); }, {}});
    }
    ~Tier() { (void)remove_tree(path); }
    Tier(const Tier&) = delete;
    Tier& operator=(const Tier&) = delete;
    bool has(const std::string& name) const { return ::access((path + "/" + name).c_str(), F_OK) == 0; }
};

rpc::DumpOrder order_for(bool script) {
    rpc::DumpOrder order;
    order.set_checkpoint_id(5);
    order.set_script(script);
    order.set_directory("job-1-1");
    return order;
}

HeldImage image_of(const std::string& task) {
    HeldImage image;
    image.identity.task = task;
    image.identity.checkpoint_row = 5;
    return image;
}

rpc::ReleaseOrder release_of(std::uint32_t images) {
    rpc::ReleaseOrder order;
    order.set_checkpoint_id(5);
    order.set_images(images);
    order.set_leader("batch");
    return order;
}

}  // namespace

TEST_CASE("a script and tasks are one part, and the last one out takes it", "[node_part]") {
    const Tier tier;
    NodePart part(5, *tier.tier);
    CHECK(part.begin(order_for(true)));
    CHECK_FALSE(part.begin(order_for(true)));  // ordered twice
    REQUIRE(part.make_room(1000, FastTier::Clock::now()));
    CHECK(part.begin(order_for(false)));
    REQUIRE(part.make_room(2000, FastTier::Clock::now()));
    CHECK(tier.tier->used() == 3000);
    CHECK_FALSE(part.wait(Until::script_may_go, 0ms));
    part.script_may_go();
    CHECK(part.wait(Until::script_may_go, 0ms));
    CHECK_FALSE(part.wait(Until::decided, 0ms));
    part.add(image_of("0.0"));
    part.add(image_of("batch"));
    part.release(release_of(7));
    CHECK(part.wait(Until::decided, 0ms));
    CHECK_FALSE(part.leave());
    CHECK(part.leave());
    const auto outcome = part.outcome();
    REQUIRE(outcome);
    REQUIRE(*outcome);
    CHECK((*outcome)->images.size() == 2);
    CHECK((*outcome)->images[0].identity.images == 7);
    CHECK((*outcome)->directory == "job-1-1");
    part.keep();
    CHECK(tier.has("ckpt-5"));
}

TEST_CASE("the first word counts", "[node_part]") {
    const Tier tier;
    NodePart released(5, *tier.tier), dropped(6, *tier.tier);
    REQUIRE(released.begin(order_for(false)));
    released.release(release_of(1));
    CHECK_FALSE(released.fail({Errc::io, "too late"}));  // no news: but nothing comes of it
    CHECK(released.wanted());
    CHECK(released.released());
    CHECK_FALSE(released.outcome());

    REQUIRE(dropped.begin(order_for(false)));
    REQUIRE(dropped.make_room(1000, FastTier::Clock::now()));
    CHECK(tier.has("ckpt-6"));
    CHECK(dropped.fail({Errc::io, "the first reason"}));
    CHECK_FALSE(dropped.fail({Errc::io, "another"}));
    dropped.release(release_of(1));
    CHECK_FALSE(dropped.released());
    CHECK(dropped.wait(Until::script_may_go, 0ms));
    CHECK(dropped.wanted().error().text == "the first reason");
    CHECK(dropped.outcome().error().text == "the first reason");
    dropped.discard();
    CHECK_FALSE(tier.has("ckpt-6"));
    CHECK(tier.tier->used() == 0);
}

TEST_CASE("without sckptctld nothing is waited for that it cannot say any more", "[node_part]") {
    const Tier tier;
    NodePart half(5, *tier.tier), whole(6, *tier.tier), released(7, *tier.tier);
    REQUIRE(half.begin(order_for(true)));
    REQUIRE(half.begin(order_for(false)));
    half.reported();  // of the two one
    half.connection_lost();
    CHECK(half.wait(Until::decided, 0ms));
    CHECK(half.wanted().error().code == Errc::unavailable);

    REQUIRE(whole.begin(order_for(false)));
    whole.reported();
    whole.connection_lost();
    CHECK_FALSE(whole.wait(Until::decided, 0ms));
    CHECK(whole.wanted());

    REQUIRE(released.begin(order_for(true)));
    released.add(image_of("batch"));
    released.release(release_of(1));
    released.connection_lost();
    CHECK(released.wanted());
    CHECK(released.outcome());
}

TEST_CASE("a part whose tasks had all ended has no image", "[node_part]") {
    const Tier tier;
    NodePart part(5, *tier.tier);
    REQUIRE(part.begin(order_for(false)));
    part.release(release_of(1));
    const auto outcome = part.outcome();
    REQUIRE(outcome);
    CHECK_FALSE(*outcome);
}

TEST_CASE("who waits is woken, and urgency is not forgotten", "[node_part]") {
    const Tier tier;
    NodePart part(5, *tier.tier);
    REQUIRE(part.begin(order_for(false)));
    part.add(image_of("0.0"));
    part.make_urgent();
    bool woken = false;
    std::jthread waiting([&] { woken = part.wait(Until::decided, 1h); });
    part.release(release_of(1));
    waiting.join();
    CHECK(woken);
    CHECK((*part.outcome())->urgent);
}
