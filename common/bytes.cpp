// SPDX-License-Identifier: GPL-3.0-or-later
#include "common/bytes.h"

#include <charconv>
#include <cmath>
#include <format>

namespace sckpt {

std::string format_bytes(std::uint64_t bytes) {
    if (bytes < 1024) return std::format("{} B", bytes);
    double value = static_cast<double>(bytes);
    std::size_t unit = 0;
    constexpr std::string_view kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    while (value >= 1023.95 && unit + 1 < std::size(kUnits)) {  // 1023.95 would be shown as 1024.0
        value /= 1024;
        ++unit;
    }
    return std::format("{:.1f} {}", value, kUnits[unit]);
}

// Whole numbers are exact, whatever a double could hold.
Result<std::uint64_t> parse_bytes(std::string_view text) {
    const auto refused = [&] {
        return fail(Errc::invalid, std::format("\"{}\" is no size; write for example \"512M\", \"16G\" or \"1.5T\"", text));
    };
    std::string_view rest = text;
    const auto take = [&rest](auto& value, auto... format) {
        const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value, format...);
        rest.remove_prefix(static_cast<std::size_t>(end - rest.data()));
        return error == std::errc{};
    };
    std::uint64_t whole = 0;
    double fraction = 0;
    if (!take(whole)) return refused();
    const bool has_fraction = rest.starts_with('.');
    if (has_fraction && !take(fraction, std::chars_format::fixed)) return refused();

    int shift = 0;
    if (!rest.empty()) {
        const std::size_t power = std::string_view("KMGTPE").find(rest.front());
        rest.remove_prefix(1);
        if (power == std::string_view::npos || (!rest.empty() && rest != "B" && rest != "iB")) return refused();
        shift = 10 * (static_cast<int>(power) + 1);
    }
    if ((has_fraction && shift == 0) || whole >> (63 - shift) != 0) return refused();
    return (whole << shift) + static_cast<std::uint64_t>(std::ldexp(fraction, shift));
}

}  // namespace sckpt
