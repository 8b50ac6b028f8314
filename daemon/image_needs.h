// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a node that restores an image must have, as the node that dumps it has it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "image_store/manifest.h"

namespace sckpt {

ImageNeeds image_needs(const BackendProbe& probe);
// The features of the first processor in the text of /proc/cpuinfo, sorted.
std::vector<std::string> cpu_flags(std::string_view cpuinfo);

}  // namespace sckpt
