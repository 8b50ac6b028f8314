// SPDX-License-Identifier: GPL-3.0-or-later
//
// Whom the files of an image belong to while a process of another user works on them, and afterwards.
#include <filesystem>
#include <string>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/owned_tree.h"
#include "tests/unit/store_client_tools.h"

using namespace sckpt;
using namespace sckpt::test;
namespace fs = std::filesystem;

TEST_CASE("a tree is taken over only when it is plain files and directories, and nobody writes to it any more") {
    const TempDir top;
    const std::string tree = top / "tree";
    fs::create_directories(tree + "/below");
    write_text(tree + "/below/a.img", "a");
    const UniqueFd directory(::open(tree.c_str(), O_RDONLY | O_DIRECTORY));
    {
        const UniqueFd writer(::open((tree + "/below/a.img").c_str(), O_WRONLY));
        const auto taken = take_over(directory.get());
        REQUIRE_FALSE(taken.has_value());
        CHECK(taken.error().code == Errc::denied);
        CHECK(taken.error().text.contains("a.img"));
    }
    CHECK(take_over(directory.get()).has_value());
    CHECK(is_private(tree));
    CHECK(let_read(directory.get(), ::getegid()).has_value());
    CHECK((fs::status(tree + "/below").permissions() & fs::perms::mask) == fs::perms(0750));
    CHECK((fs::status(tree + "/below/a.img").permissions() & fs::perms::mask) == fs::perms(0640));
    CHECK(take_back(directory.get()).has_value());
    CHECK(is_private(tree));

    REQUIRE(::mkfifo((tree + "/fifo").c_str(), 0600) == 0);
    CHECK(take_over(directory.get()).error().code == Errc::invalid);
    fs::remove(tree + "/fifo");
    fs::create_symlink("/etc/passwd", tree + "/link");
    const auto mode = fs::status("/etc/passwd").permissions();
    CHECK_FALSE(take_over(directory.get()).has_value());
    CHECK(fs::status("/etc/passwd").permissions() == mode);
}
