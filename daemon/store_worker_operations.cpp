// SPDX-License-Identifier: GPL-3.0-or-later
#include <algorithm>
#include <array>
#include <format>
#include <functional>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>

#include <unistd.h>

#include "backend/backend.h"
#include "daemon/store_worker.h"
#include "daemon/watched_files.h"
#include "image_store/names.h"
#include "image_store/store_id.h"

namespace sckpt {
namespace {

constexpr std::size_t kListed = 2000;        // files in one message
constexpr std::size_t kBackupsKept = 3;
constexpr std::string_view kPartSuffix = ".part";

Result<PutRequest> put_request(const StoreTask& task) {
    SCKPT_ASSIGN(Manifest head, parse_head(text_of(task.request, "head")));
    PutRequest put{std::move(head.identity), std::move(head.needs), std::move(head.user_files), text_of(task.request, "directory"),
                   text_of(task.request, "name"), {}, nullptr, {}};
    if (auto pages = page_runs(text_of(task.request, "backend"), task.directory.get())) put.pages = std::move(*pages);
    put.seal = [&master = task.master](std::string_view shown, const Digest& rest) { return master.seal(shown, rest); };
    return put;
}

Result<std::unique_ptr<FileSystem>> handed_directory(const StoreTask& task) {
    UniqueFd copy(::dup(task.directory.get()));
    if (!copy) return fail_errno("duplicate the descriptor of the image");
    return real_file_system(std::move(copy));
}

Result<Json> drain(StoreTask& task) {
    SCKPT_ASSIGN(PutRequest put, put_request(task));
    std::optional<Manifest> base;
    if (const std::string path = text_of(task.request, "base"); !path.empty())
        if (auto opened = task.master.manifest(task.files, path)) base.emplace(std::move(*opened));  // else without: sckptd knows why
    put.base = base ? &*base : nullptr;
    SCKPT_ASSIGN(const auto directory, handed_directory(task));
    const auto hidden = texts_of(task.request, "leave_out");
    const auto image = without(*directory, {hidden.begin(), hidden.end()});
    SCKPT_ASSIGN(const StoredImage stored, task.store.put(*image, put, task.options()));
    return Json{{"image", to_json(stored)}};
}

Result<Json> fetch(StoreTask& task) {
    SCKPT_ASSIGN(const Manifest manifest, task.master.manifest(task.files, text_of(task.request, "manifest")));
    SCKPT_ASSIGN(const auto target, handed_directory(task));
    SCKPT_TRY(task.store.get(manifest, *target, task.options()));
    return Json::object();
}

Result<Json> read(StoreTask& task) {
    SCKPT_TRY(task.master.manifest(task.files, text_of(task.request, "manifest")));
    return Json::object();
}

Result<Json> usable(StoreTask& task) {
    SCKPT_TRY(task.files.space());
    SCKPT_ASSIGN(const StoreId store, read_store_id(task.files));
    return Json{{"id", store.id}, {"cluster", store.cluster}};
}

Result<Json> remove(StoreTask& task) {
    SCKPT_ASSIGN(const auto unremoved, task.store.remove(texts_of(task.request, "paths")));
    Json files = Json::array();
    for (const Store::Unremoved& file : unremoved) files.push_back({{"path", file.path}, {"text", file.why}});
    return Json{{"unremoved", std::move(files)}};
}

Result<Json> quarantine(StoreTask& task) {
    SCKPT_TRY(task.store.quarantine(texts_of(task.request, "paths")));
    return Json::object();
}

// Manifests are shown to sckptd one by one; what it does not like, it remembers itself.
Result<Json> scan(StoreTask& task) {
    SCKPT_ASSIGN(const auto listing, task.store.list());
    const std::vector<Store::Listed>& listed = listing.files;
    for (const Store::Unreadable& directory : listing.unreadable)
        SCKPT_TRY(task.master.tell({{"kind", "unlisted"}, {"path", directory.path}, {"text", directory.why}}));
    for (std::span<const Store::Listed> rest = listed; !rest.empty(); rest = rest.subspan(std::min(kListed, rest.size()))) {
        Json files = Json::array();
        for (const Store::Listed& file : rest.first(std::min(kListed, rest.size()))) {
            const auto modified = static_cast<std::uint64_t>(std::max<std::int64_t>(file.modified, 0));
            files.push_back({{"path", file.path}, {"bytes", file.bytes}, {"modified", modified}});
        }
        SCKPT_TRY(task.master.tell({{"kind", "files"}, {"files", std::move(files)}}));
    }
    if (flag_of(task.request, "images"))
        for (const Store::Listed& file : listed)
            if (file.path.ends_with(kManifestSuffix)) std::ignore = task.master.manifest(task.files, file.path);
    SCKPT_ASSIGN(const Space space, task.files.space());
    return Json{{"space", to_json(space)}};
}

// ---- check ----

// Whether this says something about the image, and not about the way to it.
bool is_fault(const Error& error) { return error.code == Errc::corrupt || error.code == Errc::not_found || error.code == Errc::invalid; }

// Of one image, which cannot be read; others can: a bad sector, rights that somebody changed, a format of the future.
bool is_unreadable(const Error& error) { return error.code == Errc::io || error.code == Errc::denied || error.code == Errc::unsupported; }

Result<std::vector<std::string>> check_sizes(const StoreTask& task, const Manifest& manifest) {
    std::vector<std::string> faults;
    for (const PackUse& pack : manifest.packs) {
        const auto size = task.files.open(pack.path).and_then([](const std::unique_ptr<File>& file) { return file->size(); });
        if (!size && !is_fault(size.error())) return std::unexpected(size.error());
        if (!size) faults.push_back(size.error().text);
        else if (*size != pack.bytes) faults.push_back(std::format("{} has {} bytes in place of {}", pack.path, *size, pack.bytes));
    }
    return faults;
}

Result<std::vector<std::string>> check_image(const StoreTask& task, const std::string& path) {
    const auto manifest = task.master.manifest(task.files, path);
    if (!manifest && is_fault(manifest.error())) return std::vector{manifest.error().text};
    if (!manifest) return std::unexpected(manifest.error());
    if (flag_of(task.request, "quick")) return check_sizes(task, *manifest);
    SCKPT_ASSIGN(const auto found, task.store.check(*manifest, task.options()));
    std::vector<std::string> faults;
    for (const ChunkFault& fault : found) faults.push_back(fault.what);
    return faults;
}

Result<Json> check(StoreTask& task) {
    for (const std::string& path : texts_of(task.request, "manifests")) {
        const auto faults = check_image(task, path);
        if (!faults && !is_unreadable(faults.error())) return std::unexpected(faults.error());
        SCKPT_TRY(task.master.tell({{"kind", "faults"},
                                    {"faults", faults ? *faults : std::vector<std::string>()},
                                    {"unreadable", faults ? "" : faults.error().text}}));
    }
    return Json::object();
}

Result<Json> compact(StoreTask& task) {
    std::vector<Manifest> manifests;
    for (const std::string& path : texts_of(task.request, "manifests")) {
        SCKPT_ASSIGN(Manifest manifest, task.master.manifest(task.files, path));
        manifests.push_back(std::move(manifest));
    }
    std::vector<const Manifest*> images;
    for (const Manifest& manifest : manifests) images.push_back(&manifest);
    const auto seal = [&task](std::string_view head, const Digest& rest) { return task.master.seal(head, rest); };
    SCKPT_ASSIGN(const auto stored, task.store.compact(images, texts_of(task.request, "rewrite"), seal, task.options()));
    for (const StoredImage& image : stored) SCKPT_TRY(task.master.tell({{"kind", "stored"}, {"image", to_json(image)}}));
    return Json::object();
}

// ---- backups of the catalogue ----

Result<> write_backup(StoreTask& task, const std::string& path) {
    SCKPT_ASSIGN(const auto file, task.files.create(path));
    std::vector<std::byte> buffer(1u << 20);
    for (std::uint64_t at = 0;;) {
        SCKPT_ASSIGN(UniqueFd memory, task.master.next_piece());
        if (!memory) return file->sync();
        const auto piece = file_of(std::move(memory), "a piece of the backup");
        for (std::uint64_t from = 0;;) {
            SCKPT_ASSIGN(const std::size_t got, piece->read_at(from, buffer));
            if (got == 0) break;
            SCKPT_TRY(file->write_at(at, std::span(buffer).first(got)));
            from += got;
            at += got;
        }
    }
}

// The newest three stay; parts of one that was interrupted go, but for this one.
Result<> remove_old_backups(StoreTask& task, const std::string& newest) {
    SCKPT_ASSIGN(auto entries, task.files.list(kBackups));
    std::ranges::sort(entries, std::greater(), [&](const DirectoryEntry& e) { return std::tuple(e.name == newest, e.modified, e.name); });
    std::size_t kept = 0;
    for (const DirectoryEntry& entry : entries) {
        if (entry.directory || entry.odd) continue;
        if (!entry.name.ends_with(kPartSuffix) && ++kept <= kBackupsKept) continue;
        const auto removed = task.files.remove(std::format("{}/{}", kBackups, entry.name));
        if (!removed && removed.error().code != Errc::not_found) return removed;
    }
    return {};
}

Result<Json> backup(StoreTask& task) {
    const std::string name = text_of(task.request, "name");
    SCKPT_TRY(check_store_path(name));
    SCKPT_TRY(make_directories(task.files, kBackups));
    const std::string path = std::format("{}/{}", kBackups, name), part = path + std::string(kPartSuffix);
    if (const auto written = write_backup(task, part); !written) {
        std::ignore = task.files.remove(part);
        return std::unexpected(written.error());
    }
    SCKPT_TRY(task.files.rename(part, path));
    SCKPT_TRY(task.files.sync_directory(kBackups));
    SCKPT_TRY(remove_old_backups(task, name));
    return Json::object();
}

struct Operation {
    std::string_view name;
    Result<Json> (*function)(StoreTask& task);
    bool needs_directory;
};

constexpr std::array kOperations = {
    Operation{"usable", usable, false}, Operation{"drain", drain, true},           Operation{"fetch", fetch, true},
    Operation{"read", read, false},     Operation{"remove", remove, false},        Operation{"quarantine", quarantine, false},
    Operation{"scan", scan, false},     Operation{"check", check, false},          Operation{"compact", compact, false},
    Operation{"backup", backup, false},
};

}  // namespace

WorkOptions StoreTask::options() const {
    return {static_cast<int>(std::max<std::uint64_t>(1, number_of(request, "threads"))), number_of(request, "bytes_per_second"),
            [this](std::uint64_t plain, std::uint64_t written) { return master.progress(plain, written); }};
}

Result<Json> carry_out(StoreTask& task) {
    const std::string name = text_of(task.request, "operation");
    const auto operation = std::ranges::find(kOperations, name, &Operation::name);
    if (operation == kOperations.end()) return fail(Errc::internal, std::format("sckpt-store knows no operation \"{}\"", name));
    if (operation->needs_directory && !task.directory) return fail(Errc::internal, name + ": no directory was handed over");
    return operation->function(task);
}

}  // namespace sckpt
