// SPDX-License-Identifier: GPL-3.0-or-later
//
// The backend on the command line, for tests that need no cluster: sckptd's calls, one each.
//   backend_tool probe | dump ROOT SUPERVISOR UID DIRECTORY MS | restore SUPERVISOR UID DIRECTORY MS
// Environment: FAST_TIER. restore takes the task's streams on descriptors 10, 11, 12 and the status socket on 13.
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

#include "backend/backend.h"

namespace {

using namespace sckpt;

int fail_with(const Error& error) {
    std::printf("%s: %s\n", std::string(errc_name(error.code)).c_str(), error.text.c_str());
    return 1;
}

int probe(Backend& backend) {
    const BackendProbe found = backend.probe();
    std::printf("usable %d name %s version %s reason %s\n", found.usable, found.name.c_str(), found.version.c_str(), found.reason.c_str());
    for (const std::string& note : found.notes) std::printf("note %s\n", note.c_str());
    return found.usable ? 0 : 1;
}

int dump(Backend& backend, const std::span<char*>& words) {
    const auto report = backend.dump({std::atoi(words[2]), std::atoi(words[3]), static_cast<uid_t>(std::atoi(words[4])), words[5],
                                      std::chrono::milliseconds(std::atoi(words[6]))});
    if (!report) return fail_with(report.error());
    std::printf("ok bytes %llu frozen_ms %lld\n", static_cast<unsigned long long>(report->bytes), static_cast<long long>(report->frozen.count()));
    for (const FileRecord& file : report->files)
        std::printf("file %s size %llu append %d stdio %d\n", file.path.c_str(), static_cast<unsigned long long>(file.size), file.append, file.stdio);
    return 0;
}

int restore(Backend& backend, const std::span<char*>& words) {
    const auto done = backend.restore({words[4], std::atoi(words[2]), static_cast<uid_t>(std::atoi(words[3])), {10, 11, 12}, 13,
                                       std::chrono::milliseconds(std::atoi(words[5]))});
    if (!done) return fail_with(done.error());
    std::puts("ok");
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::span words(argv, static_cast<std::size_t>(argc));
    const std::string verb = argc > 1 ? argv[1] : "";
    Config::Node config;
    if (const char* const tier = std::getenv("FAST_TIER")) config.fast_tier = tier;
    if (const char* const criu = std::getenv("CRIU")) config.criu = criu;
    const auto backend = make_criu_backend(config);
    if (verb == "probe") return probe(*backend);
    if (verb == "dump" && argc == 7) return dump(*backend, words);
    if (verb == "restore" && argc == 6) return restore(*backend, words);
    return 2;
}
