// SPDX-License-Identifier: GPL-3.0-or-later
//
// Page maps as CRIU writes them, made by hand.
#include "backend/criu/page_runs.h"

#include <cstring>
#include <optional>

#include <fcntl.h>

#include "backend/backend.h"
#include "tests/unit/image_store_tools.h"

using namespace sckpt;
using test::TempDir;
using test::write_text;

namespace {

constexpr std::uint64_t kParent = 1, kLazy = 2, kPresent = 4;

std::string varint(std::uint64_t value) {
    std::string bytes;
    for (; value >= 128; value >>= 7) bytes += static_cast<char>(value | 128);
    return bytes + static_cast<char>(value);
}
std::string field(unsigned number, std::uint64_t value) { return varint(number << 3) + varint(value); }
std::string word(std::uint32_t value) { return {reinterpret_cast<const char*>(&value), sizeof value}; }
std::string message(const std::string& bytes) { return word(static_cast<std::uint32_t>(bytes.size())) + bytes; }
std::string head(unsigned pages_id) { return word(0x54564319) + word(0x56084025) + message(field(1, pages_id)); }
std::string entry(std::uint64_t address, std::uint64_t pages, std::uint64_t flags) {
    return message(field(1, address) + field(2, pages) + field(4, flags) + field(5, pages));
}
std::string old_entry(std::uint64_t address, std::uint64_t pages, std::optional<bool> in_parent = {}) {
    return message(field(1, address) + field(2, pages) + (in_parent ? field(3, *in_parent) : ""));
}

struct Image {
    TempDir directory;
    std::uint64_t page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    void write(const std::string& name, const std::string& bytes) { write_text(directory / name, bytes); }
    void pages(unsigned id, std::uint64_t count) { write(std::format("pages-{}.img", id), std::string(count * page, 'x')); }
    Result<PageRuns> read(const std::string& backend = "criu") {
        auto fd = open_file(directory / ".", O_RDONLY | O_DIRECTORY);
        REQUIRE(fd);
        return page_runs(backend, fd->get());
    }
    std::vector<PageRun> runs_of_first() {
        const auto runs = read();
        if (!runs) FAIL(runs.error().text);
        REQUIRE(runs->size() == 1);
        return runs->at("pages-1.img");
    }
};

void refused(Image& image, const std::string& bytes) {
    image.write("pagemap-7.img", bytes);
    const auto runs = image.read();
    REQUIRE_FALSE(runs);
    CHECK(runs.error().code == Errc::invalid);
}

}  // namespace

TEST_CASE("entries that follow one another in memory are one run, and pages that are not in the file have no bytes") {
    Image image;
    const std::uint64_t page = image.page;
    image.write("pagemap-7.img", head(1) + entry(0x10000, 2, kPresent) + entry(0x10000 + 2 * page, 3, kPresent | kLazy) +
                                     entry(0x10000 + 5 * page, 4, kParent) + entry(0x10000 + 9 * page, 1, kLazy) +
                                     entry(0x10000 + 10 * page, 1, kPresent) + entry(0x7fff00000000, 2, kPresent));
    image.pages(1, 8);
    CHECK(image.runs_of_first() == std::vector<PageRun>{{0, 5 * page, 0x10000},
                                                        {5 * page, page, 0x10000 + 10 * page},
                                                        {6 * page, 2 * page, 0x7fff00000000}});
}

TEST_CASE("images of older versions, without flags") {
    Image image;
    image.write("pagemap-7.img", head(1) + old_entry(0x10000, 2) + old_entry(0x20000, 1, true) + old_entry(0x30000, 1, false));
    image.pages(1, 3);
    CHECK(image.runs_of_first() == std::vector<PageRun>{{0, 2 * image.page, 0x10000}, {2 * image.page, image.page, 0x30000}});
}

TEST_CASE("each page map has a file of its own; shared memory too; other files are left alone") {
    Image image;
    image.write("pagemap-7.img", head(1) + entry(0x10000, 2, kPresent));
    image.write("pagemap-shmem-9.img", head(2) + entry(0, 1, kPresent));
    image.write("core-7.img", "not a page map");
    image.write("pagemap-8.img", head(3));  // of no pages at all: the file need not be there
    image.pages(1, 2);
    image.pages(2, 1);
    const auto runs = image.read();
    REQUIRE(runs);
    CHECK(runs->size() == 2);
    CHECK(runs->at("pages-2.img") == std::vector<PageRun>{{0, image.page, 0}});
}

TEST_CASE("what is not understood is refused") {
    Image image;
    image.pages(1, 2);
    const std::string good = head(1) + entry(0x10000, 2, kPresent);
    refused(image, "");
    refused(image, good.substr(0, 3));
    refused(image, word(0x54564319) + word(0x12345678) + message(field(1, 1)));
    refused(image, word(0x54564319) + word(0x56084025) + message(field(2, 1)));
    refused(image, good.substr(0, good.size() - 1));
    refused(image, good + word(0xffffffff));
    refused(image, good + message(std::string(300, '\x08')));
    refused(image, good + message("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"));
    refused(image, head(1) + entry(0x10000, 1, kPresent));  // the file has two pages
    refused(image, head(1) + entry(0x10000, 3, kPresent));
    refused(image, head(1) + entry(~0ull - image.page, 2, kPresent));  // beyond the end of memory
    refused(image, head(1) + entry(0x10000, std::uint64_t{1} << 61, kPresent));
    refused(image, head(1) + entry(0x10000, 0, kPresent));
    image.write("pagemap-7.img", good);
    image.write("pagemap-8.img", good);  // the same pages twice
    CHECK_FALSE(image.read());
}

TEST_CASE("a page map without its pages is no image") {
    Image image;
    image.write("pagemap-7.img", head(1) + entry(0x10000, 2, kPresent));
    CHECK_FALSE(image.read());
}

TEST_CASE("another backend's files say nothing") {
    Image image;
    image.write("pagemap-7.img", "nonsense");
    const auto runs = image.read("dmtcp");
    REQUIRE(runs);
    CHECK(runs->empty());
}
