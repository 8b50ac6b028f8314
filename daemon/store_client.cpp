// SPDX-License-Identifier: GPL-3.0-or-later
//
// Images into the store and back. The root side of each: who owns the files while the worker is at them, and what is verified when.
#include "daemon/store_client.h"

#include <format>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "daemon/manifest_check.h"
#include "daemon/owned_tree.h"
#include "daemon/store_session.h"
#include "daemon/watched_files.h"

namespace sckpt {
namespace {

Result<UniqueFd> open_directory(const std::string& path) { return open_file(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW); }

// The directory of a fetch: it goes away again unless it was kept.
class Target {
   public:
    static Result<Target> make(const std::string& path, const UserIds& owner) {
        if (::mkdir(path.c_str(), 0700) != 0) return fail_errno("make directory " + path);
        Target target(path);
        SCKPT_ASSIGN(target.directory_, open_directory(path));
        if (::fchown(target.directory_.get(), owner.uid, owner.gid) != 0) return fail_errno("hand " + path + " to the service user");
        return target;
    }
    Target(Target&& other) noexcept : path_(std::exchange(other.path_, {})), directory_(std::move(other.directory_)) {}
    Target& operator=(Target&&) = delete;
    ~Target() {
        if (path_.empty()) return;
        if (const auto removed = remove_tree(path_); !removed) log_warning("after a fetch that failed: {}", removed.error().text);
    }
    int directory() const { return directory_.get(); }
    void keep() { path_.clear(); }

   private:
    explicit Target(std::string path) : path_(std::move(path)) {}
    std::string path_;
    UniqueFd directory_;
};

// An image that the service user may read, until this goes.
class Readable {
   public:
    static Result<Readable> make(const std::string& path, const UserIds& reader) {
        SCKPT_ASSIGN(UniqueFd directory, open_directory(path));
        Readable image(std::move(directory), path);
        SCKPT_TRY(let_read(image.directory(), reader.gid));
        return image;
    }
    Readable(Readable&&) noexcept = default;
    Readable& operator=(Readable&&) = delete;
    ~Readable() {
        if (!directory_) return;
        if (const auto taken = take_back(directory_.get()); !taken) log_warning("after a drain of {}: {}", path_, taken.error().text);
    }
    int directory() const { return directory_.get(); }

   private:
    Readable(UniqueFd directory, std::string path) : directory_(std::move(directory)), path_(std::move(path)) {}
    UniqueFd directory_;
    std::string path_;
};

Result<> check_same_job(const Manifest& base, const ImageIdentity& identity) {
    if (base.identity.job_row == identity.job_row && base.identity.job_id == identity.job_id && base.identity.uid == identity.uid) return {};
    return fail(Errc::corrupt, "it is of another job");
}

Result<> check_identity(const Manifest& manifest, const StoreClient::Fetch& request) {
    const ImageIdentity& is = manifest.identity;
    if (is.checkpoint_row == request.checkpoint_row && is.job_id == request.job_id && is.uid == request.uid) return {};
    return fail(Errc::corrupt, std::format("{} is of checkpoint row {} of job {} of user {}, not of row {} of job {} of user {}",
                                           request.manifest.path, is.checkpoint_row, is.job_id, is.uid, request.checkpoint_row,
                                           request.job_id, request.uid));
}

}  // namespace

// Without the key this node can do nothing with the store, and that says nothing about any image.
Result<SealKeys> StoreClient::keys() const {
    auto loaded = SealKeys::load(config_.store.key);
    if (!loaded) return fail(Errc::unavailable, loaded.error().text);
    return loaded;
}

Result<StoreId> StoreClient::usable(const StoreCall& call) const {
    SCKPT_TRY(keys());
    SCKPT_TRY(service_user(config_));
    SCKPT_ASSIGN(const Json done, StoreSession(config_, start_, call).run({{"operation", "usable"}}, {}, {}));
    return StoreId{text_of(done, "id"), text_of(done, "cluster")};
}

Result<StoredImage> StoreClient::drain(const Drain& request, const StoreCall& call) const {
    SCKPT_ASSIGN(const SealKeys seals, keys());
    SCKPT_ASSIGN(const UserIds reader, service_user(config_));
    SCKPT_ASSIGN(const Readable image, Readable::make(request.image, reader));
    Manifest ordered;
    ordered.identity = request.identity;
    ordered.needs = request.needs;
    ordered.user_files = request.user_files;
    bool sealed = false;
    const StoreHandlers handlers{
        .manifest = [&](const std::string& path, Result<ManifestCopy> copy) -> Result<> {
            auto base = verified_manifest(seals, request.base, std::move(copy));
            auto usable = base ? check_same_job(*base, request.identity) : std::unexpected(base.error());
            if (!usable)
                log_warning("drain of {}/{}: nothing of its base {} is used: {}", request.directory, request.name, path,
                            usable.error().text);
            return usable;
        },
        .seal = [&](std::string_view head, const Digest& rest) -> Result<Seal> {
            if (std::exchange(sealed, true)) return fail(Errc::denied, "an image has one manifest");
            return seal_as_ordered(seals, ordered, SealScope::whose, head, rest);
        }};
    const Json order{{"operation", "drain"},
                     {"head", head_text(request.identity, request.needs, request.user_files)},
                     {"directory", request.directory},
                     {"name", request.name},
                     {"backend", request.backend},
                     {"base", request.base.path},
                     {"leave_out", request.leave_out},
                     {"threads", request.threads},
                     {"bytes_per_second", call.bytes_per_second}};
    SCKPT_ASSIGN(const Json done, StoreSession(config_, start_, call).run(order, {image.directory()}, handlers));
    return stored_image_of(done.value("image", Json()));
}

// Runs an operation that hands over one manifest, which is the one asked for.
Result<Manifest> StoreClient::fetch_manifest(const Fetch& request, const StoreCall& call, const char* operation, int target) const {
    SCKPT_ASSIGN(const SealKeys seals, keys());
    std::optional<Manifest> manifest;
    const StoreHandlers handlers{.manifest = [&](const std::string&, Result<ManifestCopy> copy) -> Result<> {
        SCKPT_ASSIGN(Manifest opened, verified_manifest(seals, request.manifest, std::move(copy)));
        SCKPT_TRY(check_identity(opened, request));
        manifest.emplace(std::move(opened));
        return {};
    }};
    const Json order{{"operation", operation},
                     {"manifest", request.manifest.path},
                     {"threads", request.threads},
                     {"bytes_per_second", call.bytes_per_second}};
    StoreSession session(config_, start_, call);
    if (target < 0) SCKPT_TRY(session.run(order, {}, handlers));
    else SCKPT_TRY(session.run(order, {target}, handlers));
    if (!manifest) return fail(Errc::internal, "sckpt-store has answered without a manifest");
    return std::move(*manifest);
}

Result<StoreClient::Fetched> StoreClient::fetch(const Fetch& request, const StoreCall& call) const {
    SCKPT_ASSIGN(const UserIds owner, service_user(config_));
    SCKPT_ASSIGN(Target target, Target::make(request.target, owner));
    SCKPT_ASSIGN(const Manifest manifest, fetch_manifest(request, call, "fetch", target.directory()));
    SCKPT_TRY(take_over(target.directory()));
    auto fetched = verify_target(manifest, request, call);
    if (fetched) target.keep();
    return fetched;
}

Result<StoreClient::Fetched> StoreClient::verify_local(const Fetch& request, const StoreCall& call) const {
    SCKPT_ASSIGN(const Manifest manifest, fetch_manifest(request, call, "read", -1));
    return verify_target(manifest, request, call);
}

Result<StoreClient::Fetched> StoreClient::verify_target(const Manifest& manifest, const Fetch& request, const StoreCall& call) const {
    SCKPT_ASSIGN(UniqueFd directory, open_directory(request.target));
    const auto files = real_file_system(std::move(directory));
    const auto stoppable = watched(*files, [&call]() -> Result<> {
        if (call.stop != nullptr && *call.stop) return fail(Errc::busy, "the work on the store was stopped");
        return {};
    });
    SCKPT_TRY(verify_files(manifest, *stoppable, request.besides, request.threads));
    return Fetched{manifest.needs, manifest.user_files};
}

}  // namespace sckpt
