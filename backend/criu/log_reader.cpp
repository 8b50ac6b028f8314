// SPDX-License-Identifier: GPL-3.0-or-later
#include "backend/criu/log_reader.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <format>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace sckpt::criu {

namespace {

// One rule: criu's message with `*` for what varies, and the sentence; "{1}" is what the first `*` stood for, "{who}" the process that
// was being dumped. The rules are in order of preference: criu reports a cause first and then, line by line, what failed because of it.
struct Rule {
    const char* pattern;
    Errc code;
    const char* sentence;
};

constexpr auto kRules = std::to_array<Rule>({
    {"Can't retrieve FDs from socket*", Errc::unsupported,
     "{who} has a descriptor open that cannot be handed over (io_uring is of that kind), and cannot be checkpointed"},
    {"Connected TCP socket, consider using*", Errc::unsupported,
     "{who} has an open TCP connection, which cannot be checkpointed; close connections (databases, licence servers) between phases"},
    {"In-flight connection (l) for *", Errc::unsupported,
     "{who} listens on a TCP socket with a connection that it has not accepted yet, which cannot be checkpointed; try again"},
    {"Unsupported proto * for socket *", Errc::unsupported, "{who} has an open socket of protocol {1}, which cannot be checkpointed"},
    {"Can't create link remap for *. Use link-remap option.*", Errc::unsupported,
     "{who} has a file open that was deleted under its name {1} but exists under another, which cannot be checkpointed; "
     "close such files or do not delete them"},
    {"Can't dump ghost file * of * size, increase limit*", Errc::unsupported,
     "{who} holds the deleted file {1} open, whose {2} bytes are more than the 64 MiB that fit an image; do not delete files in use"},
    {"External socket is used. *", Errc::unsupported,
     "{who} is connected to a program outside of the job by a Unix socket, which cannot be checkpointed; close that connection first"},
    {"Can't dump half of stream unix connection. name: *; peer name: *", Errc::unsupported,
     "{who} is connected by a Unix socket ({2}) to a program outside of the job, which cannot be checkpointed; close that connection "
     "first"},
    {"Can't dump half of stream unix connection*", Errc::unsupported,
     "{who} is connected by a Unix socket to a program outside of the job, which cannot be checkpointed; close that connection first"},
    {"Unix socket * with unreachable peer *", Errc::unsupported,
     "{who} is connected by a Unix socket to a program outside of the job, which cannot be checkpointed; close that connection first"},
    {"FATAL: Peer * unresolved for *", Errc::unsupported,
     "the job was connected by a Unix socket to a program outside of it, and cannot be restored from this checkpoint"},
    {"Can't dump nested * namespace for *", Errc::unsupported,
     "process {2} lives in a {1} namespace of its own (a container or sandbox inside the job), which cannot be checkpointed"},
    {"*doesn't have a proper root mount*", Errc::unsupported,
     "the job has a mount namespace of its own inside (a container or sandbox), which cannot be checkpointed"},
    {"Unseizable non-zombie * found*", Errc::unsupported,
     "process {1} is being debugged or traced (gdb, strace), and cannot be checkpointed until that ends"},
    {"Task * with SysVIPC shmem map @* doesn't live in IPC ns*", Errc::unsupported,
     "process {1} uses System V shared memory, which cannot be checkpointed; use POSIX shared memory (shm_open) or files"},
    {"Can't dump file * of that type [*] (anon anon_inode:[*])*", Errc::unsupported,
     "{who} has an open descriptor of kind {3}, which cannot be checkpointed"},
    {"Can't dump file * of that type [*] (*)*", Errc::unsupported, "{who} has descriptor {1} open on {3}, which cannot be checkpointed"},
    {"The packetized mode for pipes is not supported yet*", Errc::unsupported,
     "{who} has a pipe in packet mode (O_DIRECT), which cannot be checkpointed"},
    {"Can't lookup mount=* for fd=* path=*", Errc::unsupported,
     "{who} has {3} open, which no file system of its mount namespace shows (message queues and secret memory are such), "
     "and cannot be checkpointed"},
    {"The root process * is not a session leader*", Errc::unsupported, "process {1} does not lead its session, and cannot be checkpointed"},
    {"A session leader of * is outside of its pid namespace*", Errc::unsupported,
     "process {1} belongs to a session that began outside of the job, and cannot be checkpointed"},
    {"Zombies with threads are not supported*", Errc::unsupported,
     "a program's main thread has ended while others run on, which cannot be checkpointed"},
    {"File * has bad size * (expect *)*", Errc::invalid,
     "the file /{1} has changed since the checkpoint: it has {2} bytes, and had {3}; the job cannot go on with it"},
    {"File * has bad mode *", Errc::invalid, "the file /{1} has changed since the checkpoint: it is of another kind"},
    {"File * has bad build-ID*", Errc::invalid,
     "the program or library /{1} has been replaced since the checkpoint; put back the old version"},
    {"Can't open file * on restore: No such file or directory*", Errc::invalid,
     "the file /{1}, which the job had open, does not exist here any more"},
    {"Can't open file * on restore: Permission denied*", Errc::invalid,
     "the file /{1}, which the job had open, may not be opened by its user any more"},
    {"Can't open file * on restore: *", Errc::invalid, "the file /{1}, which the job had open, cannot be opened: {2}"},
    {"Can't open file *: No such file or directory*", Errc::invalid, "the file /{1}, which the job had open, does not exist here any more"},
    {"Can't fork for *: File exists*", Errc::busy, "the process number {1} of the image is in use already; try again"},
    {"*: No space left on device*", Errc::no_space, "the place for images on the node is full ({1}: no space left on device)"},
    {"*: Disk quota exceeded*", Errc::no_space, "the place for images on the node is full ({1}: quota exceeded)"},
    {"*Can't get rlimit *: Operation not permitted*", Errc::unsupported,
     "criu may not read the limits of the job's processes: it lacks CAP_SYS_RESOURCE, and this version cannot do without"},
    {"Incompatible image version*", Errc::unsupported, "the image was made by a newer version of criu; install that version here too"},
    {"Magic doesn't match for *", Errc::corrupt, "the image's {1} is no file of criu's, or is damaged"},
    {"Read * bytes while * expected on *: *", Errc::corrupt, "the image is damaged: {3} ends too early"},
    {"Unexpected EOF on *", Errc::corrupt, "the image's {1} ends too early"},
    {"Can't bind inet socket*Address already in use*", Errc::unsupported, "the job listens on a port that is in use on this node"},
    {"Can't restore CPU*", Errc::unsupported, "this node's processor lacks what the job used; restart it on a node of the same kind"},
    {"CPU * are not matching*", Errc::unsupported, "this node's processor lacks what the job used; restart it on a node of the same kind"},
    {"*kerndat_*", Errc::unavailable, "criu cannot work with this kernel ({0}); install a newer version of criu"},
    {"Could not initialize kernel features detection*", Errc::unavailable,
     "criu cannot work with this kernel; install a newer version of criu"},
});

struct Line {
    std::string_view message;
    std::size_t dumped = 0;  // which process was being dumped: index into Log::processes + 1
};

struct Log {
    std::vector<Line> errors;
    std::vector<std::string> processes;  // "process 12 (python3)"
};

// `*` stands for anything, the shortest first. The parts are what they stood for.
bool matches(std::string_view pattern, std::string_view text, std::vector<std::string>& parts) {
    const auto star = pattern.find('*');
    if (star == std::string_view::npos) return pattern == text;
    if (!text.starts_with(pattern.substr(0, star))) return false;
    pattern.remove_prefix(star + 1);
    text.remove_prefix(star);
    for (std::size_t length = 0; length <= text.size(); ++length) {
        parts.emplace_back(text.substr(0, length));
        const std::size_t mark = parts.size();
        if (matches(pattern, text.substr(length), parts)) return true;
        parts.resize(mark - 1);
    }
    return false;
}

// "(00.012345) " in front, or "pie: " for what criu runs inside a process; while processes are restored then "     12: ".
std::string_view without_time(std::string_view line) {
    constexpr std::string_view kInside = "pie: ";
    if (line.starts_with(kInside)) line.remove_prefix(kInside.size());
    if (line.starts_with('(')) line.remove_prefix(std::min(line.size(), line.find(')') + 1));
    while (!line.empty() && (line.front() == ' ')) line.remove_prefix(1);
    const auto digits = std::ranges::find_if_not(line, [](unsigned char c) { return std::isdigit(c) != 0; });
    if (digits != line.begin() && digits != line.end() && *digits == ':')
        line.remove_prefix(static_cast<std::size_t>(digits - line.begin()) + 1);
    while (!line.empty() && (line.front() == ' ')) line.remove_prefix(1);
    return line;
}

// "Error (criu/sk-inet.c:200): inet: Connected …": the message without the place in criu's source and the subsystem's name.
std::string_view message_of(std::string_view line) {
    const auto place = line.find("): ");
    if (place != std::string_view::npos) line.remove_prefix(place + 3);
    const auto word = std::ranges::find_if_not(line, [](unsigned char c) { return std::islower(c) != 0 || c == '-' || c == '_'; });
    const std::string_view rest(word, line.end());
    return word != line.begin() && rest.starts_with(": ") ? rest.substr(2) : line;
}

// Not causes: criu complains of these in runs that succeed.
bool is_harmless(std::string_view message) {
    return message.contains("RLIMIT_NOFILE") || message.contains("Setup RLIMIT") || message.contains("Can't restore GRO");
}

// "Dumping task (pid: 12 comm: python3)"
std::optional<std::string> dumped_process(std::string_view line) {
    std::vector<std::string> parts;
    if (!matches("Dumping task (pid: * comm: *)*", line, parts)) return std::nullopt;
    return std::format("process {} ({})", parts[0], parts[1]);
}

Log read_lines(std::string_view text) {
    Log log;
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        const std::string_view line = without_time(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
        if (auto process = dumped_process(line)) log.processes.push_back(std::move(*process));
        if (!line.starts_with("Error (")) continue;
        const std::string_view message = message_of(line);
        if (!is_harmless(message)) log.errors.push_back({message, log.processes.size()});
    }
    return log;
}

std::string fill_in(std::string_view sentence, const std::vector<std::string>& parts, const std::string& who, std::string_view message) {
    std::string text;
    while (!sentence.empty()) {
        const auto open = std::min(sentence.find('{'), sentence.size());
        text += sentence.substr(0, open);
        sentence.remove_prefix(open);
        const auto close = sentence.find('}');
        if (close == std::string_view::npos) break;
        const std::string_view name = sentence.substr(1, close - 1);
        sentence.remove_prefix(close + 1);
        const std::size_t number = static_cast<std::size_t>(name.empty() ? '0' : name[0]) - '0';
        if (name == "who") text += who;
        else if (name == "0") text += message;
        else if (number <= parts.size()) text += parts[number - 1];
    }
    return text;
}

}  // namespace

std::optional<Error> explain_log(std::string_view text) {
    const Log log = read_lines(text);
    for (const Rule& rule : kRules) {
        for (const Line& line : log.errors) {
            std::vector<std::string> parts;
            if (!matches(rule.pattern, line.message, parts)) continue;
            const std::string who = line.dumped > 0 ? log.processes[line.dumped - 1] : "a process of the job";
            return Error{rule.code, fill_in(rule.sentence, parts, who, line.message)};
        }
    }
    if (log.errors.empty()) return std::nullopt;
    return Error{Errc::io, std::format("criu failed: {}", log.errors.front().message)};
}

}  // namespace sckpt::criu
