// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/store_process.h"

#include <csignal>
#include <format>
#include <utility>
#include <vector>

#include <pwd.h>
#include <unistd.h>

#include "daemon/idle_group.h"
#include "daemon/store_protocol.h"

namespace sckpt {
namespace {

class Program final : public StoreProcess {
   public:
    explicit Program(ChildProcess process) : process_(std::move(process)) {}
    void kill() override { process_.kill(SIGKILL); }
    std::optional<std::string> wait(std::chrono::milliseconds deadline) override {
        const auto status = process_.wait(deadline);
        return status ? std::optional(status->text()) : std::nullopt;
    }

   private:
    ChildProcess process_;
};

}  // namespace

Result<UserIds> service_user(const Config& config) {
    if (::geteuid() != 0) return UserIds{::geteuid(), ::getegid()};
    std::vector<char> buffer(16384);
    passwd entry{};
    passwd* found = nullptr;
    const int error = ::getpwnam_r(config.store.user.c_str(), &entry, buffer.data(), buffer.size(), &found);
    if (error != 0) return fail_errno("look up the user " + config.store.user, error);
    if (found == nullptr)
        return fail(Errc::unavailable, std::format("store.user: there is no user {0} on this node; make it, with the same number on every node "
                                                 "(useradd --system --no-create-home --shell /usr/sbin/nologin {0})", config.store.user));
    if (entry.pw_uid == 0)
        return fail(Errc::unavailable, "store.user: the store cannot belong to root, who has no rights on many shared file systems");
    return UserIds{entry.pw_uid, entry.pw_gid};
}

StartStoreProcess store_program(const Config& config, std::string program) {
    return [config, program = std::move(program)](UniqueFd socket, bool idle) -> Result<std::unique_ptr<StoreProcess>> {
        SpawnOptions options{.argv = {program}, .environment = {"LANG=C.UTF-8"}, .descriptors = {{socket.get(), kStoreSocket}}};
        if (::geteuid() == 0) {
            SCKPT_ASSIGN(options.user, service_user(config));
            options.own_pid_namespace = true;
        }
        options.dies_with_caller = options.no_core = true;
        options.idle = idle;
        const auto group = open_idle_group();  // where there is none, the means of SpawnOptions::idle have to do: NodeAgent::start says so
        if (group) options.idle_group = group->get();
        SCKPT_ASSIGN(ChildProcess process, ChildProcess::spawn(options));
        return std::make_unique<Program>(std::move(process));
    };
}

}  // namespace sckpt
