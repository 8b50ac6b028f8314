// SPDX-License-Identifier: GPL-3.0-or-later
//
// The store's files as names: listing, removing, putting aside. Other nodes work there at the same moment: a directory may get a
// file just when it is to be removed, and what was listed may be gone.
#include <algorithm>
#include <map>
#include <set>

#include "image_store/names.h"
#include "image_store/store.h"

namespace sckpt {
namespace {

using Directories = std::set<std::string>;

// What is not there is as good as done.
Result<> unless_missing(Result<> result) {
    if (!result && result.error().code == Errc::not_found) return {};
    return result;
}

Result<> check_store_paths(const std::vector<std::string>& paths) {
    for (const std::string& path : paths) SCKPT_TRY(check_store_path(path));
    return {};
}

Result<> sync_all(FileSystem& files, const Directories& directories) {
    for (const std::string& directory : directories) SCKPT_TRY(unless_missing(files.sync_directory(directory)));
    return {};
}

// Removes the directory and those above it as far as they are empty, durably.
Result<> remove_empty(FileSystem& files, const std::string& directory) {
    for (std::string at = directory; !at.empty(); at = directory_of(at)) {
        const auto removed = files.remove_directory(at);
        if (!removed && removed.error().code == Errc::busy) return {};
        SCKPT_TRY(unless_missing(removed));
        SCKPT_TRY(unless_missing(files.sync_directory(directory_of(at))));
    }
    return {};
}

Result<> remove_empty(FileSystem& files, const std::vector<std::string>& paths) {
    Directories directories;
    for (const std::string& path : paths) directories.insert(directory_of(path));
    for (const std::string& directory : directories) SCKPT_TRY(remove_empty(files, directory));
    return {};
}

// Files that go one after another, and what became of those that do not.
class Removal {
   public:
    explicit Removal(FileSystem& files) : files_(files) {}

    void remove(const std::string& path) {
        const bool is_manifest = path.ends_with(kManifestSuffix);
        // A manifest that came back after a power failure should find its packs: they go when it is gone for good.
        if (manifest_went_ && !is_manifest) sync();
        manifest_went_ = is_manifest;
        if (auto gone = unless_missing(files_.remove(path)); !gone) return failed(path, gone.error());
        unsynced_[directory_of(path)].push_back(path);  // also when it was gone: who removed it may not have come to this
    }

    std::vector<Store::Unremoved> finish() {
        sync();
        for (const auto& [directory, path] : directories_)
            if (auto empty = remove_empty(files_, directory); !empty) failed(path, empty.error());
        return std::move(unremoved_);
    }

   private:
    void sync() {
        for (auto& [directory, paths] : unsynced_) {
            const auto synced = unless_missing(files_.sync_directory(directory));
            if (synced) directories_[directory] = paths.back();
            else for (const std::string& path : paths) failed(path, synced.error());
        }
        unsynced_.clear();
    }
    void failed(const std::string& path, const Error& error) { unremoved_.push_back({path, error.text}); }

    FileSystem& files_;
    bool manifest_went_ = false;
    std::map<std::string, std::vector<std::string>> unsynced_;  // by their directory
    std::map<std::string, std::string> directories_;            // with the file of each that is answered for it
    std::vector<Store::Unremoved> unremoved_;
};

// Only what has a name that the store gives: lost+found, snapshots and what NFS leaves of removed files are not ours.
bool may_be_ours(const DirectoryEntry& entry) {
    if (entry.odd || !check_store_path(entry.name) || entry.name.starts_with('.')) return false;
    return entry.directory || entry.name.ends_with(kPackSuffix) || entry.name.ends_with(kManifestSuffix);
}

Result<> list_into(FileSystem& files, const std::string& directory, Store::Listing& listing) {
    const auto entries = files.list(directory);
    if (!entries && entries.error().code == Errc::not_found) return {};  // removed since its name was read
    if (!entries && directory.empty()) return std::unexpected(entries.error());
    if (!entries) {
        listing.unreadable.push_back({directory, entries.error().text});
        return {};
    }
    for (const DirectoryEntry& entry : *entries) {
        const std::string path = directory.empty() ? entry.name : directory + "/" + entry.name;
        if (!may_be_ours(entry) || path == kQuarantine || path == kBackups) continue;
        if (entry.directory) SCKPT_TRY(list_into(files, path, listing));
        else listing.files.push_back({path, entry.bytes, entry.modified});
    }
    return {};
}

}  // namespace

Result<std::vector<Store::Unremoved>> Store::remove(const std::vector<std::string>& paths) const {
    SCKPT_TRY(check_store_paths(paths));
    Removal removal(files_);
    for (const std::string& path : paths) removal.remove(path);
    return removal.finish();
}

Result<> Store::quarantine(const std::vector<std::string>& paths) const {
    SCKPT_TRY(check_store_paths(paths));
    Directories unsynced;
    for (const std::string& path : paths) {
        const std::string aside = std::string(kQuarantine) + "/" + path;
        SCKPT_TRY(make_directories(files_, directory_of(aside)));
        SCKPT_TRY(unless_missing(files_.rename(path, aside)));
        unsynced.insert({directory_of(path), directory_of(aside)});
    }
    SCKPT_TRY(sync_all(files_, unsynced));
    return remove_empty(files_, paths);
}

Result<Store::Listing> Store::list() const {
    Listing listing;
    SCKPT_TRY(list_into(files_, "", listing));
    std::ranges::sort(listing.files, {}, &Listed::path);
    return listing;
}

}  // namespace sckpt
