// SPDX-License-Identifier: GPL-3.0-or-later
//
// The words about an image on its way into the store, the same in create, list, show and watch.
#include <format>

#include "cli/verbs.h"

namespace sckpt::cli {
namespace {

std::string copying(const rpc::Drain& drain) {
    std::string text = std::format("storing, {} of {}", format_bytes(drain.bytes_done()), format_bytes(drain.bytes_total()));
    if (drain.bytes_per_second() == 0) return text;
    text += std::format(", {}/s", format_bytes(drain.bytes_per_second()));
    if (drain.bytes_total() <= drain.bytes_done()) return text;
    const std::uint64_t left = (drain.bytes_total() - drain.bytes_done()) / drain.bytes_per_second() + 1;
    return text + std::format(", {} left", format_age(static_cast<std::int64_t>(left)));
}

}  // namespace

std::string drain_text(const rpc::Drain& drain) {
    switch (drain.phase()) {
        case rpc::Drain::QUEUED: return drain.urgent() ? "to be stored next" : "waiting for its turn to be stored";
        case rpc::Drain::COPYING: return copying(drain);
        case rpc::Drain::WAITING: return drain.text().empty() ? "waiting for the store" : "waiting: " + drain.text();
        default: return "to be stored";
    }
}

std::string drain_news(const rpc::Drain& drain) { return drain.phase() == rpc::Drain::COPYING ? "storing" : drain_text(drain); }

}  // namespace sckpt::cli
