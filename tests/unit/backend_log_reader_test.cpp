// SPDX-License-Identifier: GPL-3.0-or-later
//
// The fragments are from logs of CRIU 4.2.1, of dumps and restores that failed on purpose.
#include <catch2/catch_test_macros.hpp>

#include <string>

#include "backend/criu/log_reader.h"

using namespace sckpt;
using namespace sckpt::criu;

namespace {

constexpr const char* kNoise =
    "(00.003568) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"
    "(00.017000) Collected (1 attempts, 0 in_progress)\n";
constexpr const char* kProcess = "(00.017483) Dumping task (pid: 38 comm: python3)\n";
constexpr const char* kEnd =
    "(00.020283) Error (criu/cr-dump.c:1545): Dump files (pid: 38) failed with -1\n"
    "(00.020540) Error (criu/cr-dump.c:1975): Dumping FAILED.\n";

Error explain(const std::string& fragment) {
    const auto cause = explain_log(std::string(kNoise) + kProcess + fragment + "\n" + kEnd);
    REQUIRE(cause);
    return *cause;
}

struct Case {
    const char* fragment;
    Errc code;
    const char* parts[2];
};

constexpr Case kCases[] = {
    {"(00.020273) Error (criu/sk-inet.c:200): inet: Connected TCP socket, consider using --tcp-established option.",
     Errc::unsupported,
     {"process 38 (python3)", "TCP connection"}},
    {"(00.011056) Error (criu/sk-inet.c:185): inet: In-flight connection (l) for 67450\n"
     "(00.011060) Error (criu/sk-inet.c:186): inet: In-flight connections can be ignored with the --skip-in-flight option.",
     Errc::unsupported,
     {"process 38 (python3)", "has not accepted"}},
    {"pie: 38: Error (criu/pie/parasite.c:588): send_fds failed (-22)\n"
     "(00.040661) Error (criu/parasite-syscall.c:280): Can't retrieve FDs from socket",
     Errc::unsupported,
     {"process 38", "io_uring"}},
    {"(00.007298) Error (criu/files-reg.c:1122): Can't create link remap for /home/user1/lr. Use link-remap option.",
     Errc::unsupported,
     {"/home/user1/lr", "deleted"}},
    {"(00.010414) Error (criu/files-reg.c:1031): Can't dump ghost file /home/user1/gb of 73400320 size, increase limit",
     Errc::unsupported,
     {"/home/user1/gb", "73400320"}},
    {"(00.022054) Error (criu/sk-unix.c:874): unix: External socket is used. Consider using --ext-unix-sk option.",
     Errc::unsupported,
     {"Unix socket", "outside of the job"}},
    {"(00.007727) Error (criu/files-reg.c:1790): Can't lookup mount=21 for fd=3 path=/sckptq",
     Errc::unsupported,
     {"/sckptq", "message queues"}},
    {"(00.013800) Error (criu/cr-dump.c:478): Task 38 with SysVIPC shmem map @7f591257a000 doesn't live in IPC ns",
     Errc::unsupported,
     {"process 38", "System V"}},
    {"(00.006330) Error (criu/files-ext.c:94): Can't dump file 3 of that type [600] (anon anon_inode:[perf_event])",
     Errc::unsupported,
     {"process 38", "perf_event"}},
    {"(00.004145) Error (compel/src/lib/infect.c:262): Unseizable non-zombie 186 found, state S, err -1/10",
     Errc::unsupported,
     {"process 186", "traced"}},
    {"(00.004467) Error (criu/seize.c:882): Zombies with threads are not supported", Errc::unsupported, {"main thread", ""}},
    {"(00.009644) Error (criu/pipes.c:490): The packetized mode for pipes is not supported yet", Errc::unsupported, {"packet mode", ""}},
    {"(00.009888) Error (criu/sk-inet.c:137): inet: Unsupported proto 262 for socket 68938", Errc::unsupported, {"protocol 262", ""}},
    {"(00.041018)     82: Error (criu/sk-unix.c:2285): unix: FATAL: Peer 419806 unresolved for 423596\n"
     "(00.041908) Error (criu/cr-restore.c:1265): 82 exited, status=1",
     Errc::unsupported,
     {"outside of it", ""}},
    {"(00.015053)    261: Error (criu/protobuf.c:76): Read 2 bytes while 4 expected on /run/x/mm-261.img: No such file or directory\n"
     "(00.016089) Error (criu/cr-restore.c:1265): 261 exited, status=1",
     Errc::corrupt,
     {"/run/x/mm-261.img ends too early", ""}},
    {"(00.010483)     61: Error (criu/files-reg.c:2175): File home/user1/a2 has bad size 4 (expect 1)", Errc::invalid, {"/home/user1/a2", "4 bytes"}},
    {"(00.000181)     23: Error (criu/files-reg.c:2353): Can't open file home/user1/a1 on restore: No such file or directory\n"
     "(00.000182)     23: Error (criu/files-reg.c:2267): Can't open file home/user1/a1: No such file or directory",
     Errc::invalid,
     {"/home/user1/a1", "does not exist"}},
    {"(00.000183)    120: Error (criu/files-reg.c:2353): Can't open file home/user1/a6 on restore: Permission denied",
     Errc::invalid,
     {"/home/user1/a6", "may not be opened"}},
    {"(00.017857) Error (criu/page-xfer.c:263): page-xfer: Unable to spice data: No space left on device",
     Errc::no_space,
     {"full", ""}},
};

}  // namespace

TEST_CASE("criu's log becomes one sentence that names the cause") {
    for (const Case& sample : kCases) {
        const Error error = explain(sample.fragment);
        INFO(sample.fragment << "\n→ " << error.text);
        CHECK(error.code == sample.code);
        for (const char* part : sample.parts) CHECK(error.text.contains(part));
        CHECK_FALSE(error.text.contains('\n'));
        CHECK_FALSE(error.text.contains("{"));
    }
}

TEST_CASE("what no rule knows is quoted, and consequences do not hide the cause") {
    const Error error = explain("(00.010000) Error (criu/new.c:1): A thing of the future: went wrong");
    CHECK(error.code == Errc::io);
    CHECK(error.text.contains("A thing of the future: went wrong"));
}

TEST_CASE("a log without errors explains nothing") {
    CHECK_FALSE(explain_log(""));
    CHECK_FALSE(explain_log(kNoise));
    CHECK_FALSE(explain_log("(00.01"));
    CHECK_FALSE(explain_log(std::string(1000, '(')));
}
