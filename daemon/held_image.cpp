// SPDX-License-Identifier: GPL-3.0-or-later
//
// The record: what the image's manifest will say, as its head says it, and beside that what only this node needs.
#include "daemon/held_image.h"

#include "common/json.h"
#include "daemon/store_protocol.h"

namespace sckpt {
namespace {

Result<HeldImage> held_image_of(const Json& object) {
    HeldImage image;
    SCKPT_ASSIGN(Manifest head, parse_head(object.value("head", Json()).dump()));
    image.identity = std::move(head.identity);
    image.needs = std::move(head.needs);
    image.user_files = std::move(head.user_files);
    SCKPT_ASSIGN(image.directory, member<std::string>(object, "directory"));
    SCKPT_ASSIGN(image.name, member<std::string>(object, "name"));
    SCKPT_ASSIGN(image.base.path, member<std::string>(object, "base"));
    SCKPT_ASSIGN(image.base.digest, member<std::string>(object, "base_digest"));
    SCKPT_ASSIGN(image.bytes, member<std::uint64_t>(object, "bytes"));
    SCKPT_ASSIGN(image.urgent, member<bool>(object, "urgent"));
    SCKPT_ASSIGN(image.acknowledged, member<bool>(object, "acknowledged"));
    if (const auto stored = object.find("stored"); stored != object.end()) {
        SCKPT_ASSIGN(image.stored, stored_image_of(*stored));
    }
    return image;
}

}  // namespace

std::string to_text(const HeldImage& image) {
    Json object = {{"head", Json::parse(head_text(image.identity, image.needs, image.user_files), nullptr, false)},
                   {"directory", image.directory},
                   {"name", image.name},
                   {"base", image.base.path},
                   {"base_digest", image.base.digest},
                   {"bytes", image.bytes},
                   {"urgent", image.urgent},
                   {"acknowledged", image.acknowledged}};
    if (image.stored) object["stored"] = to_json(*image.stored);
    return object.dump();
}

Result<HeldImage> parse_held_image(std::string_view text) {
    const Json object = Json::parse(text, nullptr, false);
    auto image = object.is_object() ? held_image_of(object) : fail(Errc::corrupt, "it is no JSON object");
    if (!image) return fail(Errc::corrupt, "the record of an image in the fast tier cannot be read: " + image.error().text);
    return image;
}

}  // namespace sckpt
