// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/image_needs.h"

#include <sys/utsname.h>
#include <algorithm>
#include <sstream>

#include "common/fd.h"

namespace sckpt {

std::vector<std::string> cpu_flags(std::string_view cpuinfo) {
    std::istringstream lines{std::string(cpuinfo)};
    for (std::string line; std::getline(lines, line);) {
        if (!line.starts_with("flags") && !line.starts_with("Features")) continue;  // x86; ARM
        const auto colon = line.find(':');
        if (colon == std::string::npos) continue;
        std::istringstream words(line.substr(colon + 1));
        std::vector<std::string> flags;
        for (std::string word; words >> word;) flags.push_back(word);
        std::ranges::sort(flags);
        return flags;
    }
    return {};
}

ImageNeeds image_needs(const BackendProbe& probe) {
    ImageNeeds needs;
    needs.backend = probe.name;
    needs.backend_version = probe.version;
    utsname kernel{};
    if (uname(&kernel) == 0) {
        needs.architecture = kernel.machine;
        needs.kernel = kernel.release;
    }
    if (const auto text = read_file("/proc/cpuinfo", 64u << 20)) needs.cpu_flags = cpu_flags(*text);
    return needs;
}

}  // namespace sckpt
