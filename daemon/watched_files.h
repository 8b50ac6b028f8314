// SPDX-License-Identifier: GPL-3.0-or-later
//
// File systems that stand before another one: one that tells of each call which came back, one that hides files.
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "image_store/file_system.h"

namespace sckpt {

// Calls `heard` after each call of `files`, or of a File of it, that read, wrote or changed something; from whatever thread made the call.
// Its error becomes that call's. This is how a store that moves is told from one that hangs, and how long work is ended in the middle.
using HeardFn = std::function<Result<>()>;
std::unique_ptr<FileSystem> watched(FileSystem& files, HeardFn heard);

// `files` with these paths left out of every list.
std::unique_ptr<FileSystem> without(FileSystem& files, std::set<std::string> paths);

}  // namespace sckpt
