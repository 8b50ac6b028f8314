// SPDX-License-Identifier: GPL-3.0-or-later
//
// Times as Slurm's users write them. The forms with ':' and '-' are those of sbatch(1), --time, and as there a field may be
// above its usual range (1:99 is 159 seconds). What Slurm only tolerates (1-, -5) is refused: here it is more likely a slip.
#include "common/interval.h"

#include <charconv>
#include <format>
#include <optional>

namespace sckpt {

namespace {

constexpr std::int64_t kMinute = 60, kHour = 3600, kDay = 86400;
constexpr std::string_view kForms = "write 30s, 15m, 2h or 1d, or as for sbatch --time: minutes, minutes:seconds, "
                                    "hours:minutes:seconds, days-hours, days-hours:minutes, days-hours:minutes:seconds";

// Takes "digits" and the character after them from the front of the text; the character is 0 at the end of the text.
struct Field {
    std::int64_t value;
    char next;
};
std::optional<Field> take_field(std::string_view& text) {
    if (text.empty() || text[0] < '0' || text[0] > '9') return std::nullopt;  // from_chars would take a minus sign
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{}) return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    if (text.empty()) return Field{value, '\0'};
    const char next = text[0];
    if (next == '\0') return std::nullopt;  // a NUL within the text is not its end
    text.remove_prefix(1);
    return Field{value, next};
}

// total + value * unit, or nothing where it does not fit.
std::optional<std::int64_t> add(std::int64_t total, std::int64_t value, std::int64_t unit) {
    std::int64_t product = 0, sum = 0;
    if (__builtin_mul_overflow(value, unit, &product) || __builtin_add_overflow(total, product, &sum)) return std::nullopt;
    return sum;
}

std::optional<std::int64_t> unit_of(char letter) {
    switch (letter) {
        case 's': return 1;
        case 'm': return kMinute;
        case 'h': return kHour;
        case 'd': return kDay;
        default: return std::nullopt;
    }
}

// The fields after the first; `first` counts `units[0]` seconds, the one after it `units[1]`, …
std::optional<std::int64_t> sum_fields(std::string_view text, Field field, std::initializer_list<std::int64_t> units,
                                       std::int64_t total) {
    for (const std::int64_t* unit = units.begin(); unit != units.end(); ++unit) {
        const auto sum = add(total, field.value, *unit);
        if (!sum) return std::nullopt;
        total = *sum;
        if (field.next == '\0') return total;
        if (field.next != ':' || unit + 1 == units.end()) return std::nullopt;
        const auto following = take_field(text);
        if (!following) return std::nullopt;
        field = *following;
    }
    return std::nullopt;
}

std::optional<std::int64_t> parse(std::string_view text) {
    std::string_view rest = text;
    const auto first = take_field(rest);
    if (!first) return std::nullopt;
    if (const auto unit = unit_of(first->next)) return rest.empty() ? add(0, first->value, *unit) : std::nullopt;
    if (first->next == '-') {
        const auto days = add(0, first->value, kDay);
        const auto hours = take_field(rest);
        return days && hours ? sum_fields(rest, *hours, {kHour, kMinute, 1}, *days) : std::nullopt;
    }
    const bool with_hours = text.find(':') != text.rfind(':');
    return with_hours ? sum_fields(rest, *first, {kHour, kMinute, 1}, 0) : sum_fields(rest, *first, {kMinute, 1}, 0);
}

}  // namespace

Result<std::int64_t> parse_seconds(std::string_view text) {
    const auto seconds = parse(text);
    if (!seconds) return fail(Errc::invalid, std::format("\"{}\" is not a time: {}", text, kForms));
    if (*seconds == 0) return fail(Errc::invalid, std::format("\"{}\" is no time at all: it must be at least 1s", text));
    return *seconds;
}

std::string format_seconds(std::int64_t seconds) {
    if (seconds >= kDay) {
        const auto days = seconds / kDay, rest = seconds % kDay;
        return rest == 0 ? std::format("{}d", days)
                         : std::format("{}-{:02}:{:02}:{:02}", days, rest / kHour, rest % kHour / kMinute, rest % kMinute);
    }
    if (seconds > 0 && seconds % kHour == 0) return std::format("{}h", seconds / kHour);
    if (seconds > 0 && seconds % kMinute == 0) return std::format("{}m", seconds / kMinute);
    if (seconds >= kHour) return std::format("{}:{:02}:{:02}", seconds / kHour, seconds % kHour / kMinute, seconds % kMinute);
    return std::format("{}s", seconds);
}

Result<CkptOption> parse_ckpt_option(const char* text) {
    if (text == nullptr) return CkptOption{};
    if (std::string_view(text) == "manual") return CkptOption{CkptOption::Mode::manual, 0};
    const auto seconds = parse_seconds(text);
    if (!seconds)
        return fail(Errc::invalid,
                    std::format("--ckpt={}: {}; or \"manual\" for checkpoints on request only", text, seconds.error().text));
    if (*seconds < kMinIntervalSeconds || *seconds > kMaxIntervalSeconds)
        return fail(Errc::invalid, std::format("--ckpt={}: the interval must be from {} to {}", text,
                                               format_seconds(kMinIntervalSeconds), format_seconds(kMaxIntervalSeconds)));
    return CkptOption{CkptOption::Mode::interval, *seconds};
}

}  // namespace sckpt
