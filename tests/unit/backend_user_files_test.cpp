// SPDX-License-Identifier: GPL-3.0-or-later
#include <catch2/catch_test_macros.hpp>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <sys/stat.h>

#include "backend/criu/user_files.h"
#include "common/fd.h"

using namespace sckpt;
using namespace sckpt::criu;
namespace fs = std::filesystem;

namespace {

struct Folder {
    fs::path path;
    Folder() {
        std::string name = fs::temp_directory_path() / "sckpt-user-files-XXXXXX";
        path = ::mkdtemp(name.data());
    }
    ~Folder() { fs::remove_all(path); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;

    UserFile file(const char* name, const std::string& bytes) const {
        std::ofstream(path / name) << bytes;
        struct stat status{};
        ::stat((path / name).c_str(), &status);
        return {path / name, status.st_ino, bytes.size(), false, false};
    }
    void write(const char* name, const std::string& bytes) const { std::ofstream(path / name) << bytes; }
};

}  // namespace

TEST_CASE("a file that grew since the checkpoint is cut back, one that did not is left alone") {
    const Folder folder;
    const UserFile grown = folder.file("grown", "abc"), same = folder.file("same", "xyz");
    folder.write("grown", "abcdef");
    REQUIRE(roll_back_files({grown, same}));
    CHECK(fs::file_size(grown.path) == 3);
    CHECK(fs::file_size(same.path) == 3);
}

TEST_CASE("nothing is cut back when one file does not fit") {
    const Folder folder;
    const UserFile grown = folder.file("grown", "abc"), odd = folder.file("odd", "xyz");
    folder.write("grown", "abcdef");
    std::string expected;
    SECTION("removed") {
        fs::remove(odd.path);
        expected = "was removed";
    }
    SECTION("shrunk") {
        folder.write("odd", "x");
        expected = "shrank from 3 to 1 bytes";
    }
    SECTION("replaced by a link") {
        fs::rename(odd.path, folder.path / "moved");
        fs::create_symlink(folder.path / "moved", odd.path);
        expected = "replaced by a symbolic link";
    }
    SECTION("replaced by another file") {
        folder.write("new", "xyz");
        fs::rename(folder.path / "new", odd.path);
        expected = "was replaced by another";
    }
    SECTION("replaced by a FIFO") {
        fs::remove(odd.path);
        REQUIRE(::mkfifo(odd.path.c_str(), 0600) == 0);
        expected = "cannot be opened for writing";
    }
    const auto done = roll_back_files({grown, odd});
    REQUIRE_FALSE(done);
    CHECK(done.error().code == Errc::invalid);
    CHECK(done.error().text.contains(odd.path));
    CHECK(done.error().text.contains(expected));
    CHECK(fs::file_size(grown.path) == 6);
}

TEST_CASE("the output is cut back only where the new task writes to the same file") {
    const Folder folder;
    const UserFile old = folder.file("out", "abc"), other = folder.file("other", "abc");
    folder.write("out", "abcdef");
    folder.write("other", "abcdef");
    std::array<TaskStream, 3> streams;
    streams[1] = {"file[1:2]", "", old.path, old.inode, 3, 3, true, true};
    for (const auto& [file, size] : {std::pair{old, 3u}, std::pair{other, 6u}}) {
        const auto fd = open_file(file.path, O_WRONLY | O_APPEND);
        REQUIRE(fd);
        REQUIRE(roll_back_streams(streams, {-1, fd->get(), -1}));
        CHECK(fs::file_size(file.path) == size);
    }
}

TEST_CASE("working directories must be there") {
    const Folder folder;
    CHECK(check_directories({folder.path, "/gone (deleted)"}));
    const auto missing = check_directories({folder.path / "missing"});
    REQUIRE_FALSE(missing);
    CHECK(missing.error().code == Errc::invalid);
    CHECK(missing.error().text.contains("missing"));
}
