// SPDX-License-Identifier: GPL-3.0-or-later
//
// How criu is run: fixed environment, output into the image directory, our preload in front.
#include <filesystem>
#include <format>

#include <fcntl.h>
#include <unistd.h>

#include "backend/criu/driver.h"
#include "backend/criu/log_reader.h"
#include "common/fd.h"

namespace sckpt::criu {

namespace {

constexpr const char* kOutputName = "criu.out";  // what criu says before its log is open

std::vector<char*> pointers(const std::vector<std::string>& strings) {
    std::vector<char*> result;
    for (const std::string& text : strings) result.push_back(const_cast<char*>(text.c_str()));
    result.push_back(nullptr);
    return result;
}

Result<> place_descriptors(int output, const std::vector<int>& inherited) {
    SCKPT_ASSIGN(const UniqueFd null, open_file("/dev/null", O_RDWR));
    if (::dup2(null.get(), 0) < 0 || ::dup2(output, 1) < 0 || ::dup2(output, 2) < 0) return fail_errno("place criu's descriptors");
    for (const int fd : inherited)
        if (::fcntl(fd, F_SETFD, 0) != 0) return fail_errno("hand a descriptor to criu");
    return {};
}

}  // namespace

std::string helper_program(const char* name) {
    std::error_code error;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
    return (self.parent_path() / name).string();
}

// criu keeps what it has found out about the kernel in criu.kdat, and believes it. A dump as the user makes that file the user's: the cache must
// lie where nobody but root gets at it.
Result<pid_t> start_criu(const Tree& tree, CriuCall call) {
    call.arguments.insert(call.arguments.begin(), tree.criu);
    const std::vector<std::string> fixed = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
                                            "XDG_RUNTIME_DIR=" + tree.cache,
                                            "LD_PRELOAD=" + helper_program("libsckpt-criu-preload.so")};
    call.environment.insert(call.environment.end(), fixed.begin(), fixed.end());
    SCKPT_ASSIGN(const UniqueFd output, open_file(tree.directory + "/" + kOutputName, O_WRONLY | O_CREAT | O_TRUNC, 0600));
    const auto arguments = pointers(call.arguments), environment = pointers(call.environment);
    return start_child([&](UniqueFd&) -> Result<> {
        SCKPT_TRY(place_descriptors(output.get(), call.inherited));
        if (call.enter) SCKPT_TRY(call.enter());
        ::execve(tree.criu.c_str(), arguments.data(), environment.data());
        return fail_errno("start " + tree.criu);
    });
}

Error explain_failure(const Tree& tree, const char* log, const std::string& how_it_ended) {
    for (const char* name : {log, kOutputName}) {
        const auto text = read_file(tree.directory + "/" + name, 256u << 20);
        if (!text) continue;
        if (const auto cause = explain_log(*text)) return *cause;
    }
    return {Errc::io, std::format("criu ended by {} and did not say why; see {} in the image directory", how_it_ended, log)};
}

}  // namespace sckpt::criu
