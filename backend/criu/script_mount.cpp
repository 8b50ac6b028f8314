// SPDX-License-Identifier: GPL-3.0-or-later
//
// The deepest directory of the path that exists is masked by a small tmpfs; what was in it is bound back, name by name.
#include "backend/criu/script_mount.h"

#include <filesystem>
#include <format>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"

namespace sckpt::criu {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kScriptLimit = 512u << 20;

struct Place {
    fs::path existing;  // the deepest directory that is there
    fs::path missing;   // from there to the script: "job00012/slurm_script"
};

Result<Place> find_place(const fs::path& path) {
    if (!path.is_absolute() || path.lexically_normal() != path || !path.has_filename())
        return fail(Errc::corrupt, "the recorded path of the batch script makes no sense: " + path.string());
    fs::path existing = path.parent_path();
    std::error_code error;
    while (existing != "/" && !fs::is_directory(fs::symlink_status(existing, error))) existing = existing.parent_path();
    if (existing == "/")
        return fail(Errc::unsupported, "no directory of the batch script's path " + path.string() + " exists on this node");
    return Place{existing, path.lexically_relative(existing)};
}

Result<> bind_entry(const fs::path& source, const fs::path& target) {
    std::error_code error;
    const auto status = fs::symlink_status(source, error);
    if (error) return {};  // gone meanwhile
    if (fs::is_symlink(status)) {
        fs::copy_symlink(source, target, error);
        return error ? Result<>(fail_errno("copy " + target.string(), error.value())) : Result<>{};
    }
    if (fs::is_directory(status)) {
        if (::mkdir(target.c_str(), 0755) != 0) return fail_errno("make " + target.string());
    } else {
        SCKPT_TRY(open_file(target, O_WRONLY | O_CREAT | O_EXCL, 0600));
    }
    if (::mount(source.c_str(), target.c_str(), nullptr, MS_BIND | MS_REC, nullptr) != 0) return fail_errno("bind " + target.string());
    return {};
}

// Masks `directory`; everything in it but `except` stays visible.
Result<> mask(const fs::path& directory, const fs::path& except) {
    SCKPT_ASSIGN(const UniqueFd old, open_file(directory, O_RDONLY | O_DIRECTORY));
    struct stat status{};
    if (::fstat(old.get(), &status) != 0) return fail_errno(directory.string());
    // nobody gets further through the mask than through what it hides
    const std::string options = std::format("mode={:o},uid={},gid={}", status.st_mode & 07777, status.st_uid, status.st_gid);
    if (::mount("sckpt", directory.c_str(), "tmpfs", MS_NOSUID | MS_NODEV, options.c_str()) != 0)
        return fail_errno("mask " + directory.string());
    const fs::path behind = std::format("/proc/self/fd/{}", old.get());
    std::error_code error;
    for (fs::directory_iterator entry(behind, error), end; !error && entry != end; entry.increment(error)) {
        const fs::path name = entry->path().filename();
        if (name != except) SCKPT_TRY(bind_entry(behind / name, directory / name));
    }
    if (error) return fail_errno("list " + directory.string(), error.value());
    return {};
}

}  // namespace

Result<> put_script_back(const std::string& path, const std::string& copy, const Credentials& user) {
    SCKPT_ASSIGN(const std::string script, read_file(copy, kScriptLimit));
    SCKPT_ASSIGN(const Place place, find_place(path));
    SCKPT_TRY(mask(place.existing, *place.missing.begin()));
    SCKPT_TRY(make_directories(fs::path(path).parent_path(), 0755));
    SCKPT_ASSIGN(const UniqueFd file, open_file(path, O_WRONLY | O_CREAT | O_EXCL, 0700));
    SCKPT_TRY(write_all(file.get(), script));
    if (::fchown(file.get(), user.uid, user.gid) != 0) return fail_errno("give " + path + " to the job's user");
    return {};
}

}  // namespace sckpt::criu
