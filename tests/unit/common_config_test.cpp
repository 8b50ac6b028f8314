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
    CHECK(config->node.dump_streams == 0);
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
  fast_tier_size: 1.5G
  criu: /opt/criu/sbin/criu
  dump_timeout: 10m
  dump_streams: 6
  restore_timeout: 0:45
  controller_wait: 1h
relay: {hosts: [r1, 10.0.0.7], port: 7001, upstream: r0.example.org}
store: {directory: /shared/x, user: images, key: /etc/other.key, timeout: 90s}
drain:
  streams: 3
  urgent_streams: 8
  threads: 4
  bandwidth: 100M
  cluster_streams: 500
  cluster_urgent_streams: 1000
  cluster_bandwidth: 0
policy:
  interval: 1-02:00:00
  max_restarts: 0
retention:
  keep: 7
  keep_success: 2h
  keep_failed: 0s
  max_age: 30d
  max_size: 10T
  user_quota: 500G
  account_quota: 2T
  interval: 5m
  backup_interval: 30m
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
    CHECK(config->node.dump_streams == 6);
    CHECK(config->node.restore_timeout_seconds == 45);
    CHECK(config->node.controller_wait_seconds == 3600);
    CHECK(config->relay.hosts == std::vector<std::string>{"r1", "10.0.0.7"});
    CHECK(config->relay.port == 7001);
    CHECK(config->relay.upstream == "r0.example.org");
    CHECK(config->store.directory == "/shared/x");
    CHECK(config->policy.interval_seconds == 93600);
    CHECK(config->policy.max_restarts == 0);
    CHECK(config->node.fast_tier_bytes == 3ull << 29);
    CHECK(config->store.user == "images");
    CHECK(config->store.key == "/etc/other.key");
    CHECK(config->store.timeout_seconds == 90);
    CHECK(config->drain.streams == 3);
    CHECK(config->drain.urgent_streams == 8);
    CHECK(config->drain.threads == 4);
    CHECK(config->drain.bandwidth == 100u << 20);
    CHECK(config->drain.cluster_streams == 500);
    CHECK(config->drain.cluster_urgent_streams == 1000);
    CHECK(config->drain.cluster_bandwidth == 0);
    CHECK(config->retention.keep == 7);
    CHECK(config->retention.keep_success_seconds == 7200);
    CHECK(config->retention.keep_failed_seconds == 0);
    CHECK(config->retention.max_age_seconds == 30 * 86400);
    CHECK(config->retention.max_size == 10ull << 40);
    CHECK(config->retention.user_quota == 500ull << 30);
    CHECK(config->retention.account_quota == 2ull << 40);
    CHECK(config->retention.interval_seconds == 300);
    CHECK(config->retention.backup_interval_seconds == 1800);
}

TEST_CASE("no limit is written as 0") {
    const auto config = ConfigFile(kLeast + "drain: {bandwidth: 0}\nretention: {keep_success: 0s, max_age: 0s, max_size: 0, user_quota: 0}\n").load();
    INFO((config ? "" : config.error().text));
    REQUIRE(config.has_value());
    CHECK(config->retention.keep_success_seconds == 0);
    CHECK(config->retention.max_size == 0);
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
    CHECK(config->controller.state_directory == defaults.controller.state_directory);
    CHECK(config->controller.poll_seconds == defaults.controller.poll_seconds);
    CHECK(config->node.socket == defaults.node.socket);
    CHECK(config->node.fast_tier == defaults.node.fast_tier);
    CHECK(config->node.fast_tier_bytes == defaults.node.fast_tier_bytes);
    CHECK(config->node.criu == defaults.node.criu);
    CHECK(config->node.dump_timeout_seconds == defaults.node.dump_timeout_seconds);
    CHECK(config->node.dump_streams == defaults.node.dump_streams);
    CHECK(config->node.restore_timeout_seconds == defaults.node.restore_timeout_seconds);
    CHECK(config->node.controller_wait_seconds == defaults.node.controller_wait_seconds);
    CHECK(config->store.user == defaults.store.user);
    CHECK(config->store.key == defaults.store.key);
    CHECK(config->store.timeout_seconds == defaults.store.timeout_seconds);
    CHECK(config->drain.streams == defaults.drain.streams);
    CHECK(config->drain.urgent_streams == defaults.drain.urgent_streams);
    CHECK(config->drain.threads == defaults.drain.threads);
    CHECK(config->drain.bandwidth == defaults.drain.bandwidth);
    CHECK(config->drain.cluster_streams == defaults.drain.cluster_streams);
    CHECK(config->drain.cluster_urgent_streams == defaults.drain.cluster_urgent_streams);
    CHECK(config->drain.cluster_bandwidth == defaults.drain.cluster_bandwidth);
    CHECK(config->policy.interval_seconds == defaults.policy.interval_seconds);
    CHECK(config->policy.max_restarts == defaults.policy.max_restarts);
    CHECK(config->retention.keep == defaults.retention.keep);
    CHECK(config->retention.keep_success_seconds == defaults.retention.keep_success_seconds);
    CHECK(config->retention.keep_failed_seconds == defaults.retention.keep_failed_seconds);
    CHECK(config->retention.max_age_seconds == defaults.retention.max_age_seconds);
    CHECK(config->retention.max_size == defaults.retention.max_size);
    CHECK(config->retention.user_quota == defaults.retention.user_quota);
    CHECK(config->retention.account_quota == defaults.retention.account_quota);
    CHECK(config->retention.interval_seconds == defaults.retention.interval_seconds);
    CHECK(config->retention.backup_interval_seconds == defaults.retention.backup_interval_seconds);
}

TEST_CASE("unknown and repeated keys are refused with file, line and key") {
    const Bad cases[] = {
        {kLeast + "policy:\n  intervall: 15m\n", "sckpt.yaml:6: policy.intervall: unknown key; known here: interval, max_restarts"},
        {kLeast + "polisy:\n  interval: 15m\n", "sckpt.yaml:5: polisy: unknown section; known: controller, drain, node, policy, relay, retention, store"},
        {kLeast + "retention:\n  keep: 2\n  keep: 3\n", "sckpt.yaml:7: retention.keep: given twice"},
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
        {kLeast + "retention:\n  keep: [2]\n", "sckpt.yaml:6: retention.keep: a single value is wanted"},
        {kLeast + "retention:\n  keep: {a: 2}\n", "retention.keep: a single value is wanted"},
        {"controller:\n  operators: root\n", "controller.operators: a list is wanted"},
        {"relay:\n  hosts: r1\n", "relay.hosts: a list is wanted here"},
        {"relay:\n  hosts: [a b]\n", "relay.hosts: \"a b\" is not a host name"},
        {"controller:\n  operators: [[root]]\n", "controller.operators: a list of plain names"},
        {kLeast + "retention:\n  keep:\n", "sckpt.yaml:6: retention.keep: the value is missing"},
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
        {"retention:\n  keep: 0\n", "retention.keep: \"0\" is not a whole number from 1 to 100"},
        {"retention:\n  keep: 101\n", "retention.keep"},
        {"retention:\n  keep: 2.5\n", "retention.keep"},
        {"retention:\n  keep: two\n", "retention.keep"},
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
        {"store:\n  user: 'a b'\n", "store.user: \"a b\" is not a user's name"},
        {"store:\n  key: sckpt.key\n", "store.key: \"sckpt.key\" is not an absolute path"},
        {"node:\n  fast_tier_size: 1K\n", "node.fast_tier_size: \"1K\" is not from 1.0 MiB to 1024.0 PiB"},
        {"node:\n  fast_tier_size: half\n", "node.fast_tier_size: \"half\" is no size"},
        {"drain:\n  bandwidth: 1e9\n", "drain.bandwidth: \"1e9\" is no size"},
        {"drain:\n  bandwidth: -1\n", "drain.bandwidth"},
        {"drain:\n  streams: 0\n", "drain.streams: \"0\" is not a whole number from 1 to 64"},
        {"retention:\n  keep_success: 0\n", "retention.keep_success: \"0\" has no unit"},
        {"retention:\n  interval: 0s\n", "retention.interval: \"0s\" is not from 1s to 30d"},
        {"retention:\n  max_size: 2E\n", "retention.max_size"},
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
