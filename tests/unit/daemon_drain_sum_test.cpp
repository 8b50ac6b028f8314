// SPDX-License-Identifier: GPL-3.0-or-later
#include <catch2/catch_test_macros.hpp>

#include "daemon/drain_sum.h"

using namespace sckpt;

namespace {

rpc::Drain drain(rpc::Drain::Phase phase, std::uint64_t done, const std::string& text = "") {
    rpc::Drain drain;
    drain.set_phase(phase);
    drain.set_bytes_done(done);
    drain.set_bytes_written(done / 2);
    drain.set_bytes_per_second(10);
    drain.set_text(text);
    return drain;
}

}  // namespace

TEST_CASE("the drains of a checkpoint are told as one: their sums, and the slowest state", "[drain_sum]") {
    DrainSum sum;
    CHECK(sum.sum(100).phase() == rpc::Drain::QUEUED);
    CHECK(sum.sum(100).bytes_total() == 100);
    sum.set("n1", drain(rpc::Drain::QUEUED, 0));
    sum.set("n2", drain(rpc::Drain::COPYING, 10));
    sum.set("n2", drain(rpc::Drain::COPYING, 30));  // later news of the same
    CHECK(sum.sum(100).phase() == rpc::Drain::COPYING);
    CHECK(sum.sum(100).bytes_done() == 30);
    CHECK(sum.sum(100).bytes_written() == 15);
    CHECK(sum.sum(100).bytes_per_second() == 20);
    sum.set("n1", drain(rpc::Drain::WAITING, 0, "the store is full"));
    CHECK(sum.sum(100).phase() == rpc::Drain::WAITING);
    CHECK(sum.sum(100).text() == "n1: the store is full");
    sum.forget("n2");
    CHECK(sum.sum(100).text() == "the store is full");
    CHECK(sum.sum(100).bytes_done() == 0);
    rpc::Drain urgent = drain(rpc::Drain::COPYING, 1);
    urgent.set_urgent(true);
    sum.set("n1", urgent);
    CHECK(sum.sum(100).urgent());
    CHECK(sum.sum(100).phase() == rpc::Drain::COPYING);
    sum.forget("n1");
    sum.forget("n1");
    CHECK_FALSE(sum.sum(100).urgent());
    CHECK(sum.sum(100).phase() == rpc::Drain::QUEUED);
}
