// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-clean make-store: the file that tells the cluster's store from an empty mount point, and from other clusters' stores. It is made here,
// on the node where the administrator looks at the mount; sckptctld says of which cluster, and whether there is a store already.
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <format>

#include "cli/clean.h"
#include "common/config.h"
#include "image_store/store_id.h"

namespace sckpt::cli {
namespace {

// For good: root may have no rights in the store, and needs none.
Result<> become_service_user(const std::string& name) {
    if (geteuid() != 0) return fail(Errc::denied, "the store is made by the service user, whom root alone can become: run this as root");
    const passwd* user = getpwnam(name.c_str());
    if (user == nullptr || user->pw_uid == 0)
        return fail(Errc::invalid, std::format("store.user: {} must be a user of this machine, and not root", name));
    if (setgroups(0, nullptr) != 0 || setresgid(user->pw_gid, user->pw_gid, user->pw_gid) != 0 ||
        setresuid(user->pw_uid, user->pw_uid, user->pw_uid) != 0)
        return fail_errno("become the user " + name);
    return {};
}

Result<UniqueFd> open_store(const Config::Store& config) {
    SCKPT_ASSIGN(UniqueFd directory, open_file(config.directory, O_RDONLY | O_DIRECTORY));
    struct stat st {};
    if (fstat(directory.get(), &st) != 0) return fail_errno("stat " + config.directory);
    if (st.st_uid == geteuid() && (st.st_mode & 07777) == 0700) return directory;
    return fail(Errc::denied, std::format("{} must belong to {} and have mode 0700", config.directory, config.user));
}

}  // namespace

std::string render_made_store(const MadeStore& made, const std::string& path) {
    return std::format("{} is {}store {} of cluster {}\n{}", path, made.is_new ? "now " : "already ", made.store.id, made.store.cluster,
                       made.is_new ? "The nodes that see it use it from now on: `sckpt status` names those that do not.\n" : "");
}

Result<Outcome> clean_make_store(const Options& options) {
    auto config = load_config(options.config_path);
    if (!config) return fail(Errc::invalid, config.error().text);
    SCKPT_ASSIGN(const Session session, Session::open(options));
    SCKPT_ASSIGN(const rpc::StatusReply status, session.ask("Status", &Session::Stub::Status, rpc::StatusRequest{}));
    if (status.cluster().empty()) return fail(Errc::unavailable, "sckptctld does not know the name of the cluster yet: does slurmctld answer?");
    SCKPT_TRY(become_service_user(config->store.user));
    SCKPT_ASSIGN(UniqueFd directory, open_store(config->store));
    const auto files = real_file_system(std::move(directory));
    const auto made = make_store(*files, status.cluster(), status.store_id());
    if (!made) return std::unexpected(made.error().context(config->store.directory));
    if (!options.json) return render_made_store(*made, config->store.directory);
    return json_text({{"store_id", made->store.id}, {"cluster", made->store.cluster}, {"path", config->store.directory}, {"new", made->is_new}});
}

}  // namespace sckpt::cli
