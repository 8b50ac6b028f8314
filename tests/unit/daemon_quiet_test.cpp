// SPDX-License-Identifier: GPL-3.0-or-later
//
// Has everything that was written arrived: the kernel's tables as text, and pipes, sockets and threads of this process.
#include <arpa/inet.h>
#include <catch2/catch_test_macros.hpp>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <string>

#include "common/fd.h"
#include "daemon/quiet.h"

using namespace sckpt;
using namespace std::chrono_literals;

namespace {

// A child that waits for a byte on `control`, then spins until it is killed.
class Child {
   public:
    Child() {
        REQUIRE(::pipe(control_) == 0);
        pid_ = ::fork();
        if (pid_ != 0) return;
        char byte = 0;
        (void)!::read(control_[0], &byte, 1);
        for (volatile unsigned n = 0;;) {
            const unsigned next = n + 1;
            n = next;
        }
    }
    ~Child() {
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        ::close(control_[0]);
        ::close(control_[1]);
    }
    Child(const Child&) = delete;
    Child& operator=(const Child&) = delete;
    pid_t pid() const { return pid_; }
    void spin() const { REQUIRE(::write(control_[1], "x", 1) == 1); }

   private:
    int control_[2]{};
    pid_t pid_ = -1;
};

std::uint64_t inode_of(int fd) {
    struct stat status{};
    REQUIRE(::fstat(fd, &status) == 0);
    return status.st_ino;
}

}  // namespace

TEST_CASE("the queues of sockets are those of the given inodes", "[quiet]") {
    const std::string table =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000     0        0 100 1 0000 100 0 0 10 0\n"
        "   1: 0100007F:1F90 0100007F:C350 01 00000010:00000000 01:00000014 00000000     0        0 101 4 0000 20 4 1 10 -1\n"
        "   2: 0100007F:C350 0100007F:1F90 01 00000000:0000000A 00:00000000 00000000  1000        0 102 1 0000 20 4 30 10 -1\n"
        "a line of another kind\n";
    CHECK(queued_bytes(table, {101, 102}, Queue::send) == 16);
    CHECK(queued_bytes(table, {101, 102}, Queue::receive) == 10);
    CHECK(queued_bytes(table, {100}, Queue::receive) == 0);  // connections that wait for accept()
    CHECK(queued_bytes(table, {7}, Queue::send) == 0);
    CHECK(queued_bytes("", {7}, Queue::send) == 0);
}

TEST_CASE("a thread's state and switches", "[quiet]") {
    const ThreadState asleep = thread_state("Name:\tsrun\nState:\tS (sleeping)\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t3\n");
    CHECK(asleep.asleep);
    CHECK(asleep.switches == 10);
    CHECK_FALSE(thread_state("State:\tR (running)\n").asleep);
    CHECK_FALSE(thread_state("State:\tD (disk sleep)\n").asleep);
    CHECK_FALSE(thread_state("").asleep);
}

TEST_CASE("bytes in a pipe are seen from either end, and other descriptors have none", "[quiet]") {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const UniqueFd in(ends[0]), out(ends[1]);
    CHECK(unread_bytes(::getpid(), out.get()) == 0);
    REQUIRE(::write(out.get(), "hello", 5) == 5);
    CHECK(unread_bytes(::getpid(), out.get()) == 5);
    CHECK(unread_bytes(::getpid(), in.get()) == 5);
    const auto null = open_file("/dev/zero", O_RDONLY);
    REQUIRE(null);
    CHECK(unread_bytes(::getpid(), null->get()) == 0);
    CHECK(unread_bytes(::getpid(), 9999) == 0);
}

TEST_CASE("a process that sleeps is quiet, one that works is not, one that has ended carries nothing", "[quiet]") {
    const auto always = [] { return true; };
    pid_t gone = -1;
    {
        const Child child;
        gone = child.pid();
        CHECK(wait_until_quiet({{}, {child.pid()}, Queue::send}, 10s, always));
        child.spin();
        CHECK_FALSE(wait_until_quiet({{}, {child.pid()}, Queue::send}, 100ms, always));
        CHECK_FALSE(wait_until_quiet({{}, {child.pid()}, Queue::send}, 1h, [] { return false; }));
    }
    CHECK(wait_until_quiet({{gone}, {gone}, Queue::receive}, 10s, always));
}

TEST_CASE("bytes that wait in a socket are seen", "[quiet]") {
    const UniqueFd listener(::socket(AF_INET, SOCK_STREAM, 0)), client(::socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    REQUIRE(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(listener.get(), 1) == 0);
    REQUIRE(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
    REQUIRE(::connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    const UniqueFd server(::accept(listener.get(), nullptr, nullptr));
    REQUIRE(::send(client.get(), "12345678", 8, 0) == 8);
    pollfd item{server.get(), POLLIN, 0};
    REQUIRE(::poll(&item, 1, 10'000) == 1);
    const auto table = read_file("/proc/self/net/tcp", 256u << 20);
    REQUIRE(table);
    CHECK(queued_bytes(*table, {inode_of(server.get())}, Queue::receive) == 8);
    CHECK(look_at({{}, {::getpid()}, Queue::receive}).queued >= 8);
    char buffer[8];
    REQUIRE(::recv(server.get(), buffer, sizeof buffer, MSG_WAITALL) == 8);
    CHECK(look_at({{}, {::getpid()}, Queue::receive}).queued == 0);
}
