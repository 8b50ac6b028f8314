// SPDX-License-Identifier: GPL-3.0-or-later
//
// Which names may be used below the store and below an image: they become paths.
#pragma once

#include <string>
#include <string_view>

#include "common/result.h"

namespace sckpt {

Result<> check_store_path(std::string_view path);  // relative, of [A-Za-z0-9._-] parts, none of them "." or ".."
Result<> check_file_name(std::string_view name);   // of an image: relative, of printable ASCII parts, none of them "." or ".."

// "a/b/c" is "c" in "a/b"; "c" is "c" in "".
std::string directory_of(std::string_view path);
std::string base_of(std::string_view path);

// The name that a pack or manifest was asked for: without its suffix and the random part (a dash and 16 hex digits) that makes it its own.
std::string_view asked_name(std::string_view path);

// The step that a task is of, by the task's name: "0" of "0.3", "s4" of "s4.0"; "" of "batch", which is of none.
std::string_view step_of(std::string_view task);

inline constexpr std::string_view kPackSuffix = ".pack", kManifestSuffix = ".manifest";
inline constexpr const char* kQuarantine = "quarantine";  // what is put aside, below the store
inline constexpr const char* kBackups = "catalogue";      // backups of the catalogue, below the store

}  // namespace sckpt
