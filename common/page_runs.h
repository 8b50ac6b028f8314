// SPDX-License-Identifier: GPL-3.0-or-later
//
// Where the files of an image hold memory pages: a backend tells it, the image store cuts its chunks by it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace sckpt {

// Bytes that follow one another in a file of the image, and did so in memory from `address` on.
struct PageRun {
    std::uint64_t offset = 0, bytes = 0, address = 0;
    bool operator==(const PageRun&) const = default;
};
using PageRuns = std::map<std::string, std::vector<PageRun>>;  // by file name; sorted by offset, not overlapping

}  // namespace sckpt
