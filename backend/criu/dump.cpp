// SPDX-License-Identifier: GPL-3.0-or-later
//
// A dump, as the driver does it: checks, criu inside the tree's namespaces, and the image handed over to root.
#include <sched.h>
#include <algorithm>
#include <filesystem>
#include <format>
#include <thread>

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/criu/barrier.h"
#include "backend/criu/credentials.h"
#include "backend/criu/descriptor_check.h"
#include "backend/criu/driver.h"
#include "backend/criu/namespaces.h"
#include "backend/criu/stats.h"
#include "backend/criu/task_files.h"
#include "backend/criu/tree_check.h"
#include "common/fd.h"
#include "common/process.h"

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

// Past the deadline criu has some time to let go of the tree by itself. While the job is suspended it cannot, and killed it would leave the processes
// with what it has put into them: so it is waited for until they run again.
Result<> wait_for_criu(const Tree& tree, pid_t criu, Deadline deadline) {
    auto end = wait_until(criu, deadline + kLetGo);
    for (bool was = false, is = is_suspended(tree.supervisor); !end && (was || is); was = is, is = is_suspended(tree.supervisor))
        end = wait_until(criu, steady_clock::now() + kLetGo);
    if (!end) kill_and_reap(criu);
    if (!end || (!end->ok() && steady_clock::now() >= deadline))
        return fail(Errc::timeout, "the dump did not end in time, and was given up; the job runs on");
    if (!end->ok()) return std::unexpected(why_dump_failed(tree, *end));
    return {};
}

// The files as the hook found them, and those of the helpers, which it cannot see: they live in another PID namespace.
Result<ImageRecord> whole_record(const Tree& tree, const std::vector<UserFile>& of_helpers) {
    SCKPT_ASSIGN(ImageRecord record, read_record(tree.directory));
    for (const UserFile& file : of_helpers)
        if (!std::ranges::contains(record.files, file.path, &UserFile::path)) record.files.push_back(file);
    return record;
}

Result<std::uint64_t> size_of(const std::string& directory) {
    std::uint64_t bytes = 0;
    std::error_code error, none;
    for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error))
        if (entry->symlink_status(none).type() == std::filesystem::file_type::regular) bytes += entry->file_size(none);
    if (error) return fail_errno("list " + directory, error.value());
    return bytes;
}

Result<> tell_frozen(const Tree& tree, const std::vector<UserFile>& of_helpers) {
    SCKPT_ASSIGN(const ImageRecord record, whole_record(tree, of_helpers));
    SCKPT_ASSIGN(const std::uint64_t bytes, size_of(tree.directory));
    const std::string line = json{{"files", to_json(reported_files(record))}, {"bytes", bytes}}.dump() + "\n";
    for (std::string_view rest = line; !rest.empty();) {
        const ssize_t n = ::send(kControlFd, rest.data(), rest.size(), MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) return fail_errno("tell sckptd that the tree is frozen");
        rest.remove_prefix(n > 0 ? static_cast<std::size_t>(n) : 0);
    }
    return {};
}

// From the end of the writing to sckptd's word. Success also when criu has ended before: it has to say why.
Result<> hold_frozen(const Tree& tree, Barrier& barrier, pid_t criu, const std::vector<UserFile>& of_helpers) {
    SCKPT_ASSIGN(const UniqueFd criu_ended, open_pidfd(criu));
    SCKPT_ASSIGN(const std::size_t first, wait_readable({barrier.fd(), criu_ended.get()}, tree.deadline + kLetGo));
    if (first != 0) return {};
    SCKPT_TRY(barrier.meet());
    SCKPT_TRY(tell_frozen(tree, of_helpers));
    const auto next = wait_readable({kControlFd, barrier.fd(), criu_ended.get()}, tree.deadline + kFrozenGrace);
    if (!next) return fail(Errc::timeout, "nobody said that the frozen processes may go on, so the dump was given up; the job runs on");
    if (*next != 0) return fail(Errc::io, "criu was ended while it held the processes frozen; the job runs on");
    char word = 0;
    if (::recv(kControlFd, &word, 1, 0) != 1 || word != kGo) return fail(Errc::busy, "the dump was given up; the job runs on");
    return barrier.let_go();
}

Result<> wait_for_held_criu(const Tree& tree, Barrier barrier, pid_t criu, const std::vector<UserFile>& of_helpers) {
    const Result<> held = hold_frozen(tree, barrier, criu, of_helpers);
    if (!held) barrier.give_up();
    const Result<> ended = wait_for_criu(tree, criu, std::max(tree.deadline, steady_clock::now() + kLetGo));
    return held ? ended : held;
}

Result<> run_criu(const Tree& tree, const std::array<TaskStream, 3>& streams, const std::vector<UserFile>& of_helpers) {
    SCKPT_ASSIGN(const Namespaces target, namespaces_of(tree.root));
    SCKPT_ASSIGN(const pid_t root, inner_pid(tree.root));
    SCKPT_ASSIGN(const Credentials user, credentials_of(tree.root));
    const bool as_user = !may_read_foreign_limits();
    const auto deadline = duration_cast<milliseconds>(tree.deadline.time_since_epoch()).count();  // steady_clock is CLOCK_MONOTONIC
    CriuCall call;
    call.arguments = dump_arguments(tree, root, external_resources(streams), as_user);
    call.environment = {std::format("SCKPT_UID={}", tree.uid), "SCKPT_STREAMS=" + to_json(streams).dump(),
                        std::format("SCKPT_DEADLINE_MS={}", deadline), std::format("SCKPT_HOLD={}", tree.hold ? 1 : 0)};
    call.enter = [&]() -> Result<> {
        SCKPT_TRY(enter_mount_namespace(target.mount, tree.directory));
        return as_user ? become_dumping_user(user) : Result<>{};
    };
    // the next child is the first that lives in it
    if (target.pid && ::setns(target.pid.get(), CLONE_NEWPID) != 0) return fail_errno("enter the job's PID namespace");
    if (!tree.hold) {
        SCKPT_ASSIGN(const pid_t criu, start_criu(tree, std::move(call)));
        return wait_for_criu(tree, criu, tree.deadline);
    }
    SCKPT_ASSIGN(Barrier barrier, Barrier::open(tree.directory));
    SCKPT_ASSIGN(const pid_t criu, start_criu(tree, std::move(call)));
    return wait_for_held_criu(tree, std::move(barrier), criu, of_helpers);
}

// criu's cache is for all users' dumps (see criu_process.cpp).
Result<> take_over_cache(const std::string& directory) {
    const std::string cache = directory + "/criu.kdat";
    if (::lchown(cache.c_str(), 0, 0) != 0 && errno != ENOENT) return fail_errno("take over " + cache);
    return {};
}

// criu may have run as the user; the image is root's. What is no file is the barrier's socket.
Result<> take_over(const std::string& directory) {
    SCKPT_ASSIGN(const UniqueFd at, open_file(directory, O_RDONLY | O_DIRECTORY));
    std::error_code error;
    for (std::filesystem::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
        const std::string name = entry->path().filename();
        struct stat status{};
        if (::fstatat(at.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) return fail_errno(directory + "/" + name);
        if (S_ISSOCK(status.st_mode) && ::unlinkat(at.get(), name.c_str(), 0) != 0) return fail_errno("remove " + directory + "/" + name);
        if (!S_ISREG(status.st_mode)) continue;
        if (::fchownat(at.get(), name.c_str(), 0, 0, AT_SYMLINK_NOFOLLOW) != 0 || ::fchmodat(at.get(), name.c_str(), 0600, 0) != 0)
            return fail_errno("take over " + directory + "/" + name);
    }
    if (error) return fail_errno("list " + directory, error.value());
    return {};
}

}  // namespace

Result<json> dump_unchecked(const Tree& tree) {
    SCKPT_ASSIGN(const auto streams, task_streams(tree.supervisor, tree.root));
    SCKPT_ASSIGN(const std::vector<UserFile> of_helpers, helper_files(tree.helpers, streams, tree.uid));
    const auto done = run_criu(tree, streams, of_helpers);
    SCKPT_TRY(take_over_cache(tree.cache));
    SCKPT_TRY(take_over(tree.directory));
    SCKPT_TRY(done);
    SCKPT_ASSIGN(const ImageRecord record, whole_record(tree, of_helpers));
    if (!of_helpers.empty()) SCKPT_TRY(write_file_durable(tree.directory + "/" + kRecordName, to_text(record), 0600));
    SCKPT_ASSIGN(const std::uint64_t bytes, size_of(tree.directory));
    SCKPT_ASSIGN(const auto frozen, frozen_time(tree.directory));
    return json{{"files", to_json(reported_files(record))}, {"bytes", bytes}, {"frozen_us", frozen.count()}};
}

// What is seen of a process that is just ending, a sibling's supervisor perhaps, is nothing any more a moment later.
Result<> check_strangers(const Tree& tree, const std::vector<pid_t>& processes) {
    constexpr milliseconds kPatience{1000}, kPause{50};
    const auto end = std::min<Deadline>(tree.deadline, steady_clock::now() + kPatience);
    for (;;) {
        auto checked = check_cgroup(processes, tree.supervisor, tree.siblings);
        if (checked || steady_clock::now() >= end) return checked;
        std::this_thread::sleep_for(kPause);
    }
}

Result<json> dump(const Tree& tree) {
    SCKPT_ASSIGN(const std::vector<pid_t> processes, process_tree(tree.root));
    SCKPT_TRY(check_processes(processes, tree.uid));
    SCKPT_TRY(check_strangers(tree, processes));
    SCKPT_TRY(check_descriptors(processes));
    return dump_unchecked(tree);
}

}  // namespace sckpt::criu
