// SPDX-License-Identifier: GPL-3.0-or-later
//
// The process that works on the store for StoreClient: what it has, what it may ask for, and what happens when it dies, hangs or is not
// wanted any more.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "common/process.h"
#include "tests/unit/store_client_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using namespace std::chrono_literals;
namespace fs = std::filesystem;

namespace {

std::optional<pid_t> running_worker() {
    const auto tree = process_tree(::getpid());
    for (const pid_t pid : tree.value_or(std::vector<pid_t>()))
        if (pid != ::getpid())
            if (const auto identity = process_identity(pid); identity && identity->command.starts_with("sckpt-store")) return pid;
    return std::nullopt;
}

template <class Condition>
bool eventually(Condition condition) {
    for (const auto end = std::chrono::steady_clock::now() + 20s; std::chrono::steady_clock::now() < end; std::this_thread::sleep_for(5ms))
        if (condition()) return true;
    return false;
}

// Runs a drain that takes long, and does something to its worker once that has begun to work.
template <class F>
Result<StoredImage> disturbed_drain(const Site& site, const std::string& image, F disturb, StoreCall call = {}) {
    std::atomic<bool> working = false;
    call.bytes_per_second = 4 * kMiB;
    call.progress = [&](std::uint64_t, std::uint64_t) { working = true; };
    Result<StoredImage> stored = fail(Errc::internal, "it did not run");
    std::jthread drain([&] { stored = site.client().drain(Site::drain_of(image, 1), call); });
    CHECK(eventually([&] { return working.load(); }));
    if (const auto worker = running_worker()) disturb(*worker);
    else FAIL_CHECK("there is no worker");
    drain.join();
    CHECK_FALSE(running_worker().has_value());
    return stored;
}

}  // namespace

TEST_CASE("a worker that dies, hangs or is no longer wanted ends the call, and nothing of it is left") {
    Site site;
    const std::string image = site.make_image("image", 30 * kMiB, 1);
    const auto killed = disturbed_drain(site, image, [](pid_t worker) { ::kill(worker, SIGKILL); });
    REQUIRE_FALSE(killed.has_value());
    CHECK(killed.error().code == Errc::io);
    CHECK(killed.error().text.contains("killed by SIGKILL"));
    CHECK(is_private(image));

    site.config.store.timeout_seconds = 3;
    const auto hung = disturbed_drain(site, image, [](pid_t worker) { ::kill(worker, SIGSTOP); });
    REQUIRE_FALSE(hung.has_value());
    CHECK(hung.error().code == Errc::timeout);
    CHECK(hung.error().text.contains("has not moved for 3s"));

    std::atomic<bool> stop = false;
    StoreCall call;
    call.stop = &stop;
    const auto stopped = disturbed_drain(site, image, [&](pid_t) { stop = true; }, call);
    REQUIRE_FALSE(stopped.has_value());
    CHECK(stopped.error().code == Errc::busy);

    CHECK(site.client("exit 7").usable({}).error().text.contains("exit code 7"));
    site.config.store.timeout_seconds = 1;
    CHECK(site.client("sleep 1000").usable({}).error().code == Errc::timeout);
    CHECK(StoreClient(site.config, "/nonexistent/worker").usable({}).error().code == Errc::not_found);
}

TEST_CASE("a fetch whose worker dies leaves no target") {
    const Site site;
    const auto stored = site.client().drain(Site::drain_of(site.make_image("image", 30 * kMiB, 1), 1), {});
    REQUIRE(good(stored));
    Result<StoreClient::Fetched> fetched;
    StoreCall call;
    call.bytes_per_second = kMiB;
    std::jthread fetch([&] { fetched = site.client().fetch(site.fetch_of(*stored, 1), call); });
    CHECK(eventually([&] { return fs::exists(site.top / "back/pages-1.img"); }));
    if (const auto worker = running_worker()) ::kill(*worker, SIGKILL);
    fetch.join();
    REQUIRE_FALSE(fetched.has_value());
    CHECK(fetched.error().code == Errc::io);
    CHECK_FALSE(fs::exists(site.top / "back"));
}

TEST_CASE("the worker has the store and what it was handed, and no more") {
    if (::geteuid() != 0) SKIP("needs root");
    const Site site;
    const UniqueFd inheritable(::open(site.config.store.key.c_str(), O_RDONLY));  // deliberately without O_CLOEXEC
    const std::string out = site.in_store("seen");
    const auto seen = [&](const std::string& command) {
        CHECK_FALSE(site.client("(" + command + ") > " + out + " 2>&1").usable({}).has_value());
        return read_text(out);
    };
    CHECK(seen("ls -l /proc/$$/fd 2>/dev/null; cat " + site.config.store.key).contains("Permission denied"));
    CHECK(seen("grep -c '' " + site.top / "image/core-1.img").contains("No such file"));
    CHECK(seen("echo $$") == "1\n");
    CHECK(seen("env").find("PATH") == std::string::npos);
    CHECK(seen("ulimit -Hc") == "0\n");
    const std::string status = seen("grep -E '^(Uid|CapBnd|CapEff|NoNewPrivs):' /proc/self/status");
    CHECK(status.contains("Uid:\t" + std::to_string(site.service()->pw_uid) + "\t"));
    CHECK(status.contains("CapEff:\t0000000000000000\n"));
    CHECK(status.contains("NoNewPrivs:\t1\n"));
    // 0, 1, 2, its socket, what the shell needs for itself, and ls's own directory; never the key.
    const std::string descriptors = seen("ls -l /proc/self/fd");
    CHECK_FALSE(descriptors.contains("key"));
    CHECK(std::ranges::count(descriptors, '\n') <= 8);
}

TEST_CASE("a worker that has another image sealed than it was told to store gets no seal") {
    if (!fs::exists("/usr/bin/python3")) SKIP("needs python3");
    const Site site;
    const std::string image = site.make_image("image", 1000, 1);
    // Asks for seals of these heads, made from the one that it was given, and tells what it was answered.
    const auto answers = [&](const std::string& heads) {
        const auto stored = site.client("exec /usr/bin/python3 -c '\n"
                                        "import json, socket\n"
                                        "s = socket.socket(fileno=3)\n"
                                        "head = json.loads(json.loads(s.recv(1 << 20)[1:])[\"head\"])\n"
                                        "def ask(**changes):\n"
                                        "    asked = {**head, \"identity\": {**head[\"identity\"], **changes}}\n"
                                        "    text = json.dumps({\"kind\": \"seal\", \"head\": json.dumps(asked), \"rest\": \"0\" * 64})\n"
                                        "    s.send(b\".\" + text.encode())\n"
                                        "    return json.loads(s.recv(1 << 20)[1:])[\"kind\"]\n"
                                        "said = \" \".join([" + heads + "])\n"
                                        "s.send(b\".\" + json.dumps({\"kind\": \"failed\", \"code\": 3, \"text\": said}).encode())\n'")
                                .drain(Site::drain_of(image, 1), {});
        REQUIRE_FALSE(stored.has_value());
        return stored.error().text.substr(stored.error().text.rfind(':') + 2);
    };
    CHECK(answers("ask()") == "sealed");
    CHECK(answers("ask(job_id=13)") == "refused");
    CHECK(answers("ask(uid=0), ask()") == "refused refused");  // it has had its one seal to ask for
    CHECK(answers("ask(checkpoint_row=2), ask(user=\"root\")") == "refused refused");
    CHECK(answers("ask(), ask()") == "sealed refused");
}
