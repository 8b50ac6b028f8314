// SPDX-License-Identifier: GPL-3.0-or-later
//
// The record: of each image what its manifest will say, as its head says it, and beside that what only this node needs.
#include "daemon/held_part.h"

#include <algorithm>

#include "common/json.h"
#include "daemon/store_protocol.h"

namespace sckpt {
namespace {

Json json_of(const HeldImage& image, const ImageNeeds& needs) {
    Json object = {{"head", Json::parse(head_text(image.identity, needs, image.user_files), nullptr, false)},
                   {"name", image.name},
                   {"base", image.base.path},
                   {"base_digest", image.base.digest},
                   {"bytes", image.bytes}};
    if (image.stored) object["stored"] = to_json(*image.stored);
    return object;
}

Result<HeldImage> image_of(const Json& object, ImageNeeds& needs) {
    HeldImage image;
    SCKPT_ASSIGN(Manifest head, parse_head(object.value("head", Json()).dump()));
    image.identity = std::move(head.identity);
    needs = std::move(head.needs);
    image.user_files = std::move(head.user_files);
    SCKPT_ASSIGN(image.name, member<std::string>(object, "name"));
    SCKPT_ASSIGN(image.base.path, member<std::string>(object, "base"));
    SCKPT_ASSIGN(image.base.digest, member<std::string>(object, "base_digest"));
    SCKPT_ASSIGN(image.bytes, member<std::uint64_t>(object, "bytes"));
    if (const auto stored = object.find("stored"); stored != object.end()) {
        SCKPT_ASSIGN(image.stored, stored_image_of(*stored));
    }
    return image;
}

Result<HeldPart> part_of(const Json& object) {
    HeldPart part;
    SCKPT_ASSIGN(part.store, member<std::string>(object, "store"));
    SCKPT_ASSIGN(part.directory, member<std::string>(object, "directory"));
    SCKPT_ASSIGN(part.urgent, member<bool>(object, "urgent"));
    SCKPT_ASSIGN(part.acknowledged, member<bool>(object, "acknowledged"));
    const auto images = object.find("images");
    if (images == object.end() || !images->is_array() || images->empty()) return fail(Errc::corrupt, "it names no image");
    for (const Json& image : *images) {
        if (!image.is_object()) return fail(Errc::corrupt, "what it says of an image is no JSON object");
        SCKPT_ASSIGN(part.images.emplace_back(), image_of(image, part.needs));
        if (part.images.back().identity.checkpoint_row != part.identity().checkpoint_row)
            return fail(Errc::corrupt, "its images are of different checkpoints");
    }
    return part;
}

}  // namespace

std::uint64_t HeldPart::bytes() const {
    std::uint64_t sum = 0;
    for (const HeldImage& image : images) sum += image.bytes;
    return sum;
}

bool HeldPart::stored() const {
    return std::ranges::all_of(images, [](const HeldImage& image) { return image.stored.has_value(); });
}

std::string to_text(const HeldPart& part) {
    Json images = Json::array();
    for (const HeldImage& image : part.images) images.push_back(json_of(image, part.needs));
    return Json{{"store", part.store},
                {"directory", part.directory},
                {"urgent", part.urgent},
                {"acknowledged", part.acknowledged},
                {"images", std::move(images)}}
        .dump();
}

Result<HeldPart> parse_held_part(std::string_view text) {
    const Json object = Json::parse(text, nullptr, false);
    auto part = object.is_object() ? part_of(object) : fail(Errc::corrupt, "it is no JSON object");
    if (!part) return fail(Errc::corrupt, "the record of what the fast tier holds of a checkpoint cannot be read: " + part.error().text);
    return part;
}

}  // namespace sckpt
