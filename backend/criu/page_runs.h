// SPDX-License-Identifier: GPL-3.0-or-later
//
// CRIU's page maps: which addresses the pages in a pages-ID.img had.
#pragma once

#include "common/page_runs.h"
#include "common/result.h"

namespace sckpt::criu {

// Of every pagemap-*.img of the directory; runs of addresses that follow one another are merged. Errc::invalid for what is not
// understood.
Result<PageRuns> page_runs(int image_directory);

}  // namespace sckpt::criu
