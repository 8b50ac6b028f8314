// SPDX-License-Identifier: GPL-3.0-or-later
//
// What must hold of a manifest before sckptd reads it, lets its worker read it, or seals it.
#pragma once

#include <string>
#include <string_view>

#include "daemon/store_session.h"
#include "image_store/manifest.h"
#include "image_store/seal.h"

namespace sckpt {

// The seal is right; then it is opened.
Result<Manifest> sealed_manifest(const SealKeys& keys, const std::string& path, Result<ManifestCopy> copy);
// The digest is the one that the catalogue has, too.
Result<Manifest> verified_manifest(const SealKeys& keys, const ManifestName& name, Result<ManifestCopy> copy);

// Seals a manifest that the worker has made. sckptd has not got the table, but the head, and the seal is over what it has seen: so nobody has
// an image sealed that says to be another one than was ordered. Errc::denied.
enum class SealScope { whose, image };  // what must be as in `ordered`: identity, needs and user files; or the image's files too
Result<Seal> seal_as_ordered(const SealKeys& keys, const Manifest& ordered, SealScope scope, std::string_view head, const Digest& rest);

}  // namespace sckpt
