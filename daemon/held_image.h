// SPDX-License-Identifier: GPL-3.0-or-later
//
// An image in the fast tier of this node, and all that is needed to go on with it after sckptd was restarted: kept as JSON beside the
// image.
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
    ImageNeeds needs;
    std::vector<UserFile> user_files;
    std::string directory, name;  // in the store; see PutRequest
    ManifestName base;            // path empty: none
    std::uint64_t bytes = 0;
    bool urgent = false;
    std::optional<StoredImage> stored;  // its drain has ended
    bool acknowledged = false;          // the catalogue has it: the image is a cache from now on
    std::string given_up;               // why it cannot be stored at all; not kept

    std::uint64_t id() const { return static_cast<std::uint64_t>(identity.checkpoint_row); }
    std::string fast_name() const { return fast_name_of(id()); }
    static std::string fast_name_of(std::uint64_t checkpoint_row) { return "ckpt-" + std::to_string(checkpoint_row); }
};

std::string to_text(const HeldImage& image);
Result<HeldImage> parse_held_image(std::string_view text);  // Errc::corrupt

}  // namespace sckpt
