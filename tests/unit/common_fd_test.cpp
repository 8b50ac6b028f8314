// SPDX-License-Identifier: GPL-3.0-or-later
//
// Descriptors, files, trees and messages, in a directory of the test's own.
#include "common/fd.h"

#include <catch2/catch_test_macros.hpp>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>

using namespace sckpt;
namespace fs = std::filesystem;

namespace {

struct TemporaryDirectory {
    TemporaryDirectory() {
        char name[] = "/tmp/sckpt-fd-test.XXXXXX";
        REQUIRE(::mkdtemp(name) != nullptr);
        path = name;
    }
    ~TemporaryDirectory() {
        std::error_code ignored;
        fs::remove_all(path, ignored);
    }
    std::string operator/(const std::string& name) const { return path + "/" + name; }
    std::string path;
};

void write_file(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }
unsigned mode_of(const std::string& path) {
    struct stat st {};
    REQUIRE(::stat(path.c_str(), &st) == 0);
    return st.st_mode & 07777;
}
std::size_t entries_in(const std::string& path) {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path), {}));
}

struct SocketPair {
    explicit SocketPair(int type = SOCK_SEQPACKET) {
        int ends[2];
        REQUIRE(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) == 0);
        a.reset(ends[0]);
        b.reset(ends[1]);
    }
    UniqueFd a, b;
};

// A full pipe makes no file fail half-way, a size limit does. SIGXFSZ must be ignored for write(2) to say EFBIG.
struct FileSizeLimit {
    explicit FileSizeLimit(rlim_t bytes) {
        before_handler = ::signal(SIGXFSZ, SIG_IGN);
        REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
        rlimit limit = before;
        limit.rlim_cur = bytes;
        REQUIRE(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
    }
    ~FileSizeLimit() {
        ::setrlimit(RLIMIT_FSIZE, &before);
        ::signal(SIGXFSZ, before_handler);
    }
    rlimit before{};
    sighandler_t before_handler{};
};

}  // namespace

TEST_CASE("UniqueFd owns its descriptor") {
    int raw = -1;
    {
        UniqueFd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        REQUIRE(fd);
        raw = fd.get();
        UniqueFd moved(std::move(fd));
        CHECK_FALSE(fd);  // NOLINT: what a moved-from one says is part of the contract
        CHECK(moved.get() == raw);
        UniqueFd other(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        const int replaced = other.get();
        other = std::move(moved);
        CHECK_FALSE(is_open(replaced));
        CHECK(is_open(raw));
    }
    CHECK_FALSE(is_open(raw));
    UniqueFd kept(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    raw = kept.get();
    CHECK(kept.release() == raw);
    CHECK(is_open(raw));
    ::close(raw);
}

TEST_CASE("open: close-on-exec always, and errors keep their kind") {
    const TemporaryDirectory dir;
    const auto made = open_file(dir / "a", O_CREAT | O_WRONLY | O_EXCL, 0600);
    REQUIRE(made.has_value());
    CHECK((::fcntl(made->get(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(open_file(dir / "a", O_CREAT | O_WRONLY | O_EXCL, 0600).error().code == Errc::exists);
    const auto missing = open_file(dir / "missing", O_RDONLY);
    REQUIRE_FALSE(missing.has_value());
    CHECK(missing.error().code == Errc::not_found);
    CHECK(missing.error().text.contains(dir / "missing"));
    const auto top = open_file(dir.path, O_RDONLY | O_DIRECTORY);
    REQUIRE(top.has_value());
    CHECK(open_at(top->get(), "a", O_RDONLY).has_value());
}

TEST_CASE("read_file: whole files, /proc included, up to the limit") {
    const TemporaryDirectory dir;
    const std::string text(50'000, 'x');
    write_file(dir / "a", text);
    CHECK(read_file(dir / "a").value() == text);
    CHECK(read_file(dir / "a", text.size()).value() == text);
    CHECK(read_file(dir / "a", text.size() - 1).error().code == Errc::invalid);
    CHECK(read_file("/proc/self/stat").value().starts_with(std::to_string(::getpid())));
    CHECK(read_file(dir / "missing").error().code == Errc::not_found);
    CHECK_FALSE(read_file(dir.path).has_value());
}

TEST_CASE("write_file_durable: new bytes and mode, no trace beside them") {
    const TemporaryDirectory dir;
    const ::mode_t mask = ::umask(0077);
    CHECK(write_file_durable(dir / "a", "first", 0644).has_value());
    CHECK(write_file_durable(dir / "a", "second", 0640).has_value());
    ::umask(mask);
    CHECK(read_file(dir / "a").value() == "second");
    CHECK(mode_of(dir / "a") == 0640);
    CHECK(entries_in(dir.path) == 1);
    CHECK(write_file_durable(dir / "missing/a", "x", 0600).error().code == Errc::not_found);
}

TEST_CASE("write_file_durable: a failure leaves the old file and nothing else") {
    const TemporaryDirectory dir;
    REQUIRE(write_file_durable(dir / "a", "old", 0600).has_value());
    {
        const FileSizeLimit limit(4096);
        CHECK_FALSE(write_file_durable(dir / "a", std::string(10'000, 'n'), 0600).has_value());
    }
    CHECK(read_file(dir / "a").value() == "old");
    CHECK(entries_in(dir.path) == 1);
    REQUIRE(make_directories(dir / "d/in-the-way", 0700).has_value());
    CHECK_FALSE(write_file_durable(dir / "d", "x", 0600).has_value());
    CHECK(entries_in(dir.path) == 2);
}

TEST_CASE("make_directories") {
    const TemporaryDirectory dir;
    const ::mode_t mask = ::umask(0);
    CHECK(make_directories(dir / "a/b//c/", 0750).has_value());
    ::umask(mask);
    CHECK(mode_of(dir / "a") == 0750);
    CHECK(mode_of(dir / "a/b/c") == 0750);
    CHECK(make_directories(dir / "a/b", 0700).has_value());
    CHECK(mode_of(dir / "a/b") == 0750);
    write_file(dir / "file", "");
    CHECK(make_directories(dir / "file", 0700).error().code == Errc::invalid);
    CHECK_FALSE(make_directories(dir / "file/below", 0700).has_value());
    CHECK_FALSE(make_directories("", 0700).has_value());
    CHECK(make_directories("/", 0700).has_value());
}

TEST_CASE("remove_tree removes the tree, and nothing that links point to") {
    const TemporaryDirectory dir;
    REQUIRE(make_directories(dir / "outside/kept", 0700).has_value());
    write_file(dir / "outside/kept/file", "kept");
    REQUIRE(make_directories(dir / "tree/a/b/c", 0700).has_value());
    for (int i = 0; i < 500; ++i) write_file(dir / ("tree/a/file" + std::to_string(i)), "x");
    fs::create_directory_symlink(dir / "outside", dir / "tree/a/link");
    fs::create_symlink(dir / "outside/kept/file", dir / "tree/link");
    fs::create_symlink("/nowhere", dir / "tree/dangling");
    CHECK(remove_tree(dir / "tree").has_value());
    CHECK_FALSE(fs::exists(dir / "tree"));
    CHECK(read_file(dir / "outside/kept/file").value() == "kept");

    fs::create_directory_symlink(dir / "outside", dir / "top-link");
    CHECK(remove_tree(dir / "top-link/").has_value());  // the link itself goes, whatever the slash says
    CHECK_FALSE(fs::is_symlink(dir / "top-link"));
    CHECK(read_file(dir / "outside/kept/file").value() == "kept");
}

TEST_CASE("remove_tree: a missing one is success, a plain file goes, what cannot be removed is told") {
    const TemporaryDirectory dir;
    CHECK(remove_tree(dir / "missing").has_value());
    write_file(dir / "file", "x");
    CHECK(remove_tree(dir / "file").has_value());
    CHECK_FALSE(fs::exists(dir / "file"));
    const auto refused = remove_tree("/proc/self/fd");
    CHECK_FALSE(refused.has_value());
}

TEST_CASE("messages carry bytes and descriptors") {
    const SocketPair pair;
    const TemporaryDirectory dir;
    write_file(dir / "a", "through the socket");
    const UniqueFd file(::open((dir / "a").c_str(), O_RDONLY | O_CLOEXEC));
    const int fds[] = {file.get(), file.get()};
    REQUIRE(send_message(pair.a.get(), std::string_view("he\0llo", 6), fds, 2).has_value());
    REQUIRE(send_message(pair.a.get(), "second").has_value());
    auto first = receive_message(pair.b.get(), 5000);
    REQUIRE(first.has_value());
    CHECK(first->bytes == std::string_view("he\0llo", 6));
    REQUIRE(first->fds.size() == 2);
    CHECK(first->fds[0].get() != file.get());
    CHECK((::fcntl(first->fds[0].get(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(read_all(first->fds[0].get(), "a").value() == "through the socket");
    const auto second = receive_message(pair.b.get(), 5000);
    CHECK(second->bytes == "second");
    CHECK(second->fds.empty());
}

TEST_CASE("messages: the peer's end, deadlines and limits") {
    SocketPair pair;
    CHECK(receive_message(pair.b.get(), 0).error().code == Errc::timeout);
    CHECK(receive_message(pair.b.get(), 20).error().code == Errc::timeout);
    CHECK_FALSE(send_message(pair.a.get(), "").has_value());

    REQUIRE(send_message(pair.a.get(), std::string(100, 'x')).has_value());
    CHECK(receive_message(pair.b.get(), 1000, 99).error().code == Errc::invalid);
    REQUIRE(send_message(pair.a.get(), std::string(100, 'x')).has_value());
    CHECK(receive_message(pair.b.get(), 1000, 100)->bytes.size() == 100);

    std::jthread later([&] { CHECK(send_message(pair.a.get(), "late").has_value()); });
    CHECK(receive_message(pair.b.get(), -1)->bytes == "late");
    later.join();

    pair.a.reset();
    CHECK(receive_message(pair.b.get(), 1000)->bytes.empty());
    CHECK(send_message(pair.b.get(), "to nobody").error().code == Errc::unavailable);  // and no SIGPIPE
}

TEST_CASE("messages: more descriptors than are accepted are refused and not leaked") {
    const SocketPair pair;
    const std::size_t before = entries_in("/proc/self/fd");
    constexpr int kMany = kMaxFds * 2;
    const int passed = pair.a.get();
    char control[CMSG_SPACE(sizeof(int) * kMany)] = {};
    char byte = 'x';
    iovec part{&byte, 1};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    cmsghdr* const item = CMSG_FIRSTHDR(&header);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(sizeof(int) * kMany);
    for (int i = 0; i < kMany; ++i)
        std::memcpy(CMSG_DATA(item) + sizeof(int) * static_cast<std::size_t>(i), &passed, sizeof(int));
    REQUIRE(::sendmsg(pair.a.get(), &header, 0) == 1);
    CHECK(receive_message(pair.b.get(), 1000).error().code == Errc::invalid);
    CHECK(entries_in("/proc/self/fd") == before);
}
