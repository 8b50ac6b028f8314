// SPDX-License-Identifier: GPL-3.0-or-later
//
// Names that are read from manifests, messages and directories are believed only as far as they check here.
#include "image_store/names.h"

#include <algorithm>
#include <format>

namespace sckpt {
namespace {

constexpr std::size_t kPartLimit = 200;  // below NAME_MAX, with room for a suffix of the store's own
constexpr std::size_t kPathLimit = 1024;

bool is_path_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
}
bool is_file_character(char c) { return c >= ' ' && c <= '~'; }

// Whether `path` is relative, stays below where it starts, and has only characters that `allowed` likes.
template <class F>
bool is_plain_relative(std::string_view path, F allowed) {
    if (path.size() > kPathLimit) return false;
    for (;;) {
        const std::size_t slash = path.find('/');
        const std::string_view part = path.substr(0, slash);
        if (part.empty() || part.size() > kPartLimit || part == "." || part == "..") return false;
        if (!std::ranges::all_of(part, allowed)) return false;
        if (slash == std::string_view::npos) return true;
        path.remove_prefix(slash + 1);
    }
}

std::string printable(std::string_view text) {
    std::string shown(text.substr(0, kPathLimit));
    std::ranges::replace_if(shown, [](char c) { return !is_file_character(c); }, '?');
    return shown;
}

}  // namespace

Result<> check_store_path(std::string_view path) {
    if (is_plain_relative(path, is_path_character)) return {};
    return fail(Errc::invalid, std::format("\"{}\" cannot be a path in the store: it must be relative, of parts of letters, "
                                           "digits, '.', '_' and '-', none of them \".\" or \"..\"", printable(path)));
}

Result<> check_file_name(std::string_view name) {
    if (is_plain_relative(name, is_file_character)) return {};
    return fail(Errc::invalid, std::format("an image cannot have a file named \"{}\": it must be relative, of parts of printable "
                                           "ASCII characters, none of them \".\" or \"..\"", printable(name)));
}

std::string directory_of(std::string_view path) {
    const std::size_t slash = path.rfind('/');
    return std::string(slash == std::string_view::npos ? std::string_view() : path.substr(0, slash));
}

std::string base_of(std::string_view path) { return std::string(path.substr(path.rfind('/') + 1)); }  // npos + 1 is 0

std::string_view asked_name(std::string_view path) {
    constexpr std::size_t kRandomPart = std::string_view("-0123456789abcdef").size();
    for (const std::string_view suffix : {kPackSuffix, kManifestSuffix})
        if (path.ends_with(suffix) && path.size() > suffix.size() + kRandomPart) return path.substr(0, path.size() - suffix.size() - kRandomPart);
    return path;
}

std::string_view step_of(std::string_view task) {
    const std::size_t dot = task.rfind('.');
    return dot == std::string_view::npos ? std::string_view() : task.substr(0, dot);
}

}  // namespace sckpt
