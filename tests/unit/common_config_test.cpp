// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt.yaml: what is read, what is refused, and what the message says.
#include "common/config.h"

#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sys/stat.h>
#include <unistd.h>

using namespace sckpt;

namespace {

class ConfigFile {
   public:
    explicit ConfigFile(const std::string& text, ::mode_t mode = 0644) {
        char name[] = "/tmp/sckpt-config-test.XXXXXX";
        REQUIRE(::mkdtemp(name) != nullptr);
        directory_ = name;
        std::ofstream(path()) << text;
        REQUIRE(::chmod(path().c_str(), mode) == 0);
    }
    ~ConfigFile() {
        std::error_code ignored;
        std::filesystem::remove_all(directory_, ignored);
    }
    std::string path() const { return directory_ + "/sckpt.yaml"; }
    Result<Config> load() const { return load_config(path()); }

   private:
    std::string directory_;
};

const std::string kLeast = "controller:\n  host: ctl\nstore:\n  directory: /shared/sckpt\n";  // four lines

struct Bad {
    std::string text, wanted;  // a file, and what its message must have in it
};

void check_refused(const Bad& bad) {
    INFO(bad.text);
    const auto config = ConfigFile(bad.text).load();
    REQUIRE_FALSE(config.has_value());
    INFO(config.error().text);
    CHECK(config.error().code == Errc::invalid);
    CHECK(config.error().text.contains("sckpt.yaml:"));
    CHECK(config.error().text.contains(bad.wanted));
}

}  // namespace

TEST_CASE("the least file gives the defaults") {
    const auto config = ConfigFile(kLeast).load();
    REQUIRE(config.has_value());
    CHECK(config->controller.host == "ctl");
    CHECK(config->controller.port == 6830);
    CHECK(config->controller.operators.empty());
    CHECK(config->store.directory == "/shared/sckpt");
    CHECK(config->policy.interval_seconds == 900);
    CHECK(config->node.dump_timeout_seconds == 300);
}

TEST_CASE("every key is read into its own field") {
    const auto config = ConfigFile(R"(---
# a comment
controller:
  host: "ctl-1.example.org"
  port: 7000
  state_directory: /var/lib/other
  operators: [root, slurm]
  poll_interval: 5s
node:
  socket: /run/other/s.sock
  fast_tier: /run/other/images
  criu: /opt/criu/sbin/criu
  dump_timeout: 10m
  restore_timeout: 0:45
  controller_wait: 1h
store: {directory: /shared/x}
policy:
  interval: 1-02:00:00
  max_restarts: 0
  keep: 7
)").load();
    REQUIRE(config.has_value());
    CHECK(config->controller.host == "ctl-1.example.org");
    CHECK(config->controller.port == 7000);
    CHECK(config->controller.state_directory == "/var/lib/other");
    CHECK(config->controller.operators == std::vector<std::string>{"root", "slurm"});
    CHECK(config->controller.poll_seconds == 5);
    CHECK(config->node.socket == "/run/other/s.sock");
    CHECK(config->node.fast_tier == "/run/other/images");
    CHECK(config->node.criu == "/opt/criu/sbin/criu");
    CHECK(config->node.dump_timeout_seconds == 600);
    CHECK(config->node.restore_timeout_seconds == 45);
    CHECK(config->node.controller_wait_seconds == 3600);
    CHECK(config->store.directory == "/shared/x");
    CHECK(config->policy.interval_seconds == 93600);
    CHECK(config->policy.max_restarts == 0);
    CHECK(config->policy.keep == 7);
}

TEST_CASE("a section may be empty, a list too, and addresses are hosts") {
    CHECK(ConfigFile(kLeast + "policy:\nnode:\n  # all commented out\n").load().has_value());
    CHECK(ConfigFile("controller: {host: '2001:db8::1', operators: []}\nstore: {directory: /s}\n").load().has_value());
}

TEST_CASE("the example of the documentation is right") {
    const char* const source = std::getenv("srcdir");
    const std::string example = std::string(source != nullptr ? source : "/build/src") + "/etc/sckpt.yaml";
    std::ifstream file(example);
    REQUIRE(file);
    const ConfigFile copy(std::string(std::istreambuf_iterator<char>(file), {}));
    const auto config = copy.load();
    INFO((config ? "" : config.error().text));
    REQUIRE(config.has_value());
    const Config defaults;  // what it shows for every other key is the default
    CHECK(config->controller.port == defaults.controller.port);
    CHECK(config->node.controller_wait_seconds == defaults.node.controller_wait_seconds);
    CHECK(config->policy.interval_seconds == defaults.policy.interval_seconds);
    CHECK(config->policy.keep == defaults.policy.keep);
}

TEST_CASE("unknown and repeated keys are refused with file, line and key") {
    const Bad cases[] = {
        {kLeast + "policy:\n  intervall: 15m\n", "sckpt.yaml:6: policy.intervall: unknown key; known here: interval, keep, keep_failed, max_restarts"},
        {kLeast + "polisy:\n  interval: 15m\n", "sckpt.yaml:5: polisy: unknown section; known: controller, node, policy, store"},
        {kLeast + "policy:\n  keep: 2\n  keep: 3\n", "sckpt.yaml:7: policy.keep: given twice"},
        {kLeast + "store:\n  directory: /other\n", "sckpt.yaml:5: store: given twice"},
        {kLeast + "policy:\n  <<: {keep: 2}\n", "policy.<<: unknown key"},
    };
    for (const Bad& bad : cases) check_refused(bad);
}

TEST_CASE("what must be given is missed") {
    check_refused({"", "controller.host: missing"});
    check_refused({"# nothing\n", "controller.host: missing"});
    check_refused({"controller:\n  host: ctl\n", "store.directory: missing"});
}

TEST_CASE("a file of another structure is refused") {
    const Bad cases[] = {
        {"- a\n- b\n", "sckpt.yaml:1: sections"},
        {"just text\n", "sections"},
        {"controller: ctl\n", "sckpt.yaml:1: controller: keys with values are wanted"},
        {"controller: [a]\n", "controller: keys with values are wanted"},
        {"? [a]\n: b\n", "a section's name must be a plain word"},
        {"policy:\n  ? {a: b}\n  : c\n", "policy: a key must be a plain word"},
        {kLeast + "policy:\n  keep: [2]\n", "sckpt.yaml:6: policy.keep: a single value is wanted"},
        {kLeast + "policy:\n  keep: {a: 2}\n", "policy.keep: a single value is wanted"},
        {"controller:\n  operators: root\n", "controller.operators: a list is wanted"},
        {"controller:\n  operators: [[root]]\n", "controller.operators: a list of plain names"},
        {kLeast + "policy:\n  keep:\n", "sckpt.yaml:6: policy.keep: the value is missing"},
        {kLeast + "---\npolicy:\n", "sckpt.yaml:5: a second document"},
        {"controller:\n  host: &a ctl\n", "sckpt.yaml:2: anchors are not accepted"},
        {"controller: &a\n  host: ctl\n", "anchors are not accepted"},
        {"controller:\n  host: *a\n", "sckpt.yaml:2: aliases are not accepted"},
        {"controller:\n  host: !!str ctl\n", "tags are not accepted"},
        {"controller:\n\thost: ctl\n", "sckpt.yaml:2: "},
        {"controller: {host: ctl\n", "sckpt.yaml:"},
        {"controller:\n  host: \"ctl\n", "sckpt.yaml:"},
        {std::string("controller:\n  host: \xff\xfe\n"), "sckpt.yaml:"},
    };
    for (const Bad& bad : cases) check_refused(bad);
}

TEST_CASE("values out of bounds or of another kind are refused") {
    const Bad cases[] = {
        {"policy:\n  interval: 15\n", "sckpt.yaml:2: policy.interval: \"15\" has no unit; write for example \"15m\""},
        {"policy:\n  interval: 0s\n", "policy.interval"},
        {"policy:\n  interval: 367d\n", "is not from 1s to 366d"},
        {"policy:\n  interval: soon\n", "policy.interval: \"soon\" is not a time"},
        {"policy:\n  interval: -5m\n", "policy.interval"},
        {"policy:\n  keep: 0\n", "policy.keep: \"0\" is not a whole number from 1 to 100"},
        {"policy:\n  keep: 101\n", "policy.keep"},
        {"policy:\n  keep: 2.5\n", "policy.keep"},
        {"policy:\n  keep: two\n", "policy.keep"},
        {"policy:\n  max_restarts: -1\n", "policy.max_restarts"},
        {"policy:\n  max_restarts: 99999999999999999999\n", "policy.max_restarts"},
        {"controller:\n  port: 0\n", "controller.port: \"0\" is not a whole number from 1 to 65535"},
        {"controller:\n  port: 65536\n", "controller.port"},
        {"controller:\n  port: 0x1a\n", "controller.port"},
        {"controller:\n  host: 'a b'\n", "controller.host: \"a b\" is not a host name"},
        {"controller:\n  host: ''\n", "controller.host"},
        {"controller:\n  host: -oProxy\n", "controller.host"},
        {"controller:\n  operators: ['a,b']\n", "controller.operators: \"a,b\" is not a user's name"},
        {"controller:\n  operators: ['']\n", "controller.operators"},
        {"controller:\n  poll_interval: 2h\n", "controller.poll_interval: \"2h\" is not from 1s to 1h"},
        {"controller:\n  state_directory: lib/sckpt\n", "controller.state_directory: \"lib/sckpt\" is not an absolute path"},
        {"node:\n  criu: criu\n", "node.criu"},
        {"node:\n  criu: \"/usr/sbin/criu\\0x\"\n", "node.criu: the path has a control character"},
        {"node:\n  criu: \"/usr/sbin/criu\\n\"\n", "node.criu"},
        {"node:\n  fast_tier: /run/../etc\n", "node.fast_tier"},
        {"node:\n  socket: /" + std::string(107, 's') + "\n", "node.socket: the path is longer than 107 bytes"},
        {"node:\n  dump_timeout: 2d\n", "node.dump_timeout"},
        {"store:\n  directory: ''\n", "store.directory"},
    };
    for (const Bad& bad : cases) check_refused(bad);
}

TEST_CASE("a missing file is told as such") {
    const auto config = load_config("/nonexistent/sckpt.yaml");
    REQUIRE_FALSE(config.has_value());
    CHECK(config.error().code == Errc::not_found);
    CHECK(config.error().text.contains("/nonexistent/sckpt.yaml"));
}

TEST_CASE("a file that others could have written is not trusted") {
    CHECK(ConfigFile(kLeast, 0600).load().has_value());
    CHECK(ConfigFile(kLeast, 0664).load().error().code == Errc::denied);
    CHECK(ConfigFile(kLeast, 0646).load().error().code == Errc::denied);
    CHECK(load_config("/dev/null").error().code == Errc::invalid);
    CHECK_FALSE(load_config("/tmp").has_value());
    if (::geteuid() == 0) {
        const ConfigFile file(kLeast);
        REQUIRE(::chown(file.path().c_str(), 1000, 1000) == 0);
        CHECK(file.load().error().code == Errc::denied);
    }
}

TEST_CASE("a file of any size or depth ends in an answer") {
    CHECK_FALSE(ConfigFile(std::string(2u << 20, '#')).load().has_value());
    CHECK_FALSE(ConfigFile("controller: " + std::string(100'000, '[')).load().has_value());
    CHECK_FALSE(ConfigFile(std::string(100'000, '{')).load().has_value());
}
