// SPDX-License-Identifier: GPL-3.0-or-later
#include "cli/output.h"

#include <sys/ioctl.h>
#include <unistd.h>
#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <format>

namespace sckpt::cli {
namespace {

constexpr std::size_t kMinLastColumn = 8;

bool starts_character(char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }
// Characters, not bytes: one column each is near enough for names and numbers.
std::size_t columns_of(std::string_view text) { return static_cast<std::size_t>(std::ranges::count_if(text, starts_character)); }

std::string painted(const std::string& text, Colour colour, bool colours) {
    if (!colours || colour == Colour::none) return text;
    return std::format("\033[{}m{}\033[0m", colour == Colour::good ? 32 : 31, text);
}

std::string row_text(const std::vector<Cell>& row, const std::vector<Column>& columns, const std::vector<std::size_t>& widths,
                     bool colours) {
    std::string line;
    for (std::size_t i = 0; i < columns.size(); ++i) {
        const std::string text = i + 1 == columns.size() ? shorten(row[i].text, widths[i]) : row[i].text;
        const std::string padding(widths[i] - std::min(widths[i], columns_of(text)), ' ');
        const std::string shown = painted(text, row[i].colour, colours);
        if (i > 0) line += "  ";
        line += columns[i].align == Align::right ? padding + shown : shown + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    return line + "\n";
}

}  // namespace

View make_view() {
    View view;
    view.now = std::time(nullptr);
    if (!isatty(STDOUT_FILENO)) return view;
    winsize size{};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) view.width = size.ws_col;
    const char* no_color = std::getenv("NO_COLOR");
    const char* term = std::getenv("TERM");
    view.colour = !(no_color && *no_color) && term && std::string_view(term) != "dumb";
    return view;
}

std::string format_age(std::int64_t seconds) {
    if (seconds < 60) return std::format("{}s", std::max<std::int64_t>(seconds, 0));  // two hosts' clocks differ a little
    if (seconds < 3600) return std::format("{}m", seconds / 60);
    if (seconds < 86400) return std::format("{}h{}m", seconds / 3600, seconds / 60 % 60);
    return std::format("{}d{}h", seconds / 86400, seconds / 3600 % 24);
}

std::string format_time(std::int64_t unix_seconds) {
    if (unix_seconds == 0) return "-";
    const std::time_t time = unix_seconds;
    std::tm local{};
    char text[32];
    if (!localtime_r(&time, &local) || std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &local) == 0) return "-";
    return text;
}

std::string format_milliseconds(std::uint32_t ms) { return std::format("{:.2f} s", ms / 1000.0); }

std::string counted(std::uint64_t number, std::string_view what) { return std::format("{} {}{}", number, what, number == 1 ? "" : "s"); }

std::string printable(std::string_view text) {
    std::string result;
    result.reserve(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) {
        const unsigned char c = static_cast<unsigned char>(text[i]);
        const bool c1 = c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;  // U+0080 to U+009F
        if (c1) ++i;
        result += c < 0x20 || c == 0x7f || c1 ? '?' : text[i];
    }
    return result;
}

std::string shorten(std::string_view text, std::size_t width) {
    if (columns_of(text) <= width) return std::string(text);
    const std::size_t keep = width > 3 ? width - 3 : 0;
    std::size_t end = 0, seen = 0;
    for (; end < text.size(); ++end)
        if (starts_character(text[end]) && seen++ == keep) break;
    return std::string(text.substr(0, end)) + "...";
}

void Table::add(std::vector<Cell> row) {
    row.resize(columns_.size());
    for (Cell& cell : row) cell.text = printable(cell.text);
    rows_.push_back(std::move(row));
}

std::string Table::text(const View& view, std::string_view indent) const {
    std::vector<std::size_t> widths;
    std::vector<Cell> titles;
    for (const Column& column : columns_) {
        widths.push_back(columns_of(column.title));
        titles.push_back({column.title});
    }
    for (const auto& row : rows_)
        for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], columns_of(row[i].text));
    std::size_t others = indent.size();
    for (std::size_t i = 0; i + 1 < widths.size(); ++i) others += widths[i] + 2;
    const std::size_t width = static_cast<std::size_t>(std::max(view.width, 0));
    widths.back() = std::min(widths.back(), std::max(width > others ? width - others : 0, kMinLastColumn));

    std::string all = std::string(indent) + row_text(titles, columns_, widths, false);
    for (const auto& row : rows_) all += std::string(indent) + row_text(row, columns_, widths, view.colour);
    return all;
}

std::string fields(const std::vector<Field>& all, std::string_view indent) {
    std::size_t width = 0;
    for (const Field& field : all)
        if (!field.value.empty()) width = std::max(width, field.name.size());
    std::string text;
    for (const Field& field : all)
        if (!field.value.empty()) text += std::format("{}{:<{}}  {}\n", indent, field.name, width, printable(field.value));
    return text;
}

}  // namespace sckpt::cli
