// SPDX-License-Identifier: GPL-3.0-or-later
#include "backend/criu/task_files.h"

#include <algorithm>
#include <filesystem>
#include <format>
#include <map>
#include <set>
#include <sstream>
#include <tuple>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/process.h"

namespace sckpt::criu {

namespace {

// One open descriptor of a process.
struct OpenFile {
    std::string path, name;  // what it points to; its own name under /proc
    struct stat status{};
    std::uint64_t position = 0;
    unsigned flags = 0;
    int mount = -1;
    bool writable() const { return (flags & O_ACCMODE) != O_RDONLY && (flags & O_PATH) == 0; }
    bool deleted() const { return status.st_nlink == 0; }
    std::string resource() const {
        if (S_ISREG(status.st_mode)) return std::format("file[{:x}:{:x}]", mount, status.st_ino);
        if (S_ISFIFO(status.st_mode)) return std::format("pipe:[{}]", status.st_ino);
        return "";
    }
};

// fdinfo: "pos:\t123", "flags:\t0100001" (octal), "mnt_id:\t29".
Result<OpenFile> open_file_of(pid_t pid, const std::string& fd) {
    OpenFile file;
    file.name = std::format("/proc/{}/fd/{}", pid, fd);
    std::error_code error;
    file.path = std::filesystem::read_symlink(file.name, error);
    if (error) return fail_errno(file.name, error.value());
    if (::stat(file.name.c_str(), &file.status) != 0) return fail_errno(file.name);
    SCKPT_ASSIGN(const std::string info, read_file(std::format("/proc/{}/fdinfo/{}", pid, fd)));
    std::istringstream lines(info);
    for (std::string key; lines >> key;) {
        if (key == "pos:") lines >> file.position;
        else if (key == "flags:") lines >> std::oct >> file.flags >> std::dec;
        else if (key == "mnt_id:") lines >> file.mount;
        else lines.ignore(4096, '\n');
    }
    return file;
}

// Kernel interfaces and devices have no contents to roll back; POSIX shared memory is under /dev/shm.
bool is_users_file(const std::string& path) {
    return path.starts_with("/") && !path.starts_with("/proc/") && !path.starts_with("/sys/") && !path.starts_with("/dev/");
}

// maps pads addresses with zeros, map_files does not.
std::string without_padding(const std::string& range) {
    const auto dash = range.find('-');
    const auto first = std::min(range.find_first_not_of('0'), dash - 1), second = range.find_first_not_of('0', dash + 1);
    return range.substr(first, dash - first) + "-" + range.substr(second);
}

class Collector {
   public:
    Collector(const std::array<TaskStream, 3>& streams, uid_t uid) : uid_(uid) { found_.streams = streams; }

    Result<> add(pid_t pid) {
        std::error_code error;
        for (std::filesystem::directory_iterator entry(std::format("/proc/{}/fd", pid), error), end; !error && entry != end;
             entry.increment(error)) {
            auto file = open_file_of(pid, entry->path().filename());
            if (!file) return std::unexpected(file.error());
            if (S_ISREG(file->status.st_mode)) add_file(pid, *file);
            else if (S_ISFIFO(file->status.st_mode)) note_stream(*file);
        }
        if (error) return fail_errno(std::format("list the open files of process {}", pid), error.value());
        SCKPT_TRY(add_shared_maps(pid));
        const std::string directory = std::filesystem::read_symlink(std::format("/proc/{}/cwd", pid), error);
        if (!error && !std::ranges::contains(found_.directories, directory)) found_.directories.push_back(directory);
        return {};
    }

    TreeFiles take() { return std::move(found_); }

   private:
    bool note_stream(const OpenFile& file) {
        bool is_stream = false;
        for (TaskStream& stream : found_.streams) {
            if (stream.resource.empty() || (stream.resource != file.resource() && stream.alias != file.resource())) continue;
            is_stream = true;
            stream.size = static_cast<std::uint64_t>(file.status.st_size);
            stream.position = std::max(stream.position, file.position);
        }
        return is_stream;
    }

    // slurmd's directory belongs to root. A file of that name in a user's own directory is one of the user's files.
    static bool is_spooled(pid_t pid, const std::string& path) {
        const std::string folder = std::filesystem::path(std::format("/proc/{}/root{}", pid, path)).parent_path();
        struct stat status{};
        return ::stat(folder.c_str(), &status) == 0 && status.st_uid == 0 && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
    }

    void add_file(pid_t pid, const OpenFile& file) {
        if (note_stream(file) || file.deleted()) return;
        // bash reads its script as it goes; Slurm's copy of it goes away with the job
        if (file.path.ends_with("/slurm_script") && file.status.st_uid == uid_ && !file.writable() && is_spooled(pid, file.path)) {
            found_.script = file.path;
            found_.script_source = file.name;
            return;
        }
        if (file.writable()) keep(file.path, file.status, (file.flags & O_APPEND) != 0);
    }

    void keep(const std::string& path, const struct stat& status, bool append) {
        if (!is_users_file(path)) return;
        const auto [at, fresh] = known_.try_emplace(path, found_.files.size());
        if (fresh) found_.files.push_back({path, status.st_ino, static_cast<std::uint64_t>(status.st_size), append, false});
        else found_.files[at->second].append = found_.files[at->second].append && append;
    }

    // maps: "from-to rw-s offset device inode   path"
    Result<> add_shared_maps(pid_t pid) {
        SCKPT_ASSIGN(const std::string maps, read_file(std::format("/proc/{}/maps", pid), 256u << 20));
        std::istringstream lines(maps);
        for (std::string line; std::getline(lines, line);) {
            std::istringstream fields(line);
            std::string range, rights, skipped, path;
            fields >> range >> rights >> skipped >> skipped >> skipped >> std::ws;
            std::getline(fields, path);
            if (rights.size() != 4 || rights[1] != 'w' || rights[3] != 's' || !path.starts_with('/')) continue;
            struct stat status{};
            const std::string name = std::format("/proc/{}/map_files/{}", pid, without_padding(range));
            if (::stat(name.c_str(), &status) == 0 && S_ISREG(status.st_mode) && status.st_nlink > 0) keep(path, status, false);
        }
        return {};
    }

    uid_t uid_;
    TreeFiles found_;
    std::map<std::string, std::size_t> known_;
};

// A restored tree has Slurm's files open by a mount of another namespace. On overlayfs criu then takes the mount of the tree's namespace
// that shows the same file, and would not know the file as external.
std::string alias_of(const TaskStream& stream, pid_t root) {
    const auto fd = open_file(std::format("/proc/{}/root{}", root, stream.path), O_PATH | O_NOFOLLOW);
    if (!fd) return "";
    const auto file = open_file_of(::getpid(), std::to_string(fd->get()));
    return file && file->status.st_ino == stream.inode ? file->resource() : "";
}

}  // namespace

Result<std::array<TaskStream, 3>> task_streams(pid_t supervisor, pid_t root) {
    std::array<TaskStream, 3> streams;
    for (std::size_t fd = 0; fd < streams.size(); ++fd) {
        auto file = open_file_of(supervisor, std::to_string(fd));
        if (!file && file.error().code == Errc::not_found) continue;  // closed
        if (!file) return std::unexpected(file.error().context("the task's standard streams"));
        TaskStream& stream = streams[fd];
        stream.resource = file->resource();
        stream.regular = S_ISREG(file->status.st_mode);
        if (stream.regular) stream.path = file->path;
        stream.inode = file->status.st_ino;
        stream.size = static_cast<std::uint64_t>(file->status.st_size);
        stream.append = (file->flags & O_APPEND) != 0;
        if (stream.regular) stream.alias = alias_of(stream, root);
    }
    return streams;
}

std::vector<std::string> external_resources(const std::array<TaskStream, 3>& streams) {
    std::vector<std::string> resources;
    for (const TaskStream& stream : streams)
        for (const std::string& name : {stream.resource, stream.alias})
            if (stream.regular && !name.empty() && !std::ranges::contains(resources, name)) resources.push_back(name);
    return resources;
}

Result<std::vector<UserFile>> helper_files(const std::vector<pid_t>& helpers, const std::array<TaskStream, 3>& streams, uid_t uid) {
    Collector collector(streams, uid);
    for (const pid_t helper : helpers) {
        const auto tree = process_tree(helper);
        if (!tree && tree.error().code != Errc::not_found) return std::unexpected(tree.error());
        for (const pid_t pid : tree.value_or(std::vector<pid_t>())) {
            const auto owner = process_identity(pid);
            if (owner && (owner->uid != uid || !owner->same_uids))
                return fail(Errc::denied, std::format("process {} ({}), which works for the job, is not its user's", pid, owner->command));
            if (auto added = collector.add(pid); !added && added.error().code != Errc::not_found) return std::unexpected(added.error());
        }
    }
    return collector.take().files;
}

Result<TreeFiles> tree_files(const std::vector<pid_t>& tree, const std::array<TaskStream, 3>& streams, uid_t uid) {
    Collector collector(streams, uid);
    for (const pid_t pid : tree) SCKPT_TRY(collector.add(pid));
    return collector.take();
}

}  // namespace sckpt::criu
