// SPDX-License-Identifier: GPL-3.0-or-later
//
// Writes and reads manifests. What is read is believed only as far as it checks: a name becomes a path below the image.
#include "image_store/manifest.h"

#include <algorithm>
#include <format>

#include <nlohmann/json.hpp>

#include "image_store/store.h"

namespace sckpt {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kPartLimit = 200;   // below NAME_MAX, with room for a suffix of the store's own
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

bool is_hash(const std::string& text) {
    return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

Result<ManifestFile> parse_file(const Json& entry) {
    const auto broken = fail(Errc::corrupt, "the manifest has an entry without a name, a size and a BLAKE3 hash");
    if (!entry.is_object()) return broken;
    const auto name = entry.find("name"), size = entry.find("size"), hash = entry.find("blake3");
    if (name == entry.end() || size == entry.end() || hash == entry.end()) return broken;
    if (!name->is_string() || !size->is_number_unsigned() || !hash->is_string()) return broken;
    ManifestFile file{name->get<std::string>(), size->get<std::uint64_t>(), hash->get<std::string>()};
    if (!is_hash(file.blake3)) return broken;
    if (auto checked = check_file_name(file.name); !checked) return fail(Errc::corrupt, "the manifest: " + checked.error().text);
    return file;
}

}  // namespace

std::string manifest_text(std::vector<ManifestFile> files) {
    std::ranges::sort(files, {}, &ManifestFile::name);
    Json entries = Json::array();
    for (const ManifestFile& file : files) entries.push_back({{"name", file.name}, {"size", file.size}, {"blake3", file.blake3}});
    return Json{{"format", kManifestFormat}, {"files", std::move(entries)}}.dump(1) + "\n";
}

Result<std::vector<ManifestFile>> parse_manifest(std::string_view text) {
    const Json root = Json::parse(text, nullptr, false);
    if (!root.is_object()) return fail(Errc::corrupt, "the manifest is not a JSON object");
    const auto format = root.find("format"), entries = root.find("files");
    if (format == root.end() || !format->is_number_unsigned()) return fail(Errc::corrupt, "the manifest has no format number");
    if (const auto found = format->get<std::uint64_t>(); found != kManifestFormat)
        return fail(Errc::unsupported, std::format("the manifest has format {}, this sckpt reads {}", found, kManifestFormat));
    if (entries == root.end() || !entries->is_array()) return fail(Errc::corrupt, "the manifest has no list of files");
    std::vector<ManifestFile> files;
    for (const Json& entry : *entries) {
        SCKPT_ASSIGN(ManifestFile file, parse_file(entry));
        if (!files.empty() && files.back().name >= file.name) return fail(Errc::corrupt, "the manifest is not sorted by name");
        files.push_back(std::move(file));
    }
    return files;
}

Result<> check_image_path(std::string_view path) {
    if (is_plain_relative(path, is_path_character)) return {};
    return fail(Errc::invalid, std::format("\"{}\" cannot be a path in the store: it must be relative, of parts of letters, "
                                           "digits, '.', '_' and '-', none of them \".\" or \"..\"", printable(path)));
}

Result<> check_file_name(std::string_view name) {
    if (is_plain_relative(name, is_file_character) && name != kManifestName) return {};
    return fail(Errc::invalid, std::format("an image cannot have a file named \"{}\"", printable(name)));
}

}  // namespace sckpt
