// SPDX-License-Identifier: GPL-3.0-or-later
//
// Keys and seals. No message here shows any part of a key.
#include "image_store/seal.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <format>

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "image_store/hash.h"

namespace sckpt {
namespace {

constexpr std::string_view kPurpose = "sckpt manifest 3";  // a seal of this format is one of no other
constexpr std::size_t kIdDigits = 8;
constexpr std::size_t kFileLimit = 64u << 10;
constexpr std::string_view kNewFile =
    "# The keys that seal the images of sckpt, one a line; the same file on every node, readable by root alone.\n"
    "# The first key seals, every key verifies: keep an old line as long as there are images under it.\n";

std::string_view trimmed(std::string_view line) {
    const std::size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string_view::npos) return {};
    return line.substr(first, line.find_last_not_of(" \t\r") - first + 1);
}

bool is_key_line(std::string_view line) { return !trimmed(line).empty() && trimmed(line).front() != '#'; }

// Calls `use` with each line and its number, from 1, until it fails.
template <class F>
Result<> for_each_line(std::string_view text, F use) {
    for (int number = 1; !text.empty(); ++number) {
        const std::size_t end = text.find('\n');
        SCKPT_TRY(use(text.substr(0, end), number));
        text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    }
    return {};
}

bool is_id(std::string_view text) {
    return text.size() == kIdDigits && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

// The file's bytes, when nobody but its owner, who must be the caller, can have read or written them.
Result<std::string> read_key_file(const std::string& path) {
    SCKPT_ASSIGN(const UniqueFd fd, open_file(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY));
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return fail_errno("stat " + path);
    if (!S_ISREG(st.st_mode)) return fail(Errc::denied, "the key file " + path + " is not a regular file");
    if (st.st_uid != ::geteuid() || (st.st_mode & 077) != 0)
        return fail(Errc::denied,
                    std::format("the key file {} belongs to uid {} with mode {:04o}: it must belong to uid {} with mode 0600, "
                                "since who has the key can make images that a restore accepts",
                                path, st.st_uid, st.st_mode & 07777, ::geteuid()));
    return read_all(fd.get(), path, kFileLimit);
}

Digest keyed_hash(const Digest& key, const ManifestParts& parts) {
    Blake3 hash(key);
    hash.update(kPurpose.data(), kPurpose.size());
    hash.update(parts.head.data(), parts.head.size());
    hash.update(parts.rest.data(), parts.rest.size());
    return hash.digest();
}

// In a time that does not tell where they differ.
bool same(const Digest& a, const Digest& b) {
    unsigned difference = 0;
    for (std::size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned>(a[i] ^ b[i]);
    return difference == 0;
}

// Gives the file its bytes unless there is one.
Result<> write_new_file(const std::string& path, const std::string& id, std::string_view bytes) {
    const std::string temporary = path + ".new-" + id;
    SCKPT_TRY(write_file_durable(temporary, bytes, 0600));
    if (::renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, path.c_str(), RENAME_NOREPLACE) != 0) {
        const auto failed = errno == EEXIST
            ? fail(Errc::exists, "there is a key file " + path + " already, and images need it: to change the key, rotate it")
            : fail_errno("rename " + temporary + " to " + path);
        ::unlink(temporary.c_str());
        return failed;
    }
    const std::string directory = std::filesystem::path(path).parent_path();
    return fsync_directory(directory.empty() ? "." : directory);
}

// `text` with a line more, before the first key and after the comments at the top.
std::string with_first_key(std::string_view text, const std::string& line) {
    std::size_t at = 0;
    while (at < text.size() && !is_key_line(text.substr(at, text.find('\n', at) - at))) at = text.find('\n', at) + 1;
    return std::string(text.substr(0, at)) + line + "\n" + std::string(text.substr(at));
}

}  // namespace

Result<SealKeys> SealKeys::load(const std::string& path) {
    auto text = read_key_file(path);
    if (!text && text.error().code == Errc::not_found)
        return fail(Errc::not_found, "there is no key file " + path + ": make it once with `sckpt-clean make-key`, and copy it "
                                     "to every node");
    if (!text) return std::unexpected(text.error());
    auto keys = parse(*text);
    if (!keys) return std::unexpected(keys.error().context("key file " + path));
    return keys;
}

Result<SealKeys> SealKeys::parse(std::string_view text) {
    SealKeys keys;
    SCKPT_TRY(for_each_line(text, [&](std::string_view line, int number) -> Result<> {
        if (!is_key_line(line)) return {};
        line = trimmed(line);
        const std::size_t space = line.find(' ');
        const std::string_view id = line.substr(0, space);
        const auto bytes = digest_from_hex(space == std::string_view::npos ? std::string_view() : line.substr(space + 1));
        if (!is_id(id) || !bytes)
            return fail(Errc::invalid,
                        std::format("line {} is not \"ID KEY\", of 8 and 64 lower-case hexadecimal digits", number));
        if (std::ranges::contains(keys.keys_, id, &Key::id))
            return fail(Errc::invalid, std::format("line {}: key {} is there twice", number, id));
        keys.keys_.push_back({std::string(id), *bytes});
        return {};
    }));
    if (keys.keys_.empty()) return fail(Errc::invalid, "it has no key");
    return keys;
}

Seal SealKeys::seal(const ManifestParts& parts) const { return {keys_.front().id, keyed_hash(keys_.front().bytes, parts)}; }

Result<> SealKeys::verify(const ManifestParts& parts, const Seal& seal) const {
    if (!is_id(seal.key_id)) return fail(Errc::corrupt, "it has no seal: it was changed, or never finished");
    const auto key = std::ranges::find(keys_, seal.key_id, &Key::id);
    if (key == keys_.end())
        return fail(Errc::unsupported,
                    std::format("it is sealed under key {}, which the key file of this node does not have", seal.key_id));
    if (same(keyed_hash(key->bytes, parts), seal.value)) return {};
    return fail(Errc::corrupt, "its seal does not match: it was changed, or made by someone without the key");
}

Result<std::string> make_key_line() {
    std::array<std::uint8_t, sizeof(Digest) + kIdDigits / 2> random{};
    ssize_t n = -1;
    do n = ::getrandom(random.data(), random.size(), 0);  // up to 256 bytes come whole
    while (n < 0 && errno == EINTR);
    if (n != static_cast<ssize_t>(random.size())) return fail_errno("get random bytes");
    Digest key{}, id{};
    std::copy_n(random.begin(), key.size(), key.begin());
    std::copy(random.begin() + key.size(), random.end(), id.begin());
    return to_hex(id).substr(0, kIdDigits) + " " + to_hex(key);
}

Result<std::string> write_key_file(const std::string& path, bool rotate) {
    SCKPT_ASSIGN(const std::string line, make_key_line());
    std::string id = line.substr(0, kIdDigits);
    if (!rotate) {
        SCKPT_TRY(write_new_file(path, id, std::string(kNewFile) + line + "\n"));
        return id;
    }
    SCKPT_TRY(SealKeys::load(path));
    SCKPT_ASSIGN(const std::string text, read_key_file(path));
    SCKPT_TRY(write_file_durable(path, with_first_key(text, line), 0600));
    return id;
}

}  // namespace sckpt
