// SPDX-License-Identifier: GPL-3.0-or-later
//
// A dump, as the driver does it: checks, criu inside the tree's namespaces, and the image handed over to root.
#include <sched.h>
#include <algorithm>
#include <filesystem>
#include <format>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/criu/credentials.h"
#include "backend/criu/descriptor_check.h"
#include "backend/criu/driver.h"
#include "backend/criu/namespaces.h"
#include "backend/criu/stats.h"
#include "backend/criu/task_files.h"
#include "backend/criu/tree_check.h"
#include "common/fd.h"

namespace sckpt::criu {

using nlohmann::json;
using namespace std::chrono;

namespace {

constexpr const char* kLog = "dump.log";

struct Namespaces {
    UniqueFd pid, mount;  // none where they are the driver's own
};

Result<Namespaces> namespaces_of(pid_t root) {
    Namespaces found;
    SCKPT_ASSIGN(found.pid, foreign_namespace(root, "pid"));
    SCKPT_ASSIGN(found.mount, foreign_namespace(root, "mnt"));
    return found;
}

std::vector<std::string> dump_arguments(const Tree& tree, pid_t root, const std::vector<std::string>& external, bool as_user) {
    const auto left = duration_cast<seconds>(tree.deadline - steady_clock::now()).count();
    std::vector<std::string> arguments = {"dump",
                                          "--tree",
                                          std::to_string(root),
                                          "--images-dir",
                                          tree.directory,
                                          "--leave-running",
                                          "-v4",
                                          "--log-file",
                                          kLog,
                                          "--manage-cgroups=ignore",
                                          "--file-locks",
                                          "--ghost-limit",
                                          "64M",
                                          "--network-lock",
                                          "skip",
                                          "--timeout",
                                          std::to_string(std::max<long>(left, 1)),
                                          "--action-script",
                                          helper_program("sckpt-criu-hook")};
    if (as_user) arguments.push_back("--unprivileged");
    for (const std::string& resource : external) arguments.insert(arguments.end(), {"--external", resource});
    return arguments;
}

// The hook's own refusal, written while the tree was frozen, says more than criu's log about a failed action script.
Error why_dump_failed(const Tree& tree, const ExitStatus& end) {
    const auto refusal = read_file(tree.directory + "/" + kRefusalName, 64u << 10);
    if (refusal && refusal->size() > 1) return {static_cast<Errc>((*refusal)[0]), refusal->substr(1)};
    return explain_failure(tree, kLog, end.text());
}

Result<> wait_for_criu(const Tree& tree, pid_t criu) {
    auto end = wait_until(criu, tree.deadline + kLetGo);
    if (!end) kill_and_reap(criu);
    if (!end || (!end->ok() && steady_clock::now() >= tree.deadline))
        return fail(Errc::timeout, "the dump did not end in time, and was given up; the job runs on");
    if (!end->ok()) return std::unexpected(why_dump_failed(tree, *end));
    return {};
}

Result<> run_criu(const Tree& tree, const std::array<TaskStream, 3>& streams) {
    SCKPT_ASSIGN(const Namespaces target, namespaces_of(tree.root));
    SCKPT_ASSIGN(const pid_t root, inner_pid(tree.root));
    SCKPT_ASSIGN(const Credentials user, credentials_of(tree.root));
    const bool as_user = !may_read_foreign_limits();
    const auto deadline = duration_cast<milliseconds>(tree.deadline.time_since_epoch()).count();  // steady_clock is CLOCK_MONOTONIC
    CriuCall call;
    call.arguments = dump_arguments(tree, root, external_resources(streams), as_user);
    call.environment = {std::format("SCKPT_UID={}", tree.uid), "SCKPT_STREAMS=" + to_json(streams).dump(),
                        std::format("SCKPT_DEADLINE_MS={}", deadline)};
    call.enter = [&]() -> Result<> {
        SCKPT_TRY(enter_mount_namespace(target.mount, tree.directory));
        return as_user ? become_dumping_user(user) : Result<>{};
    };
    // the next child is the first that lives in it
    if (target.pid && ::setns(target.pid.get(), CLONE_NEWPID) != 0) return fail_errno("enter the job's PID namespace");
    SCKPT_ASSIGN(const pid_t criu, start_criu(tree, std::move(call)));
    return wait_for_criu(tree, criu);
}

// criu's cache is for all users' dumps (see criu_process.cpp).
Result<> take_over_cache(const std::string& directory) {
    const std::string cache = std::filesystem::path(directory).parent_path() / "criu.kdat";
    if (::lchown(cache.c_str(), 0, 0) != 0 && errno != ENOENT) return fail_errno("take over " + cache);
    return {};
}

// criu may have run as the user; the image is root's.
Result<std::uint64_t> take_over(const std::string& directory) {
    SCKPT_ASSIGN(const UniqueFd at, open_file(directory, O_RDONLY | O_DIRECTORY));
    std::uint64_t bytes = 0;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
        const std::string name = entry->path().filename();
        struct stat status{};
        if (::fstatat(at.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return fail_errno(directory + "/" + name);
        if (!S_ISREG(status.st_mode)) continue;
        if (::fchownat(at.get(), name.c_str(), 0, 0, AT_SYMLINK_NOFOLLOW) != 0 || ::fchmodat(at.get(), name.c_str(), 0600, 0) != 0)
            return fail_errno("take over " + directory + "/" + name);
        bytes += static_cast<std::uint64_t>(status.st_size);
    }
    if (error) return fail_errno("list " + directory, error.value());
    return bytes;
}

}  // namespace

Result<json> dump_unchecked(const Tree& tree) {
    SCKPT_ASSIGN(const auto streams, task_streams(tree.supervisor, tree.root));
    const auto done = run_criu(tree, streams);
    SCKPT_TRY(take_over_cache(tree.directory));
    SCKPT_ASSIGN(const std::uint64_t bytes, take_over(tree.directory));
    SCKPT_TRY(done);
    SCKPT_ASSIGN(const ImageRecord record, read_record(tree.directory));
    SCKPT_ASSIGN(const auto frozen, frozen_time(tree.directory));
    return json{{"files", to_json(reported_files(record))}, {"bytes", bytes}, {"frozen_us", frozen.count()}};
}

Result<json> dump(const Tree& tree) {
    SCKPT_ASSIGN(const std::vector<pid_t> processes, process_tree(tree.root));
    SCKPT_TRY(check_processes(processes, tree.uid));
    SCKPT_TRY(check_cgroup(processes, tree.supervisor));
    SCKPT_TRY(check_descriptors(processes));
    return dump_unchecked(tree);
}

}  // namespace sckpt::criu
