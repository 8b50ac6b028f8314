// SPDX-License-Identifier: GPL-3.0-or-later
//
// A header of numbers, then the descriptors' numbers, then strings, each with its NUL: program, directory, arguments, environment.
#include "daemon/srun_launch.h"

#include <cstring>

#include <sys/mman.h>
#include <unistd.h>

namespace sckpt {

namespace {

constexpr std::uint32_t kMagic = 0x73636b6c;  // "sckl"

struct Limit {
    std::uint64_t soft = 0, hard = 0;
};

struct Header {
    std::uint32_t magic = kMagic;
    std::uint32_t file_mask = 0;
    std::int32_t nice = 0;
    std::uint32_t arguments = 0, variables = 0, descriptors = 0;
    std::uint64_t ignored = 0, blocked = 0;
    Limit limits[RLIMIT_NLIMITS];
};

template <class T>
void append(std::string& bytes, const T& value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// Takes values off the front; once something is missing, `good` stays false.
struct Reader {
    std::string_view rest;
    bool good = true;

    template <class T>
    void take(T& value) {
        good = good && rest.size() >= sizeof value;
        if (!good) return;
        std::memcpy(&value, rest.data(), sizeof value);
        rest.remove_prefix(sizeof value);
    }
    std::string text() {
        const std::size_t end = good ? rest.find('\0') : rest.npos;
        good = end != rest.npos;
        if (!good) return {};
        std::string found(rest.substr(0, end));
        rest.remove_prefix(end + 1);
        return found;
    }
};

bool is_descriptor(int number) { return number > STDERR_FILENO; }

}  // namespace

std::string to_bytes(const SrunLaunch& launch) {
    Header header;
    header.file_mask = launch.file_mask;
    header.nice = launch.nice;
    header.arguments = static_cast<std::uint32_t>(launch.argv.size());
    header.variables = static_cast<std::uint32_t>(launch.environment.size());
    header.descriptors = static_cast<std::uint32_t>(launch.descriptors.size());
    header.ignored = launch.ignored;
    header.blocked = launch.blocked;
    for (std::size_t i = 0; i < launch.limits.size() && i < RLIMIT_NLIMITS; ++i)
        header.limits[i] = {launch.limits[i].rlim_cur, launch.limits[i].rlim_max};
    std::string bytes;
    append(bytes, header);
    for (const int number : launch.descriptors) append(bytes, number);
    for (const std::string& text : {launch.program, launch.directory}) bytes.append(text.c_str(), text.size() + 1);
    for (const auto* texts : {&launch.argv, &launch.environment})
        for (const std::string& text : *texts) bytes.append(text.c_str(), text.size() + 1);
    return bytes;
}

Result<SrunLaunch> parse_srun_launch(std::string_view bytes) {
    Reader reader{bytes};
    Header header;
    reader.take(header);
    reader.good = reader.good && header.magic == kMagic;
    SrunLaunch launch;
    launch.file_mask = header.file_mask;
    launch.nice = header.nice;
    launch.ignored = header.ignored;
    launch.blocked = header.blocked;
    for (const Limit& limit : header.limits) launch.limits.push_back({limit.soft, limit.hard});
    for (std::uint32_t i = 0; reader.good && i < header.descriptors; ++i) {
        int number = -1;
        reader.take(number);
        reader.good = reader.good && is_descriptor(number);
        launch.descriptors.push_back(number);
    }
    launch.program = reader.text();
    launch.directory = reader.text();
    for (std::uint32_t i = 0; reader.good && i < header.arguments; ++i) launch.argv.push_back(reader.text());
    for (std::uint32_t i = 0; reader.good && i < header.variables; ++i) launch.environment.push_back(reader.text());
    if (!reader.good || !reader.rest.empty() || launch.argv.empty() || !launch.program.starts_with('/'))
        return fail(Errc::invalid, "what srun is to be started with cannot be read");
    return launch;
}

Result<UniqueFd> memory_file(const char* name, std::string_view bytes) {
    UniqueFd file(::memfd_create(name, MFD_CLOEXEC));
    if (!file) return fail_errno("make a memory file");
    SCKPT_TRY(write_all(file.get(), bytes));
    if (::lseek(file.get(), 0, SEEK_SET) != 0) return fail_errno("rewind a memory file");
    return file;
}

}  // namespace sckpt
