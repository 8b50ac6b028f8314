// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/manifest_check.h"

#include <format>
#include <utility>

#include "common/log.h"

namespace sckpt {
namespace {

std::string description(const ImageIdentity& who) {
    return std::format("checkpoint {} (row {}) of job {} of user {}", who.checkpoint, who.checkpoint_row, who.job_id, who.uid);
}

// As texts: all that a head says, whatever is added to it.
bool is_as_ordered(const Manifest& head, const Manifest& ordered, SealScope scope) {
    if (scope == SealScope::image) return head_text(head.of_image()) == head_text(ordered.of_image());
    return head_text(head.identity, head.needs, head.user_files) == head_text(ordered.identity, ordered.needs, ordered.user_files);
}

}  // namespace

Result<Manifest> sealed_manifest(const SealKeys& keys, const std::string& path, Result<ManifestCopy> copy) {
    if (!copy) return std::unexpected(copy.error());
    if (auto right = keys.verify(copy->hashes.parts, copy->hashes.seal); !right) return std::unexpected(right.error().context(path));
    auto manifest = Manifest::open(std::move(copy->file));
    if (!manifest) return std::unexpected(manifest.error().context(path));
    return manifest;
}

Result<Manifest> verified_manifest(const SealKeys& keys, const ManifestName& name, Result<ManifestCopy> copy) {
    if (copy && copy->hashes.digest != name.digest)
        return fail(Errc::corrupt, std::format("{} is not what was stored under this name: its BLAKE3 is {}, the catalogue has {}", name.path,
                                               copy->hashes.digest, name.digest));
    return sealed_manifest(keys, name.path, std::move(copy));
}

Result<Seal> seal_as_ordered(const SealKeys& keys, const Manifest& ordered, SealScope scope, std::string_view head, const Digest& rest) {
    const auto made = parse_head(head);
    if (!made) return std::unexpected(made.error());
    if (is_as_ordered(*made, ordered, scope)) return keys.seal({digest_of(head), rest});
    const auto refused = fail(Errc::denied, std::format("it is not sealed: the manifest of {} says something else than it was to say; it says {}",
                                                        description(ordered.identity), description(made->identity)));
    log_error("sckpt-store: {}", refused.error().text);  // itself it may keep quiet about it
    return refused;
}

}  // namespace sckpt
