// SPDX-License-Identifier: GPL-3.0-or-later
#include "image_store/store_id.h"

#include <algorithm>
#include <array>
#include <format>
#include <span>

#include <sys/random.h>

#include <nlohmann/json.hpp>

#include "common/json.h"

namespace sckpt {
namespace {

using nlohmann::json;

constexpr std::size_t kLimit = 4096;

Result<std::string> random_uuid() {
    std::array<unsigned char, 16> bytes{};
    if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) return fail_errno("get random bytes for a UUID");
    bytes[6] = static_cast<unsigned char>((bytes[6] & 0x0f) | 0x40);  // version 4
    bytes[8] = static_cast<unsigned char>((bytes[8] & 0x3f) | 0x80);
    std::string text;
    for (std::size_t i = 0; i < bytes.size(); ++i) text += std::format("{}{:02x}", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", bytes[i]);
    return text;
}

// It goes into messages and logs.
bool is_uuid(const std::string& text) {
    return text.size() == 36 && text.find_first_not_of("0123456789abcdef-") == std::string::npos;
}

Result<StoreId> parse(const std::string& text) {
    const json object = json::parse(text, nullptr, false);
    if (!object.is_object()) return fail(Errc::corrupt, "it is no JSON object");
    StoreId store;
    SCKPT_ASSIGN(store.id, member<std::string>(object, "id"));
    SCKPT_ASSIGN(store.cluster, member<std::string>(object, "cluster"));
    if (!is_uuid(store.id)) return fail(Errc::corrupt, "its id is no UUID");
    return store;
}

Result<> write_new(FileSystem& store, const std::string& text) {
    SCKPT_ASSIGN(const auto file, store.create(kStoreIdFile));
    SCKPT_TRY(file->write_at(0, std::as_bytes(std::span(text))));
    SCKPT_TRY(file->sync());
    return store.sync_directory("");
}

}  // namespace

Result<StoreId> read_store_id(FileSystem& store) {
    SCKPT_ASSIGN(const std::string text, read_whole(store, kStoreIdFile, kLimit));
    auto found = parse(text);
    if (!found) return fail(Errc::corrupt, std::format("the file {} cannot be used: {}", kStoreIdFile, found.error().text));
    return found;
}

Result<StoreId> make_store_id(FileSystem& store, const std::string& cluster) {
    StoreId made{.id = {}, .cluster = cluster};
    SCKPT_ASSIGN(made.id, random_uuid());
    const std::string text = json{{"id", made.id}, {"cluster", made.cluster}}.dump(-1, ' ', true, json::error_handler_t::replace) + "\n";
    if (auto written = write_new(store, text); !written) {
        if (written.error().code != Errc::exists) (void)store.remove(kStoreIdFile);  // half a file is worse than none
        return std::unexpected(written.error());
    }
    return made;
}

Result<MadeStore> make_store(FileSystem& store, const std::string& cluster, const std::string& known) {
    auto found = read_store_id(store);
    const bool is_new = !found && found.error().code == Errc::not_found;
    if (is_new && !known.empty())
        return fail(Errc::denied, std::format("the catalogue knows store {} already, and it is not here: is its file system mounted?", known));
    if (is_new) found = make_store_id(store, cluster);
    if (!found) return std::unexpected(found.error());
    if (found->cluster != cluster || (!known.empty() && found->id != known))
        return fail(Errc::exists, std::format("this is store {} of cluster {} already", found->id, found->cluster));
    return MadeStore{*found, is_new};
}

}  // namespace sckpt
