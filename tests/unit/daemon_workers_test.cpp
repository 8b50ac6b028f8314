// SPDX-License-Identifier: GPL-3.0-or-later
//
// Workers: each strand in its order and one piece at a time, however many threads there are; slow work holds up its own strand alone.
#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <latch>
#include <stdexcept>

#include "daemon/workers.h"

using namespace sckpt;

TEST_CASE("the work of a strand is done in its order, one piece at a time", "[workers]") {
    constexpr int kStrands = 20, kPieces = 500;
    struct Sender {
        std::shared_ptr<Workers::Strand> strand;
        std::atomic<int> at_work = 0;
        std::vector<int> done;
    };
    std::atomic<int> overlaps = 0;
    std::latch all(kStrands * kPieces);
    std::vector<Sender> senders(kStrands);
    Workers workers(3, 2);
    for (Sender& sender : senders) sender.strand = workers.strand();
    for (int piece = 0; piece < kPieces; ++piece)
        for (Sender& sender : senders)
            sender.strand->post(piece % 3 == 0 ? Lane::slow : Lane::quick, [&, piece] {
                if (++sender.at_work != 1) ++overlaps;
                sender.done.push_back(piece);
                --sender.at_work;
                all.count_down();
            });
    all.wait();
    CHECK(overlaps == 0);
    for (const Sender& sender : senders) {
        REQUIRE(sender.done.size() == kPieces);
        CHECK(std::ranges::is_sorted(sender.done));
    }
}

TEST_CASE("slow work of many holds up no quick work of others", "[workers]") {
    std::latch slow_ones(2), let_go(1), quick_done(100);
    Workers workers(1, 2);
    std::vector<std::shared_ptr<Workers::Strand>> strands;
    std::atomic<bool> after_slow = false;
    for (int i = 0; i < 10; ++i) {  // more than there are threads for
        strands.push_back(workers.strand());
        strands.back()->post(Lane::slow, [&, i] {
            if (i < 2) slow_ones.count_down();
            let_go.wait();
        });
    }
    slow_ones.wait();
    strands[0]->post(Lane::quick, [&] { after_slow = true; });
    const auto other = workers.strand();
    for (int i = 0; i < 100; ++i) other->post(Lane::quick, [&] { quick_done.count_down(); });
    quick_done.wait();
    CHECK_FALSE(after_slow);  // of the strand whose slow work is not done
    CHECK(strands[0]->waiting() == 2);
    let_go.count_down();
    while (!after_slow) std::this_thread::yield();
}

TEST_CASE("work that throws costs nothing but itself; what waits at the end is let go", "[workers]") {
    const auto token = std::make_shared<int>(1);
    std::shared_ptr<Workers::Strand> strand;
    {
        std::latch after(1);
        Workers workers(1, 1);
        strand = workers.strand();
        strand->post(Lane::quick, [] { throw std::runtime_error("on purpose"); });
        strand->post(Lane::quick, [&] { after.count_down(); });
        after.wait();
    }
    strand->post(Lane::quick, [token] { FAIL("there are no workers any more"); });
    CHECK(strand->waiting() >= 1);
}
