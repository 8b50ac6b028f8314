// SPDX-License-Identifier: GPL-3.0-or-later
//
// What must hold of a manifest before sckptd reads it, or lets its worker read it.
#pragma once

#include <string>

#include "daemon/store_session.h"
#include "image_store/manifest.h"
#include "image_store/seal.h"

namespace sckpt {

// The seal is right; then it is opened.
Result<Manifest> sealed_manifest(const SealKeys& keys, const std::string& path, Result<ManifestCopy> copy);
// The digest is the one that the catalogue has, too.
Result<Manifest> verified_manifest(const SealKeys& keys, const ManifestName& name, Result<ManifestCopy> copy);

}  // namespace sckpt
