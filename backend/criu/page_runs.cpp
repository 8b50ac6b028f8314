// SPDX-License-Identifier: GPL-3.0-or-later
//
// A pagemap-*.img is two magic numbers, then messages of protobuf, each after its length in 32 bits: a pagemap_head with the
// number of the file that has the pages, and a pagemap_entry for each run of pages. The pages that are present lie in that file
// in the order of the entries. CRIU wrote it, but of a user's memory: every number is checked, and a file that is not understood
// only costs the store its chances.
#include "backend/criu/page_runs.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <format>
#include <memory>
#include <optional>

#include "backend/backend.h"
#include "backend/criu/varint.h"
#include "common/fd.h"

namespace sckpt {
namespace criu {
namespace {

constexpr std::uint32_t kCommonMagic = 0x54564319, kPagemapMagic = 0x56084025;
constexpr std::uint64_t kParent = 1, kPresent = 4;  // pages in an earlier image; pages in the pages file
constexpr std::size_t kMessageLimit = 256;          // a pagemap_entry has 40 bytes at most
constexpr std::size_t kRunLimit = 1u << 20;         // in all; memory beyond it is cut at file offsets

// Reads through a buffer.
class Reader {
   public:
    Reader(UniqueFd fd, std::string name) : fd_(std::move(fd)), name_(std::move(name)) {}

    Result<std::optional<std::uint32_t>> number() {  // none: the end
        SCKPT_TRY(need(4));
        if (have_ == 0) return std::nullopt;
        if (have_ < 4) return broken("is cut off");
        std::uint32_t value;
        std::memcpy(&value, buffer_.data() + at_, 4);  // CRIU writes its own byte order
        skip(4);
        return value;
    }
    Result<std::string_view> message(std::size_t size) {  // valid until the next call
        if (size > kMessageLimit) return broken("has a message of an impossible size");
        SCKPT_TRY(need(size));
        if (have_ < size) return broken("is cut off");
        const std::string_view bytes(buffer_.data() + at_, size);
        skip(size);
        return bytes;
    }
    std::unexpected<Error> broken(std::string_view why) const { return fail(Errc::invalid, std::format("{} {}", name_, why)); }

   private:
    void skip(std::size_t size) {
        at_ += size;
        have_ -= size;
    }
    Result<> need(std::size_t size) {
        if (have_ >= size) return {};
        std::memmove(buffer_.data(), buffer_.data() + at_, have_);
        at_ = 0;
        while (have_ < size) {
            const ssize_t got = ::read(fd_.get(), buffer_.data() + have_, buffer_.size() - have_);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) return fail_errno("read " + name_);
            if (got == 0) return {};
            have_ += static_cast<std::size_t>(got);
        }
        return {};
    }

    UniqueFd fd_;
    std::string name_;
    std::array<char, 65536> buffer_;
    std::size_t at_ = 0, have_ = 0;
};

// Fields 1 to 5 of a message whose fields are all numbers.
using Fields = std::array<std::optional<std::uint64_t>, 6>;
std::optional<Fields> parse_fields(std::string_view message) {
    Fields fields;
    while (!message.empty()) {
        const auto key = take_varint(message);
        if (!key || (*key & 7) != 0) return std::nullopt;
        const auto value = take_varint(message);
        if (!value) return std::nullopt;
        if (const std::uint64_t number = *key >> 3; number < fields.size()) fields[number] = value;
    }
    return fields;
}

struct Pages {
    std::uint64_t address = 0, bytes = 0;  // bytes 0: these are not in the pages file
};
std::optional<Pages> parse_entry(std::string_view message, std::uint64_t page_size) {
    const auto fields = parse_fields(message);
    if (!fields) return std::nullopt;
    const auto& [unused, address, old_count, in_parent, flags, count] = *fields;
    if (!address || !old_count) return std::nullopt;
    std::uint64_t kind = flags.value_or(0);
    if (in_parent.value_or(0) != 0) kind |= kParent;
    else if (!flags) kind = kPresent;  // images of old versions have no flags
    const std::uint64_t pages = count.value_or(*old_count);
    if (pages == 0 || pages > (std::uint64_t{1} << 63) / page_size || *address > ~std::uint64_t{0} - pages * page_size)
        return std::nullopt;
    return Pages{*address, (kind & kPresent) != 0 ? pages * page_size : 0};
}

class PageMaps {
   public:
    explicit PageMaps(int directory) : directory_(directory) {}

    Result<> read(const std::string& name) {
        SCKPT_ASSIGN(UniqueFd fd, open_at(directory_, name, O_RDONLY | O_NOFOLLOW));
        const auto file = std::make_unique<Reader>(std::move(fd), name);
        SCKPT_ASSIGN(const std::string pages, read_head(*file));
        if (runs_.contains(pages)) return file->broken("names pages of another page map");
        std::vector<PageRun>& runs = runs_[pages];
        std::uint64_t offset = 0;
        for (;;) {
            SCKPT_ASSIGN(const auto size, file->number());
            if (!size) break;
            SCKPT_ASSIGN(const std::string_view message, file->message(*size));
            const auto entry = parse_entry(message, page_size_);
            if (!entry || entry->bytes > static_cast<std::uint64_t>(INT64_MAX) - offset)
                return file->broken("has an entry that is not understood");
            add(runs, offset, *entry);
            offset += entry->bytes;
        }
        return check_size(pages, offset);
    }
    PageRuns take() { return std::move(runs_); }

   private:
    Result<std::string> read_head(Reader& file) const {
        SCKPT_ASSIGN(const auto common, file.number());
        SCKPT_ASSIGN(const auto magic, file.number());
        if (common != kCommonMagic || magic != kPagemapMagic) return file.broken("is no page map that is known");
        SCKPT_ASSIGN(const auto size, file.number());
        SCKPT_ASSIGN(const std::string_view message, file.message(size.value_or(0)));
        const auto fields = parse_fields(message);
        if (!fields || !(*fields)[1]) return file.broken("does not say where its pages are");
        return std::format("pages-{}.img", *(*fields)[1]);
    }

    void add(std::vector<PageRun>& runs, std::uint64_t offset, const Pages& entry) {
        if (entry.bytes == 0) return;
        if (!runs.empty()) {
            PageRun& last = runs.back();
            if (last.offset + last.bytes == offset && last.address + last.bytes == entry.address) {
                last.bytes += entry.bytes;
                return;
            }
        }
        if (count_ == kRunLimit) return;
        ++count_;
        runs.push_back({offset, entry.bytes, entry.address});
    }

    Result<> check_size(const std::string& pages, std::uint64_t bytes) {
        struct stat facts{};
        if (::fstatat(directory_, pages.c_str(), &facts, AT_SYMLINK_NOFOLLOW) != 0) {
            if (errno != ENOENT || bytes != 0) return fail_errno("look at " + pages);
            runs_.erase(pages);
            return {};
        }
        if (static_cast<std::uint64_t>(facts.st_size) != bytes)
            return fail(Errc::invalid, std::format("{} has {} bytes, its page map {}", pages, facts.st_size, bytes));
        return {};
    }

    int directory_;
    const std::uint64_t page_size_ = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    PageRuns runs_;
    std::size_t count_ = 0;
};

}  // namespace

Result<PageRuns> page_runs(int image_directory) {
    SCKPT_ASSIGN(UniqueFd copy, open_at(image_directory, ".", O_RDONLY | O_DIRECTORY));
    const std::unique_ptr<DIR, int (*)(DIR*)> entries(::fdopendir(copy.get()), ::closedir);
    if (!entries) return fail_errno("list the image");
    (void)copy.release();  // closedir closes it
    PageMaps maps(image_directory);
    errno = 0;
    while (const dirent* entry = ::readdir(entries.get())) {
        const std::string_view name = entry->d_name;
        if (name.starts_with("pagemap-") && name.ends_with(".img")) SCKPT_TRY(maps.read(std::string(name)));
        errno = 0;
    }
    if (errno != 0) return fail_errno("list the image");
    return maps.take();
}

}  // namespace criu

Result<PageRuns> page_runs(const std::string& backend, int image_directory) {
    return backend == "criu" ? criu::page_runs(image_directory) : PageRuns();
}

}  // namespace sckpt
