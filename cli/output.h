// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the commands print: tables that fit the terminal, sizes and times for people, and JSON for programs.
// Names and error texts come from jobs of any user: control characters never reach the terminal.
#pragma once

#include <google/protobuf/message.h>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "common/bytes.h"
#include "common/result.h"

namespace sckpt::cli {

// How and when the text will be seen.
struct View {
    int width = 80;  // columns
    bool colour = false;
    std::int64_t now = 0;  // Unix seconds, for ages
};
View make_view();  // of standard output: the terminal's width, colours there unless NO_COLOR is set

std::string format_age(std::int64_t seconds);                   // "42s", "5m", "3h12m", "2d4h"
std::string format_time(std::int64_t unix_seconds);             // "2026-01-31T12:00:00", local; "-" for 0
std::string format_milliseconds(std::uint32_t ms);              // "0.05 s"
std::string counted(std::uint64_t number, std::string_view what);  // "1 file", "12 files"
std::string printable(std::string_view text);                   // control characters as '?'
std::string shorten(std::string_view text, std::size_t width);  // "..." at its end when it is cut; whole UTF-8 characters

enum class Colour { none, good, bad };
struct Cell {
    std::string text;
    Colour colour = Colour::none;
};
enum class Align { left, right };
struct Column {
    std::string title;
    Align align = Align::left;
};

class Table {
   public:
    explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
    void add(std::vector<Cell> row);
    // One line a row, under the titles. The last column takes what the others leave of the width, and is shortened to it.
    std::string text(const View& view, std::string_view indent = "") const;

   private:
    std::vector<Column> columns_;
    std::vector<std::vector<Cell>> rows_;
};

// Lines "  name     value"; one without a value is left out.
struct Field {
    std::string_view name;
    std::string value;
};
std::string fields(const std::vector<Field>& all, std::string_view indent = "  ");

// A message as JSON, with the names of the .proto file, all fields present, and 64-bit numbers as numbers.
Result<nlohmann::json> to_json(const google::protobuf::Message& message);
std::string json_text(const nlohmann::json& document);  // one document, ends with a newline

}  // namespace sckpt::cli
