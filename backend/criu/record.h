// SPDX-License-Identifier: GPL-3.0-or-later
//
// record.json: what an image directory says about itself beside CRIU's own files. The hook writes it while the tree is frozen;
// the restore reads it. It is trusted because the directory is root's alone and its bytes were verified on the way from the store.
#pragma once

#include <sys/types.h>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backend/backend.h"
#include "common/json.h"
#include "common/result.h"

namespace sckpt::criu {

inline constexpr const char* kRecordName = "record.json";
inline constexpr const char* kScriptCopy = "script";    // the spooled batch script's bytes, when the tree held one open
inline constexpr const char* kRefusalName = "refusal";  // why the hook refused: one byte of Errc, then the text

// One of the task's standard input, output and error, as Slurm opened it. It is external to the image: a restored tree gets the new task's.
struct TaskStream {
    std::string resource;  // CRIU's name: "file[MOUNT:INODE]", "pipe:[INODE]"; empty: nothing external (/dev/null)
    std::string alias;     // its other name: the same file by the mount that the tree's own namespace shows it with (overlayfs)
    std::string path;      // of a regular file
    std::uint64_t inode = 0;
    std::uint64_t size = 0;      // bytes, while frozen
    std::uint64_t position = 0;  // of the descriptor, while frozen
    bool append = false;
    bool regular = false;
};

struct ImageRecord {
    uid_t uid = 0;
    pid_t root = 0;             // in the tree's own PID namespace
    std::vector<gid_t> groups;  // every group that a process of the tree may act as
    std::vector<pid_t> ids;     // all process, thread, group and session numbers: a restore must keep clear of them
    std::array<TaskStream, 3> streams;
    std::vector<UserFile> files;         // streams and script excluded
    std::string script;                    // path of the spooled batch script; empty: none
    std::vector<std::string> directories;  // working directories of the processes
};

std::string to_text(const ImageRecord& record);
Result<ImageRecord> parse_record(std::string_view text);  // Errc::corrupt; Errc::unsupported: of another version of sckpt
Result<ImageRecord> read_record(const std::string& directory);

nlohmann::json to_json(const std::vector<UserFile>& files);
Result<std::vector<UserFile>> files_from_json(const nlohmann::json& array);
nlohmann::json to_json(const std::array<TaskStream, 3>& streams);
Result<std::array<TaskStream, 3>> streams_from_json(const nlohmann::json& array);

// The files as the contract wants them: the task's output files included, marked `stdio`.
std::vector<UserFile> reported_files(const ImageRecord& record);

}  // namespace sckpt::criu
