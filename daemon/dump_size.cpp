// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/dump_size.h"

#include <algorithm>
#include <charconv>
#include <format>
#include <string>

#include "common/fd.h"
#include "common/process.h"

namespace sckpt {

std::uint64_t kilobytes_in(std::string_view text, std::string_view name) {
    const std::string key = std::format("\n{}:", name);
    const std::size_t at = text.find(key);
    if (at == std::string_view::npos) return 0;
    const std::size_t digits = text.find_first_not_of(" \t", at + key.size());
    if (digits == std::string_view::npos) return 0;
    std::uint64_t value = 0;
    std::from_chars(text.data() + digits, text.data() + text.size(), value);
    return value * 1024;
}

Result<std::uint64_t> expected_dump_bytes(pid_t root, std::uint64_t last_bytes) {
    constexpr std::uint64_t kAllowance = 4u << 20;  // what is not memory, and the log
    SCKPT_ASSIGN(const std::vector<pid_t> processes, process_tree(root));
    std::uint64_t memory = 0;
    for (const pid_t pid : processes) {
        const auto status = read_file(std::format("/proc/{}/status", pid));
        if (!status) continue;  // it has ended meanwhile
        memory += kilobytes_in(*status, "RssAnon") + kilobytes_in(*status, "VmSwap");
        if (const std::uint64_t shared = kilobytes_in(*status, "RssShmem"); shared != 0) {
            const auto shares = read_file(std::format("/proc/{}/smaps_rollup", pid));
            const std::uint64_t share = shares ? kilobytes_in(*shares, "Pss_Shmem") : 0;
            memory += share != 0 ? share : shared;
        }
    }
    const std::uint64_t expected = std::max(memory, last_bytes);
    return expected + expected / 20 + kAllowance;
}

}  // namespace sckpt
