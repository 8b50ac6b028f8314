// SPDX-License-Identifier: GPL-3.0-or-later
//
// What this node holds of one checkpoint: all images that were made here, in one directory of the fast tier with a directory for each task, and
// all that is needed to go on with them after sckptd was restarted: kept as JSON beside that directory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "daemon/store_client.h"

namespace sckpt {

struct HeldImage {
    ImageIdentity identity;
    std::vector<UserFile> user_files;
    std::string name;   // in the store; see PutRequest
    ManifestName base;  // path empty: none
    std::uint64_t bytes = 0;
    std::optional<StoredImage> stored;  // its drain has ended
};

struct HeldPart {
    ImageNeeds needs;
    std::string store;              // the id of the one that they go into
    std::string directory;          // in it; see PutRequest
    std::vector<HeldImage> images;  // one at least
    bool urgent = false;
    bool acknowledged = false;  // the catalogue has them: they are a cache from now on
    std::string given_up;       // why they cannot be stored at all; not kept

    const ImageIdentity& identity() const { return images.front().identity; }  // what it says of the checkpoint, all say
    std::uint64_t id() const { return static_cast<std::uint64_t>(identity().checkpoint_row); }
    std::uint64_t bytes() const;
    bool stored() const;  // all of them
    std::string fast_name() const { return fast_name_of(id()); }
    static std::string fast_name_of(std::uint64_t checkpoint_row) { return "ckpt-" + std::to_string(checkpoint_row); }
};

std::string to_text(const HeldPart& part);
Result<HeldPart> parse_held_part(std::string_view text);  // Errc::corrupt

}  // namespace sckpt
