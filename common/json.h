// SPDX-License-Identifier: GPL-3.0-or-later
//
// JSON of sckpt's own records, with exceptions off.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include <nlohmann/json.hpp>

#include "common/result.h"

namespace sckpt {

// JSON holds text, paths and names of users are bytes: each byte becomes the character of that number, so that all of them come back as they were.
std::string bytes_to_text(std::string_view bytes);
std::string text_to_bytes(std::string_view text);

// A member of an object; the error (Errc::corrupt) names it. T: bool, std::int64_t, std::uint64_t, std::string.
template <class T>
Result<T> member(const nlohmann::json& object, const char* name) {
    const auto found = object.is_object() ? object.find(name) : object.end();
    bool fits = found != object.end();
    if constexpr (std::is_same_v<T, bool>) fits = fits && found->is_boolean();
    else if constexpr (std::is_same_v<T, std::string>) fits = fits && found->is_string();
    else if constexpr (std::is_same_v<T, std::uint64_t>) fits = fits && found->is_number_unsigned();
    else fits = fits && found->is_number_integer();
    if (!fits) return fail(Errc::corrupt, std::string("member \"") + name + "\" is missing or of the wrong kind");
    return found->template get<T>();
}

}  // namespace sckpt
