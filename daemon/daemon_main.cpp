// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/daemon_main.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "common/log.h"

namespace sckpt {

int daemon_main(int argc, char** argv, const char* name, const char* purpose, Result<> (*serve)(const Config&),
                const OtherMode* other) {
    CLI::App app(std::string(name) + ": " + purpose, name);
    std::string path = kDefaultConfigPath;
    bool check = false, debug = false, in_other_mode = false;
    app.add_option("-c,--config", path, "configuration file")->capture_default_str();
    app.add_flag("--check-config", check, "read the configuration, say whether it is right, and end");
    app.add_flag("--debug", debug, "log everything");
    if (other != nullptr) app.add_flag(other->option, in_other_mode, other->help);
    app.set_version_flag("--version", std::string(name) + " " + SCKPT_VERSION);
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? 0 : 2;
    }
    if (debug) set_log_level(LogLevel::debug);
    const auto config = load_config(path);
    if (!config) {
        std::fprintf(stderr, "%s: %s\n", name, config.error().text.c_str());
        return 2;
    }
    if (check) {
        std::printf("%s: correct\n", path.c_str());
        return 0;
    }
    if (const auto done = in_other_mode ? other->serve(*config) : serve(*config); !done) {
        log_error("{}: {}", name, done.error().text);
        return 1;
    }
    return 0;
}

Result<UniqueFd> take_lock(const std::string& path, const std::string& taken) {
    SCKPT_ASSIGN(UniqueFd lock, open_file(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
    if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) return fail(Errc::exists, taken);
    return lock;
}

void block_end_signals(sigset_t& set) {
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
    signal(SIGPIPE, SIG_IGN);
}

}  // namespace sckpt
