// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-criu-hook: criu's action script. criu runs it with its own credentials, in its own namespaces, at several points of a dump;
// at "post-dump" the tree is still frozen, and only then sizes and offsets belong to the image. Leaves record.json and the spooled script's
// bytes in the image directory. When it fails, criu gives the dump up and lets the tree go on.
#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <format>
#include <tuple>

#include <unistd.h>

#include "backend/criu/barrier.h"
#include "backend/criu/credentials.h"
#include "backend/criu/descriptor_check.h"
#include "backend/criu/record.h"
#include "backend/criu/task_files.h"
#include "backend/criu/tree_check.h"
#include "common/fd.h"
#include "common/process.h"

namespace sckpt::criu {

namespace {

constexpr std::size_t kScriptLimit = 512u << 20;  // Slurm's own upper limit of max_script_size

std::string environment(const char* name) {
    const char* value = std::getenv(name);
    return value != nullptr ? value : "";
}

Result<std::uint32_t> number(const char* name) {
    const std::string text = environment(name);
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return fail(Errc::internal, std::format("{} is not a number", name));
    return value;
}

template <class T>
void add_new(std::vector<T>& values, T value) {
    if (!std::ranges::contains(values, value)) values.push_back(value);
}

Result<> add_process(ImageRecord& record, pid_t pid) {
    SCKPT_ASSIGN(const Credentials user, credentials_of(pid));
    add_new(record.groups, user.gid);
    for (const gid_t group : user.groups) add_new(record.groups, group);
    std::error_code error;
    for (std::filesystem::directory_iterator entry(std::format("/proc/{}/task", pid), error), end; !error && entry != end;
         entry.increment(error))
        add_new(record.ids, static_cast<pid_t>(std::strtol(entry->path().filename().c_str(), nullptr, 10)));
    if (error) return fail_errno(std::format("list the threads of process {}", pid), error.value());
    add_new(record.ids, ::getpgid(pid));
    add_new(record.ids, ::getsid(pid));
    return {};
}

Result<> copy_script(const TreeFiles& files, const std::string& directory) {
    if (files.script.empty()) return {};
    SCKPT_ASSIGN(const std::string script, read_file(files.script_source, kScriptLimit));
    return write_file_durable(directory + "/" + kScriptCopy, script, 0600);
}

Result<> record_tree(const std::string& directory) {
    ImageRecord record;
    SCKPT_ASSIGN(record.uid, number("SCKPT_UID"));
    SCKPT_ASSIGN(const std::uint32_t root, number("CRTOOLS_INIT_PID"));
    record.root = static_cast<pid_t>(root);
    SCKPT_ASSIGN(const auto streams, streams_from_json(nlohmann::json::parse(environment("SCKPT_STREAMS"), nullptr, false)));
    SCKPT_ASSIGN(const auto tree, process_tree(record.root));
    // things may have changed between the driver's checks and the freeze
    SCKPT_TRY(check_processes(tree, record.uid));
    SCKPT_TRY(check_descriptors(tree));
    for (const pid_t pid : tree) SCKPT_TRY(add_process(record, pid));
    SCKPT_ASSIGN(TreeFiles files, tree_files(tree, streams, record.uid));
    SCKPT_TRY(copy_script(files, directory));
    record.files = std::move(files.files);
    record.streams = files.streams;
    record.script = files.script;
    record.directories = std::move(files.directories);
    return write_file_durable(directory + "/" + kRecordName, to_text(record), 0600);
}

// The tree is frozen meanwhile. If it serves a file system itself (FUSE), looking at a file there would wait for the tree; ended by
// the alarm's default action, the hook has failed, and criu lets the tree go on.
void limit_time() {
    constexpr unsigned kSeconds = 60;
    sigset_t alarm_only;
    ::sigemptyset(&alarm_only);
    ::sigaddset(&alarm_only, SIGALRM);
    ::signal(SIGALRM, SIG_DFL);
    ::sigprocmask(SIG_UNBLOCK, &alarm_only, nullptr);
    ::alarm(kSeconds);
}

// SCKPT_DEADLINE_MS is when the dump must have ended, on the clock that steady_clock is.
Result<> hold(const std::string& directory) {
    using namespace std::chrono;
    const std::string text = environment("SCKPT_DEADLINE_MS");
    std::int64_t deadline = 0;
    std::from_chars(text.data(), text.data() + text.size(), deadline);
    return wait_at_barrier(directory, Deadline(milliseconds(deadline)) + kFrozenGrace);
}

int run() {
    if (environment("CRTOOLS_SCRIPT_ACTION") != "post-dump") return 0;
    // CRTOOLS_IMAGE_DIR is a name under /proc of criu's descriptor: resolved once, so that temporary names beside a file work
    std::error_code error;
    const std::string directory = std::filesystem::read_symlink(environment("CRTOOLS_IMAGE_DIR"), error);
    if (error) return 1;
    limit_time();
    auto done = record_tree(directory);
    ::alarm(0);
    if (done && environment("SCKPT_HOLD") == "1") done = hold(environment("CRTOOLS_IMAGE_DIR"));
    if (done) return 0;
    const std::string refusal = static_cast<char>(done.error().code) + done.error().text;
    std::ignore = write_file_durable(directory + "/" + kRefusalName, refusal, 0600);  // criu's log still tells of our failure
    return 1;
}

}  // namespace

}  // namespace sckpt::criu

int main() { return sckpt::criu::run(); }
