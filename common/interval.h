// SPDX-License-Identifier: GPL-3.0-or-later
//
// The value of --ckpt and of the times in sckpt.yaml. Also compiled into the plug-in, so: no dependency but the standard library.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/result.h"

namespace sckpt {

// Bounds of a checkpoint interval. Below 1 s the orders of one job would queue up behind each other; a year is longer than any job.
inline constexpr std::int64_t kMinIntervalSeconds = 1;
inline constexpr std::int64_t kMaxIntervalSeconds = 366LL * 86400;

// Parses a time in seconds: Slurm's formats (sbatch(1), --time): M, M:S, H:M:S, D-H, D-H:M, D-H:M:S; and N followed by s, m, h or d.
// Note that a bare number is minutes, as everywhere in Slurm. Errc::invalid with a text that shows what is right.
Result<std::int64_t> parse_seconds(std::string_view text);
std::string format_seconds(std::int64_t seconds);  // "90s", "15m", "1-02:00:00": what parse_seconds reads back to the same value

// The meaning of one --ckpt option.
struct CkptOption {
    enum class Mode { site_default, interval, manual } mode = Mode::site_default;
    std::int64_t interval_seconds = 0;  // with Mode::interval
};
// `text` is null for a bare --ckpt. Errc::invalid: the message names the option and the accepted forms.
Result<CkptOption> parse_ckpt_option(const char* text);

}  // namespace sckpt
