// SPDX-License-Identifier: GPL-3.0-or-later
//
// The head of a manifest as JSON. What is read is believed only as far as it checks: names become paths. Text from outside (names
// of users, paths of files) is bytes: see bytes_to_text().
#include <format>
#include <limits>

#include "common/json.h"
#include "image_store/manifest.h"
#include "image_store/names.h"

namespace sckpt {
namespace {

using Json = nlohmann::json;

// Members of one object, taken by name; what is missing or of the wrong kind is remembered.
class Members {
   public:
    explicit Members(const Json& object) : object_(object) {}

    template <class T>
    void take(const char* name, T& to) {
        const Json* value = find(name);
        if (value == nullptr) return;
        if constexpr (std::is_same_v<T, bool>) {
            if (value->is_boolean()) to = value->get<bool>();
            else wrong(name);
        } else if constexpr (std::is_same_v<T, std::string>) {
            if (value->is_string()) to = text_to_bytes(value->get_ref<const std::string&>());
            else wrong(name);
        } else if constexpr (std::is_signed_v<T>) {
            if (value->is_number_integer() && in_range<T>(*value)) to = static_cast<T>(value->get<std::int64_t>());
            else wrong(name);
        } else {
            if (value->is_number_unsigned() && value->get<std::uint64_t>() <= std::numeric_limits<T>::max())
                to = static_cast<T>(value->get<std::uint64_t>());
            else wrong(name);
        }
    }

    // Each member of an array.
    template <class F>
    void each(const char* name, F take_one) {
        const Json* array = find(name);
        if (array == nullptr) return;
        if (!array->is_array()) return wrong(name);
        for (const Json& item : *array) take_one(item);
    }
    template <class F>
    void inside(const char* name, F take_members) {
        static const Json kNothing = Json::object();
        const Json* value = find(name);
        Members members(value == nullptr ? kNothing : *value);
        take_members(members);
        join(members);
    }
    void join(const Members& other) {
        if (problem_.empty()) problem_ = other.problem_;
    }
    bool has(const char* name) const { return object_.is_object() && object_.contains(name); }
    void wrong(const char* name) {
        if (problem_.empty()) problem_ = std::format("the manifest's head: \"{}\" is missing or wrong", name);
    }
    Result<> verdict() const {
        if (!problem_.empty()) return fail(Errc::corrupt, problem_);
        return {};
    }

   private:
    template <class T>
    static bool in_range(const Json& value) {
        return !value.is_number_unsigned() ||
               value.get<std::uint64_t>() <= static_cast<std::uint64_t>(std::numeric_limits<T>::max());
    }
    const Json* find(const char* name) {
        if (object_.is_object())
            if (const auto found = object_.find(name); found != object_.end()) return &*found;
        wrong(name);
        return nullptr;
    }

    const Json& object_;
    std::string problem_;
};

// One list of members serves both ways: Visitor is Members, or Writer below.
class Writer {
   public:
    template <class T>
    void take(const char* name, const T& value) {
        if constexpr (std::is_same_v<T, std::string>) object_[name] = bytes_to_text(value);
        else object_[name] = value;
    }
    Json object_ = Json::object();
};

template <class Visitor, class T>
void visit_identity(Visitor& v, T& id) {
    v.take("cluster", id.cluster);
    v.take("user", id.user);
    v.take("account", id.account);
    v.take("node", id.node);
    v.take("task", id.task);
    v.take("job_id", id.job_id);
    v.take("uid", id.uid);
    v.take("submit_time", id.submit_time);
    v.take("restart_count", id.restart_count);
    v.take("job_row", id.job_row);
    v.take("checkpoint_row", id.checkpoint_row);
    v.take("checkpoint", id.checkpoint);
    v.take("images", id.images);
    v.take("created", id.created);
    v.take("interval_seconds", id.interval_seconds);
    v.take("max_restarts", id.max_restarts);
    v.take("frozen_ms", id.frozen_ms);
}

template <class Visitor, class T>
void visit_ended(Visitor& v, T& ended) {
    v.take("task", ended.task);
    v.take("wait_status", ended.wait_status);
}

template <class Visitor, class T>
void visit_needs(Visitor& v, T& needs) {
    v.take("backend", needs.backend);
    v.take("backend_version", needs.backend_version);
    v.take("architecture", needs.architecture);
    v.take("kernel", needs.kernel);
}

template <class Visitor, class T>
void visit_user_file(Visitor& v, T& file) {
    v.take("path", file.path);
    v.take("inode", file.inode);
    v.take("size", file.size);
    v.take("append", file.append);
    v.take("stdio", file.stdio);
}

template <class Visitor, class T>
void visit_file(Visitor& v, T& file) {
    v.take("name", file.name);
    v.take("size", file.size);
    v.take("chunks", file.chunks);
}

template <class Visitor, class T>
void visit_pack(Visitor& v, T& pack) {
    v.take("path", pack.path);
    v.take("bytes", pack.bytes);
    v.take("used", pack.used);
}

template <class F, class T>
Json written(F visit, const T& value) {
    Writer writer;
    visit(writer, value);
    return std::move(writer.object_);
}
template <class F, class T>
Json written_each(F visit, const std::vector<T>& values) {
    Json array = Json::array();
    for (const T& value : values) array.push_back(written(visit, value));
    return array;
}

#define SCKPT_VISIT(function) [](auto& v, auto& value) { function(v, value); }

// The files in the order of their names, none inside another; their chunks one after another.
Result<> check_files(Manifest& manifest) {
    std::uint64_t chunks = 0, bytes = 0;
    const ImageFile* before = nullptr;
    for (ImageFile& file : manifest.files) {
        if (auto named = check_file_name(file.name); !named) return fail(Errc::corrupt, "the manifest: " + named.error().text);
        if (before != nullptr && before->name >= file.name)
            return fail(Errc::corrupt, "the manifest's files are not sorted by name");
        if (file.chunks > file.size || file.chunks < file.size / kMaxBlock ||
            file.size > std::numeric_limits<std::int64_t>::max())
            return fail(Errc::corrupt, std::format("the manifest: {} cannot have {} chunks", file.name, file.chunks));
        file.first_chunk = chunks;
        if (__builtin_add_overflow(chunks, file.chunks, &chunks) || __builtin_add_overflow(bytes, file.size, &bytes))
            return fail(Errc::corrupt, "the manifest's files have no possible size");
        before = &file;
    }
    if (chunks != manifest.chunk_count || bytes != manifest.plain_bytes)
        return fail(Errc::corrupt, "the manifest's sums are not those of its files");
    return {};
}

Result<> check_packs(const Manifest& manifest) {
    if (manifest.packs.size() > kMaxPacks)
        return fail(Errc::corrupt, std::format("the manifest refers to {} packs", manifest.packs.size()));
    for (std::size_t i = 0; i < manifest.packs.size(); ++i) {
        const PackUse& pack = manifest.packs[i];
        if (auto named = check_store_path(pack.path); !named) return fail(Errc::corrupt, "the manifest: " + named.error().text);
        if (pack.used > pack.bytes)
            return fail(Errc::corrupt, std::format("the manifest uses more of {} than it has", pack.path));
        for (std::size_t j = 0; j < i; ++j)
            if (manifest.packs[j].path == pack.path)
                return fail(Errc::corrupt, std::format("the manifest names {} twice", pack.path));
    }
    return {};
}

Result<> check_format(const Json& root) {
    const auto format = root.is_object() ? root.find("format") : root.end();
    if (format == root.end() || !format->is_number_unsigned())
        return fail(Errc::corrupt, "the manifest's head has no format number");
    if (const auto number = format->get<std::uint64_t>(); number != kManifestFormat)
        return fail(Errc::unsupported, std::format("the manifest has format {}, this sckpt reads {}", number, kManifestFormat));
    return {};
}

template <class T, class F>
void read_each(Members& root, const char* name, std::vector<T>& to, F visit) {
    root.each(name, [&](const Json& item) {
        Members members(item);
        visit(members, to.emplace_back());
        root.join(members);
    });
}

// Manifests of before a checkpoint could have several images say nothing of it: such an image is its own leader.
void read_leader(Members& identity, ImageIdentity& id) {
    if (!identity.has("leader")) {
        id.leader = id.task;
        return;
    }
    identity.take("leader", id.leader);
    read_each(identity, "ended", id.ended, SCKPT_VISIT(visit_ended));
}

}  // namespace

std::string head_text(const Manifest& manifest) {
    Json identity = written(SCKPT_VISIT(visit_identity), manifest.identity);
    identity["leader"] = bytes_to_text(manifest.identity.leader);
    identity["ended"] = written_each(SCKPT_VISIT(visit_ended), manifest.identity.ended);
    Json needs = written(SCKPT_VISIT(visit_needs), manifest.needs);
    needs["cpu_flags"] = manifest.needs.cpu_flags;
    const Json root = {{"format", kManifestFormat},
                       {"identity", std::move(identity)},
                       {"needs", std::move(needs)},
                       {"user_files", written_each(SCKPT_VISIT(visit_user_file), manifest.user_files)},
                       {"files", written_each(SCKPT_VISIT(visit_file), manifest.files)},
                       {"packs", written_each(SCKPT_VISIT(visit_pack), manifest.packs)},
                       {"chunk_count", manifest.chunk_count},
                       {"chunk_size", manifest.chunk_size},
                       {"plain_bytes", manifest.plain_bytes}};
    return root.dump(-1, ' ', true, Json::error_handler_t::replace);
}

std::string head_text(const ImageIdentity& identity, const ImageNeeds& needs, const std::vector<UserFile>& user_files) {
    Manifest manifest;
    manifest.identity = identity;
    manifest.needs = needs;
    manifest.user_files = user_files;
    return head_text(manifest);
}

Result<Manifest> parse_head(std::string_view text) {
    const Json root = Json::parse(text, nullptr, false);
    SCKPT_TRY(check_format(root));
    Manifest manifest;
    Members members(root);
    members.inside("identity", [&](Members& m) {
        visit_identity(m, manifest.identity);
        read_leader(m, manifest.identity);
    });
    members.inside("needs", [&](Members& m) {
        visit_needs(m, manifest.needs);
        m.each("cpu_flags", [&](const Json& flag) {
            if (flag.is_string()) manifest.needs.cpu_flags.push_back(flag.get<std::string>());
            else m.wrong("cpu_flags");
        });
    });
    read_each(members, "user_files", manifest.user_files, SCKPT_VISIT(visit_user_file));
    read_each(members, "files", manifest.files, SCKPT_VISIT(visit_file));
    read_each(members, "packs", manifest.packs, SCKPT_VISIT(visit_pack));
    members.take("chunk_count", manifest.chunk_count);
    members.take("chunk_size", manifest.chunk_size);
    members.take("plain_bytes", manifest.plain_bytes);
    SCKPT_TRY(members.verdict());
    SCKPT_TRY(check_files(manifest));
    SCKPT_TRY(check_packs(manifest));
    return manifest;
}

}  // namespace sckpt
