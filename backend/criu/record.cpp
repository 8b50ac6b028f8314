// SPDX-License-Identifier: GPL-3.0-or-later
#include "backend/criu/record.h"

#include "common/fd.h"

namespace sckpt::criu {

using nlohmann::json;

namespace {

constexpr std::int64_t kVersion = 1;

json to_json(const TaskStream& stream) {
    return {{"resource", stream.resource}, {"alias", stream.alias},       {"path", bytes_to_text(stream.path)}, {"inode", stream.inode},
            {"size", stream.size},         {"position", stream.position}, {"append", stream.append},           {"regular", stream.regular}};
}

Result<TaskStream> stream_from_json(const json& object) {
    TaskStream stream;
    SCKPT_ASSIGN(stream.resource, member<std::string>(object, "resource"));
    SCKPT_ASSIGN(stream.alias, member<std::string>(object, "alias"));
    SCKPT_ASSIGN(const std::string path, member<std::string>(object, "path"));
    stream.path = text_to_bytes(path);
    SCKPT_ASSIGN(stream.inode, member<std::uint64_t>(object, "inode"));
    SCKPT_ASSIGN(stream.size, member<std::uint64_t>(object, "size"));
    SCKPT_ASSIGN(stream.position, member<std::uint64_t>(object, "position"));
    SCKPT_ASSIGN(stream.append, member<bool>(object, "append"));
    SCKPT_ASSIGN(stream.regular, member<bool>(object, "regular"));
    return stream;
}

Result<UserFile> file_from_json(const json& object) {
    UserFile file;
    SCKPT_ASSIGN(const std::string path, member<std::string>(object, "path"));
    file.path = text_to_bytes(path);
    SCKPT_ASSIGN(file.inode, member<std::uint64_t>(object, "inode"));
    SCKPT_ASSIGN(file.size, member<std::uint64_t>(object, "size"));
    SCKPT_ASSIGN(file.append, member<bool>(object, "append"));
    SCKPT_ASSIGN(file.stdio, member<bool>(object, "stdio"));
    return file;
}

template <class T>
Result<std::vector<T>> numbers_from_json(const json& object, const char* name) {
    const auto found = object.find(name);
    std::vector<T> numbers;
    if (found == object.end() || !found->is_array()) return fail(Errc::corrupt, std::string("list \"") + name + "\" is missing");
    for (const json& value : *found) {
        if (!value.is_number_unsigned()) return fail(Errc::corrupt, std::string("list \"") + name + "\" holds something else than numbers");
        numbers.push_back(value.get<T>());
    }
    return numbers;
}

Result<std::vector<std::string>> paths_from_json(const json& object, const char* name) {
    const auto found = object.find(name);
    std::vector<std::string> paths;
    if (found == object.end() || !found->is_array()) return fail(Errc::corrupt, std::string("list \"") + name + "\" is missing");
    for (const json& value : *found) {
        if (!value.is_string()) return fail(Errc::corrupt, std::string("list \"") + name + "\" holds something else than paths");
        paths.push_back(text_to_bytes(value.get<std::string>()));
    }
    return paths;
}

Result<ImageRecord> record_from_json(const json& object) {
    ImageRecord record;
    SCKPT_ASSIGN(const std::int64_t version, member<std::int64_t>(object, "version"));
    if (version != kVersion) return fail(Errc::unsupported, "it is of another version of sckpt");
    SCKPT_ASSIGN(const std::uint64_t uid, member<std::uint64_t>(object, "uid"));
    SCKPT_ASSIGN(const std::int64_t root, member<std::int64_t>(object, "root"));
    record.uid = static_cast<uid_t>(uid);
    record.root = static_cast<pid_t>(root);
    SCKPT_ASSIGN(record.groups, numbers_from_json<gid_t>(object, "groups"));
    SCKPT_ASSIGN(record.ids, numbers_from_json<pid_t>(object, "ids"));
    SCKPT_ASSIGN(record.streams, streams_from_json(object.value("streams", json())));
    SCKPT_ASSIGN(record.files, files_from_json(object.value("files", json())));
    SCKPT_ASSIGN(const std::string script, member<std::string>(object, "script"));
    record.script = text_to_bytes(script);
    SCKPT_ASSIGN(record.directories, paths_from_json(object, "directories"));
    return record;
}

}  // namespace

json to_json(const std::vector<UserFile>& files) {
    json array = json::array();
    for (const UserFile& file : files)
        array.push_back({{"path", bytes_to_text(file.path)},
                         {"inode", file.inode},
                         {"size", file.size},
                         {"append", file.append},
                         {"stdio", file.stdio}});
    return array;
}

Result<std::vector<UserFile>> files_from_json(const json& array) {
    if (!array.is_array()) return fail(Errc::corrupt, "the list of files is missing");
    std::vector<UserFile> files;
    for (const json& value : array) {
        SCKPT_ASSIGN(files.emplace_back(), file_from_json(value));
    }
    return files;
}

json to_json(const std::array<TaskStream, 3>& streams) {
    return json::array({to_json(streams[0]), to_json(streams[1]), to_json(streams[2])});
}

Result<std::array<TaskStream, 3>> streams_from_json(const json& array) {
    std::array<TaskStream, 3> streams;
    if (!array.is_array() || array.size() != streams.size()) return fail(Errc::corrupt, "the three standard streams are missing");
    for (std::size_t i = 0; i < streams.size(); ++i) {
        SCKPT_ASSIGN(streams[i], stream_from_json(array[i]));
    }
    return streams;
}

std::string to_text(const ImageRecord& record) {
    json directories = json::array();
    for (const std::string& path : record.directories) directories.push_back(bytes_to_text(path));
    const json object = {{"version", kVersion},
                         {"uid", record.uid},
                         {"root", record.root},
                         {"groups", record.groups},
                         {"ids", record.ids},
                         {"streams", to_json(record.streams)},
                         {"files", to_json(record.files)},
                         {"script", bytes_to_text(record.script)},
                         {"directories", directories}};
    return object.dump(1) + "\n";
}

Result<ImageRecord> parse_record(std::string_view text) {
    const json object = json::parse(text, nullptr, false);
    if (!object.is_object()) return fail(Errc::corrupt, "it is no JSON object");
    return record_from_json(object);
}

Result<ImageRecord> read_record(const std::string& directory) {
    const std::string path = directory + "/" + kRecordName;
    auto text = read_file(path);
    if (!text) return fail(Errc::corrupt, "the image is not whole: " + text.error().text);
    auto record = parse_record(*text);
    if (!record) return fail(record.error().code, "the image's " + path + " cannot be used: " + record.error().text);
    return record;
}

std::vector<UserFile> reported_files(const ImageRecord& record) {
    std::vector<UserFile> files = record.files;
    for (std::size_t fd : {1u, 2u}) {
        const TaskStream& stream = record.streams[fd];
        const bool repeated = fd == 2 && stream.resource == record.streams[1].resource;
        if (stream.regular && !repeated) files.push_back({stream.path, stream.inode, stream.size, stream.append, true});
    }
    return files;
}

}  // namespace sckpt::criu
