// SPDX-License-Identifier: GPL-3.0-or-later
//
// Where to cut.
#include "image_store/chunker.h"

#include <algorithm>
#include <array>
#include <format>

#include "image_store/manifest.h"

namespace sckpt {
namespace {

struct Step {
    std::uint64_t limit;  // of the image, bytes
    std::uint32_t chunk;
};
constexpr std::array kSteps = {Step{8ull << 30, 8u << 10}, Step{32ull << 30, 16u << 10}, Step{128ull << 30, 64u << 10},
                               Step{~0ull, kMaxBlock}};

}  // namespace

std::uint32_t chunk_size_for(std::uint64_t image_bytes, std::uint32_t of_base) {
    const auto* fitting = std::ranges::find_if(kSteps, [&](const Step& step) { return image_bytes <= step.limit; });
    const auto* kept = std::ranges::find(kSteps, of_base, &Step::chunk);
    if (kept == kSteps.end() || kept == fitting) return fitting->chunk;
    const std::uint64_t border = std::min(fitting, kept)->limit;  // that lies between them
    const bool near = kept - fitting <= 1 && fitting - kept <= 1 && image_bytes > border / 2 && image_bytes / 2 < border;
    return near ? kept->chunk : fitting->chunk;
}

Result<> check_runs(std::span<const PageRun> runs, std::uint64_t file_bytes) {
    std::uint64_t end = 0;
    for (const PageRun& run : runs) {
        if (run.offset < end || run.offset > file_bytes || run.bytes > file_bytes - run.offset)
            return fail(Errc::invalid, std::format("the pages at {} do not lie in the file, or are not in order", run.offset));
        end = run.offset + run.bytes;
    }
    return {};
}

std::uint32_t Chunker::next() {
    if (position_ == end_) return 0;
    while (!runs_.empty() && runs_.front().offset + runs_.front().bytes <= position_) runs_ = runs_.subspan(1);
    std::uint64_t stop = end_, address = position_;
    if (!runs_.empty() && runs_.front().offset <= position_) {
        const PageRun& run = runs_.front();
        stop = run.offset + run.bytes;
        address = run.address + (position_ - run.offset);
    } else if (!runs_.empty()) {
        stop = runs_.front().offset;
    }
    const std::uint64_t bytes = std::min(stop - position_, chunk_size_ - address % chunk_size_);
    position_ += bytes;
    return static_cast<std::uint32_t>(bytes);
}

}  // namespace sckpt
