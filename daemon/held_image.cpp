// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/held_image.h"

#include <limits>
#include <nlohmann/json.hpp>

namespace sckpt {
namespace {

using nlohmann::json;

// JSON text is UTF-8, names and paths need not be: each byte is the character of that number.
std::string as_text(std::string_view bytes) {
    std::string text;
    for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x80) {
            text += c;
        } else {
            text += static_cast<char>(0xc0 | (byte >> 6));
            text += static_cast<char>(0x80 | (byte & 0x3f));
        }
    }
    return text;
}

std::string as_bytes(std::string_view text) {
    std::string bytes;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        if (byte < 0x80 || i + 1 == text.size()) bytes += text[i];
        else bytes += static_cast<char>(((byte & 0x03) << 6) | (static_cast<unsigned char>(text[++i]) & 0x3f));
    }
    return bytes;
}

// One list of members for both directions: a Writer makes the object, a Reader fills the struct and notes what does not fit.
struct Writer {
    json object = json::object();
    void operator()(const char* name, const std::string& value) { object[name] = as_text(value); }
    void operator()(const char* name, const std::vector<std::string>& value) {
        json& list = object[name] = json::array();
        for (const std::string& item : value) list.push_back(as_text(item));
    }
    template <class T>
    requires std::is_arithmetic_v<T>
    void operator()(const char* name, const T& value) { object[name] = value; }
};

struct Reader {
    const json& object;
    bool fits = true;

    const json* find(const char* name, bool (json::*is)() const noexcept) {
        const auto found = object.is_object() ? object.find(name) : object.end();
        if (object.is_object() && found != object.end() && ((*found).*is)()) return &*found;
        fits = false;
        return nullptr;
    }
    void operator()(const char* name, std::string& value) {
        if (const json* found = find(name, &json::is_string)) value = as_bytes(found->get_ref<const std::string&>());
    }
    void operator()(const char* name, std::vector<std::string>& value) {
        const json* found = find(name, &json::is_array);
        if (found == nullptr) return;
        for (const json& item : *found) {
            if (item.is_string()) value.push_back(as_bytes(item.get_ref<const std::string&>()));
            else fits = false;
        }
    }
    void operator()(const char* name, bool& value) {
        if (const json* found = find(name, &json::is_boolean)) value = found->get<bool>();
    }
    template <class T>
    requires std::is_integral_v<T>
    void operator()(const char* name, T& value) {
        const json* found = find(name, &json::is_number_integer);
        if (found == nullptr) return;
        const bool in_range =
            found->is_number_unsigned() ? std::in_range<T>(found->get<std::uint64_t>()) : std::in_range<T>(found->get<std::int64_t>());
        if (in_range) value = found->get<T>();
        else fits = false;
    }
};

template <class Visitor, class Identity>
void visit_identity(Visitor& visit, Identity& identity) {
    visit("cluster", identity.cluster);
    visit("user", identity.user);
    visit("account", identity.account);
    visit("node", identity.node);
    visit("task", identity.task);
    visit("job_id", identity.job_id);
    visit("uid", identity.uid);
    visit("submit_time", identity.submit_time);
    visit("restart_count", identity.restart_count);
    visit("job_row", identity.job_row);
    visit("checkpoint_row", identity.checkpoint_row);
    visit("checkpoint", identity.checkpoint);
    visit("images", identity.images);
    visit("created", identity.created);
    visit("interval_seconds", identity.interval_seconds);
    visit("max_restarts", identity.max_restarts);
    visit("frozen_ms", identity.frozen_ms);
}

template <class Visitor, class Needs>
void visit_needs(Visitor& visit, Needs& needs) {
    visit("backend", needs.backend);
    visit("backend_version", needs.backend_version);
    visit("architecture", needs.architecture);
    visit("kernel", needs.kernel);
    visit("cpu_flags", needs.cpu_flags);
}

template <class Visitor, class File>
void visit_file(Visitor& visit, File& file) {
    visit("path", file.path);
    visit("inode", file.inode);
    visit("size", file.size);
    visit("append", file.append);
    visit("stdio", file.stdio);
}

template <class Visitor, class Pack>
void visit_pack(Visitor& visit, Pack& pack) {
    visit("path", pack.path);
    visit("bytes", pack.bytes);
    visit("used", pack.used);
}

template <class Visitor, class Stored>
void visit_stored(Visitor& visit, Stored& stored) {
    visit("manifest", stored.manifest);
    visit("digest", stored.digest);
    visit("plain_bytes", stored.plain_bytes);
    visit("new_bytes", stored.new_bytes);
}

template <class Visitor, class Image>
void visit_image(Visitor& visit, Image& image) {
    visit("directory", image.directory);
    visit("name", image.name);
    visit("base", image.base.path);
    visit("base_digest", image.base.digest);
    visit("bytes", image.bytes);
    visit("urgent", image.urgent);
    visit("acknowledged", image.acknowledged);
}

template <class Item, class Visit>
json write_one(const Item& item, Visit visit) {
    Writer writer;
    visit(writer, item);
    return std::move(writer.object);
}

template <class Item, class Visit>
json write_all_of(const std::vector<Item>& items, Visit visit) {
    json list = json::array();
    for (const Item& item : items) list.push_back(write_one(item, visit));
    return list;
}

template <class Item, class Visit>
bool read_one(const json& object, Item& item, Visit visit) {
    Reader reader{object};
    visit(reader, item);
    return reader.fits;
}

template <class Item, class Visit>
bool read_all_of(const json& object, const char* name, std::vector<Item>& items, Visit visit) {
    const auto list = object.find(name);
    if (list == object.end() || !list->is_array()) return false;
    for (const json& element : *list)
        if (!read_one(element, items.emplace_back(), visit)) return false;
    return true;
}

constexpr auto kIdentity = [](auto& visit, auto& item) { visit_identity(visit, item); };
constexpr auto kNeeds = [](auto& visit, auto& item) { visit_needs(visit, item); };
constexpr auto kFile = [](auto& visit, auto& item) { visit_file(visit, item); };
constexpr auto kPack = [](auto& visit, auto& item) { visit_pack(visit, item); };
constexpr auto kStored = [](auto& visit, auto& item) { visit_stored(visit, item); };
constexpr auto kImage = [](auto& visit, auto& item) { visit_image(visit, item); };

}  // namespace

std::string to_text(const HeldImage& image) {
    json object = write_one(image, kImage);
    object["identity"] = write_one(image.identity, kIdentity);
    object["needs"] = write_one(image.needs, kNeeds);
    object["user_files"] = write_all_of(image.user_files, kFile);
    if (image.stored) {
        object["stored"] = write_one(*image.stored, kStored);
        object["stored"]["packs"] = write_all_of(image.stored->packs, kPack);
    }
    return object.dump();
}

Result<HeldImage> parse_held_image(std::string_view text) {
    const json object = json::parse(text, nullptr, false);
    const auto wrong = fail(Errc::corrupt, "the record of an image in the fast tier cannot be read");
    if (!object.is_object()) return wrong;
    HeldImage image;
    if (!read_one(object, image, kImage) || !object.contains("identity") || !read_one(object["identity"], image.identity, kIdentity) ||
        !object.contains("needs") || !read_one(object["needs"], image.needs, kNeeds) ||
        !read_all_of(object, "user_files", image.user_files, kFile))
        return wrong;
    if (const auto stored = object.find("stored"); stored != object.end()) {
        image.stored.emplace();
        if (!read_one(*stored, *image.stored, kStored) || !read_all_of(*stored, "packs", image.stored->packs, kPack)) return wrong;
    }
    return image;
}

}  // namespace sckpt
