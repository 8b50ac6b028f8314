// SPDX-License-Identifier: GPL-3.0-or-later
//
// The user's files before a restore: are they those of the checkpoint, and back to the size they had then. Run in a child that is the
// user (credentials.h): a path may lead anywhere by now.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/criu/record.h"
#include "common/result.h"

namespace sckpt::criu {

// First looks at everything, then truncates what grew; on Errc::invalid nothing was changed. The error names the file and what is wrong.
Result<> roll_back_files(const std::vector<UserFile>& files);

// The same for the task's output: only where the new task's descriptor is on the file of the checkpoint.
Result<> roll_back_streams(const std::array<TaskStream, 3>& streams, const std::array<int, 3>& descriptors);

// The working directories of the processes must be there.
Result<> check_directories(const std::vector<std::string>& directories);

}  // namespace sckpt::criu
