// SPDX-License-Identifier: GPL-3.0-or-later
#include "common/cgroups.h"

#include <algorithm>
#include <charconv>
#include <sstream>

namespace sckpt {
namespace {

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string unescape(std::string_view text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
        unsigned value = 0;
        const bool escape = text[i] == '\\' && i + 3 < text.size() &&
                            std::from_chars(text.data() + i + 1, text.data() + i + 4, value, 8).ptr == text.data() + i + 4;
        plain += escape ? static_cast<char>(value) : text[i];
        if (escape) i += 3;
    }
    return plain;
}

std::vector<std::string> names_in(const std::string& list) {
    std::vector<std::string> names;
    std::istringstream stream(list);
    for (std::string name; std::getline(stream, name, ',');) names.push_back(name);
    return names;
}

}  // namespace

bool CgroupMount::has(std::string_view controllers) const {
    return !v2 && std::ranges::all_of(names_in(std::string(controllers)), [&](const std::string& name) { return std::ranges::contains(names, name); });
}

std::optional<std::string> CgroupMount::directory_of(const std::string& path) const {
    const std::string prefix = root == "/" ? "" : root;
    if (!(path + "/").starts_with(prefix + "/")) return std::nullopt;
    return point + path.substr(prefix.size());
}

// "id parent dev root point options [tags…] - type source super-options"
std::vector<CgroupMount> cgroup_mounts(std::string_view mountinfo) {
    std::vector<CgroupMount> mounts;
    std::istringstream lines{std::string(mountinfo)};
    for (std::string line; std::getline(lines, line);) {
        const auto separator = line.find(" - ");
        if (separator == std::string::npos) continue;
        std::istringstream left(line.substr(0, separator)), right(line.substr(separator + 3));
        std::string skipped, root, point, type, source, options;
        left >> skipped >> skipped >> skipped >> root >> point;
        right >> type >> source >> options;
        if (type == "cgroup" || type == "cgroup2") mounts.push_back({unescape(root), unescape(point), names_in(options), type == "cgroup2"});
    }
    return mounts;
}

std::optional<CgroupLine> cgroup_line(const std::string& line) {
    const auto first = line.find(':');
    const auto second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) return std::nullopt;
    return CgroupLine{line.substr(first + 1, second - first - 1), line.substr(second + 1)};
}

}  // namespace sckpt
