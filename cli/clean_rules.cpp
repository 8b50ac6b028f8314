// SPDX-License-Identifier: GPL-3.0-or-later
//
// The limits of retention on the command line.
#include <algorithm>
#include <charconv>
#include <format>

#include "cli/clean.h"
#include "common/bytes.h"
#include "common/interval.h"

namespace sckpt::cli {
namespace {

constexpr std::int64_t kMaxKeep = 100;
constexpr std::int64_t kMaxSeconds = 3660LL * 86400;
constexpr std::uint64_t kMaxBytes = 1ULL << 60;

bool is_number(std::string_view text) {
    return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

Result<std::int64_t> count(std::string_view text) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 1 || value > kMaxKeep)
        return fail(Errc::invalid, std::format("\"{}\" is not a whole number from 1 to {}", text, kMaxKeep));
    return value;
}

// A number alone would be minutes to some and seconds to others; only 0 is the same in every unit.
Result<std::int64_t> time(std::string_view text) {
    if (text == "0" || text == "0s" || text == "0m" || text == "0h" || text == "0d") return 0;
    if (is_number(text)) return fail(Errc::invalid, std::format("\"{}\" has no unit; write for example \"12h\" or \"7d\"", text));
    SCKPT_ASSIGN(const std::int64_t seconds, parse_seconds(text));
    if (seconds > kMaxSeconds)
        return fail(Errc::invalid, std::format("\"{}\" is more than {}", text, format_seconds(kMaxSeconds)));
    return seconds;
}

Result<std::uint64_t> size(std::string_view text) {
    SCKPT_ASSIGN(const std::uint64_t bytes, parse_bytes(text));
    if (bytes > kMaxBytes) return fail(Errc::invalid, std::format("\"{}\" is more than {}", text, format_bytes(kMaxBytes)));
    return bytes;
}

using Rules = rpc::RetentionRules;

template <auto Setter, auto Parse>
Result<> set(Rules& rules, std::string_view text) {
    SCKPT_ASSIGN(const auto value, Parse(text));
    (rules.*Setter)(value);
    return {};
}

constexpr RuleOption kOptions[] = {
    {"--keep", "N", "Complete checkpoints kept of each running job", set<&Rules::set_keep, count>},
    {"--keep-success", "TIME", "How long those of a job that succeeded stay", set<&Rules::set_keep_success_seconds, time>},
    {"--keep-failed", "TIME", "How long those of a job that failed stay", set<&Rules::set_keep_failed_seconds, time>},
    {"--max-age", "TIME", "Greatest age of a checkpoint (0: any)", set<&Rules::set_max_age_seconds, time>},
    {"--max-size", "SIZE", "Greatest size of the store (0: any)", set<&Rules::set_max_bytes, size>},
    {"--user-quota", "SIZE", "The most that one user may have there (0: any)", set<&Rules::set_user_bytes, size>},
    {"--account-quota", "SIZE", "The most that one account may have there (0: any)", set<&Rules::set_account_bytes, size>},
};

}  // namespace

std::span<const RuleOption> rule_options() { return kOptions; }

}  // namespace sckpt::cli
