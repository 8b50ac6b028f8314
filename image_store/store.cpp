// SPDX-License-Identifier: GPL-3.0-or-later
//
// The store on plain files. An image is made in ~incoming/ID under the lock of ~incoming/ID.lock and renamed into place; '~' is
// in no image's path. The lock is on a file of its own: NFS locks no directory. PATH~old is the image that PATH is replacing.
#include "image_store/store.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <format>
#include <set>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "image_store/manifest.h"
#include "image_store/tree.h"

namespace sckpt {
namespace {

constexpr const char* kIncomingName = "~incoming";
constexpr const char* kLockSuffix = ".lock";
constexpr const char* kDeadSuffix = ".dead";
constexpr const char* kOldSuffix = "~old";
constexpr int kTries = 10;  // of what fails only because another process removed an empty directory at that moment

// Opened and checked anew by every call: what was right at the start of the daemon may not be so now.
Result<UniqueFd> open_store(const std::string& directory) {
    SCKPT_ASSIGN(UniqueFd fd, open_file(directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    struct stat st {};
    if (::fstat(fd.get(), &st) != 0) return fail_errno("stat " + directory);
    if (st.st_uid != ::geteuid() || (st.st_mode & 077) != 0)
        return fail(Errc::denied,
                    std::format("the store {} belongs to uid {} with mode {:04o}: it must belong to uid {} with mode 0700, since "
                                "who can read there can read the memory of jobs",
                                directory, st.st_uid, st.st_mode & 07777, ::geteuid()));
    return fd;
}

Result<> try_lock(int fd) {
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return {};
    if (errno == EWOULDBLOCK) return fail(Errc::busy, "another process is writing there");
    if (errno == ENOSYS || errno == EOPNOTSUPP || errno == ENOLCK)
        return fail(Errc::unsupported, "the store's file system has no file locks: mount it with them (Lustre: -o flock)");
    return fail_errno("lock");
}

Result<> rename_at(int from_directory, const std::string& from, int to_directory, const std::string& to) {
    if (::renameat(from_directory, from.c_str(), to_directory, to.c_str()) == 0) return {};
    return fail_errno("rename " + from + " to " + to);
}

Result<std::string> random_name() {
    std::uint64_t value = 0;
    if (::getrandom(&value, sizeof value, 0) != sizeof value) return fail_errno("get random bytes");
    return std::format("{:016x}", value);
}

// A directory of our own in ~incoming. What is still there at the end is removed; what cannot be is left to sweep().
class Incoming {
   public:
    static Result<Incoming> make(int store);
    Incoming(Incoming&&) = default;
    Incoming& operator=(Incoming&&) = delete;
    ~Incoming() {
        if (!lock_) return;
        static_cast<void>(remove_tree_at(parent_.get(), name_));
        ::unlinkat(parent_.get(), (name_ + kLockSuffix).c_str(), 0);
    }
    int directory() const { return directory_.get(); }
    Result<> rename_to(int to_directory, const std::string& to) const {
        return rename_at(parent_.get(), name_, to_directory, to);
    }

   private:
    Incoming(UniqueFd parent, UniqueFd lock, std::string name)
        : parent_(std::move(parent)), lock_(std::move(lock)), name_(std::move(name)) {}
    UniqueFd parent_, lock_, directory_;
    std::string name_;
};

Result<Incoming> Incoming::make(int store) {
    for (int tries = 0; tries < kTries; ++tries) {
        SCKPT_ASSIGN(UniqueFd parent, make_directories_below(store, kIncomingName));
        SCKPT_ASSIGN(std::string name, random_name());
        SCKPT_ASSIGN(UniqueFd lock, open_at(parent.get(), name + kLockSuffix, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
        const auto locked = try_lock(lock.get());
        if (!locked && locked.error().code != Errc::busy) {
            ::unlinkat(parent.get(), (name + kLockSuffix).c_str(), 0);
            return std::unexpected(locked.error());
        }
        struct stat st {};
        if (::fstat(lock.get(), &st) != 0) return fail_errno("stat a lock of the store");
        if (!locked || st.st_nlink == 0) continue;  // a sweep() came between open and lock, and has removed it
        Incoming incoming(std::move(parent), std::move(lock), std::move(name));
        SCKPT_ASSIGN(incoming.directory_, make_directories_below(incoming.parent_.get(), incoming.name_));
        return incoming;
    }
    return fail(Errc::busy, "no temporary directory could be made in the store");
}

// Makes the directories of these files durable, the image's own last.
Result<> fsync_directories(int image, const std::vector<std::string>& names) {
    std::set<std::string, std::greater<>> directories{""};
    for (const std::string& name : names)
        for (std::string above = directory_of(name); !above.empty(); above = directory_of(above)) directories.insert(above);
    for (const std::string& directory : directories) {
        SCKPT_ASSIGN(const UniqueFd fd, open_directory_below(image, directory));
        SCKPT_TRY(fsync_fd(fd.get(), "directory " + directory));
    }
    return {};
}

// Files are made durable a batch at a time: by the time the first is, the disk has most of the others.
class Unsynced {
   public:
    Result<> add(UniqueFd fd) {
        files_.push_back(std::move(fd));
        return files_.size() < kBatch ? Result<>() : sync();
    }
    Result<> sync() {
        for (const UniqueFd& fd : files_) SCKPT_TRY(fsync_fd(fd.get(), "a file of an image"));
        files_.clear();
        return {};
    }

   private:
    static constexpr std::size_t kBatch = 64;
    std::vector<UniqueFd> files_;
};

Result<StoredImage> fill(int source, int image, const std::function<void(std::uint64_t)>& progress) {
    SCKPT_ASSIGN(const std::vector<std::string> names, list_files(source));
    Copier copier(progress);
    Unsynced unsynced;
    std::vector<ManifestFile> files;
    for (const std::string& name : names) {
        SCKPT_TRY(check_file_name(name));
        SCKPT_ASSIGN(const UniqueFd from, open_regular_below(source, name));
        SCKPT_ASSIGN(UniqueFd to, create_below(image, name));
        auto copied = copier.copy(from.get(), to.get());
        if (!copied) return std::unexpected(copied.error().context(name));
        SCKPT_TRY(unsynced.add(std::move(to)));
        files.push_back({name, copied->size, copied->blake3});
    }
    SCKPT_TRY(unsynced.sync());
    const std::string manifest = manifest_text(std::move(files));
    if (manifest.size() > kManifestLimit) return fail(Errc::invalid, "the image has too many files");
    SCKPT_ASSIGN(const UniqueFd to, create_below(image, kManifestName));
    SCKPT_TRY(write_all(to.get(), manifest));
    SCKPT_TRY(fsync_fd(to.get(), kManifestName));
    SCKPT_TRY(fsync_directories(image, names));
    return StoredImage{blake3_hex(manifest), copier.total()};
}

// Removes the directories above `path` that are empty, up to the store.
void remove_empty_parents(int store, std::string_view path) {
    for (std::string directory = directory_of(path); !directory.empty(); directory = directory_of(directory)) {
        const auto parent = open_directory_below(store, directory_of(directory));
        if (!parent || ::unlinkat(parent->get(), base_of(directory).c_str(), AT_REMOVEDIR) != 0) return;
    }
}

// An image has no image in it, and never takes the place of a directory of images.
Result<> check_place(int store, const std::string& path) {
    for (std::string above = directory_of(path); !above.empty(); above = directory_of(above)) {
        const auto directory = open_directory_below(store, above);
        if (!directory && directory.error().code == Errc::not_found) continue;
        if (!directory) return std::unexpected(directory.error());
        SCKPT_ASSIGN(const bool is_image, exists_at(directory->get(), kManifestName));
        if (is_image) return fail(Errc::invalid, above + " is an image: no other can be stored in it");
    }
    const auto present = open_directory_below(store, path);
    if (!present && present.error().code == Errc::not_found) return {};
    if (!present) return std::unexpected(present.error());
    SCKPT_ASSIGN(const bool is_image, exists_at(present->get(), kManifestName));
    if (!is_image) return fail(Errc::invalid, path + " in the store is no whole image: it is not replaced, remove it first");
    return {};
}

// At every moment a whole image can be found: under its path, or as PATH~old.
Result<> publish(int store, const Incoming& incoming, const std::string& path) {
    SCKPT_ASSIGN(const UniqueFd parent, make_directories_below(store, directory_of(path)));
    const std::string name = base_of(path), old = name + kOldSuffix;
    SCKPT_ASSIGN(const bool replaces, exists_at(parent.get(), name));
    if (replaces) {
        SCKPT_TRY(remove_tree_at(parent.get(), old));
        SCKPT_TRY(rename_at(parent.get(), name, parent.get(), old));
    }
    SCKPT_TRY(incoming.rename_to(parent.get(), name));
    SCKPT_TRY(fsync_fd(parent.get(), "the directory of " + path));
    return remove_tree_at(parent.get(), old);
}

Result<UniqueFd> open_image(int store, const std::string& path) {
    auto image = open_directory_below(store, path);
    if (image || image.error().code != Errc::not_found) return image;
    auto old = open_directory_below(store, path + kOldSuffix);
    if (old || old.error().code != Errc::not_found) return old;
    return fail(Errc::not_found, "the store has no image " + path);
}

Result<std::vector<ManifestFile>> verified_manifest(int image, const std::string& digest) {
    const auto text = read_below(image, kManifestName, kManifestLimit);
    if (!text && text.error().code == Errc::not_found) return fail(Errc::corrupt, std::string(kManifestName) + " is missing");
    if (!text && text.error().code == Errc::invalid) return fail(Errc::corrupt, text.error().text);
    if (!text) return std::unexpected(text.error());
    if (blake3_hex(*text) != digest)
        return fail(Errc::corrupt, std::string(kManifestName) + " is changed: it does not match the digest");
    return parse_manifest(*text);
}

// The files of the directory are those of the manifest, no more and no less.
Result<> check_names(int image, const std::vector<ManifestFile>& files) {
    auto listed = list_files(image);
    if (!listed) return fail(listed.error().code == Errc::invalid ? Errc::corrupt : listed.error().code, listed.error().text);
    std::erase(*listed, kManifestName);
    const auto by_name = [](const ManifestFile& file, const std::string& name) { return file.name < name; };
    for (const std::string& name : *listed) {
        const auto at = std::lower_bound(files.begin(), files.end(), name, by_name);
        if (at == files.end() || at->name != name) return fail(Errc::corrupt, name + " is added: the manifest does not have it");
    }
    for (const ManifestFile& file : files)
        if (!std::ranges::binary_search(*listed, file.name)) return fail(Errc::corrupt, file.name + " is missing");
    return {};
}

Result<> copy_verified(int image, const ManifestFile& file, int target, Copier& copier) {
    SCKPT_ASSIGN(const UniqueFd from, open_regular_below(image, file.name));
    struct stat st {};
    if (::fstat(from.get(), &st) != 0) return fail_errno("stat " + file.name);
    if (static_cast<std::uint64_t>(st.st_size) != file.size)
        return fail(Errc::corrupt, std::format("{} is changed: {} bytes in place of {}", file.name, st.st_size, file.size));
    SCKPT_ASSIGN(const UniqueFd to, create_below(target, file.name));
    auto copied = copier.copy(from.get(), to.get());
    if (!copied) return std::unexpected(copied.error().context(file.name));
    if (copied->size != file.size || copied->blake3 != file.blake3)
        return fail(Errc::corrupt, file.name + " is changed: its hash is not the manifest's");
    return {};
}

Result<> copy_all_verified(int image, const std::vector<ManifestFile>& files, const std::string& target) {
    SCKPT_ASSIGN(const UniqueFd to, open_file(target, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    Copier copier({});
    for (const ManifestFile& file : files) SCKPT_TRY(copy_verified(image, file, to.get(), copier));
    return {};
}

Result<> remove_image(int parent, const std::string& name) {
    auto image = open_directory_below(parent, name);
    if (!image && image.error().code == Errc::not_found) return {};
    if (!image) return std::unexpected(image.error());
    if (::unlinkat(image->get(), kManifestName, 0) != 0 && errno != ENOENT) return fail_errno("remove a manifest");
    SCKPT_TRY(fsync_fd(image->get(), "image " + name));
    return remove_tree_at(parent, name);
}

// Under another name first: should a lock not be seen (a file system whose locks are each node's own), then that put() fails when
// it renames, and never brings half an image into place.
Result<> sweep_one(int incoming, const std::string& id) {
    SCKPT_ASSIGN(const UniqueFd lock, open_at(incoming, id + kLockSuffix, O_RDWR | O_CREAT | O_NOFOLLOW, 0600));
    const auto locked = try_lock(lock.get());
    if (!locked && locked.error().code == Errc::busy) return {};
    SCKPT_TRY(locked);
    const std::string dead = id + kDeadSuffix;
    SCKPT_TRY(remove_tree_at(incoming, dead));
    const auto renamed = rename_at(incoming, id, incoming, dead);
    if (!renamed && renamed.error().code != Errc::not_found) return renamed;
    SCKPT_TRY(remove_tree_at(incoming, dead));
    if (::unlinkat(incoming, (id + kLockSuffix).c_str(), 0) == 0 || errno == ENOENT) return {};
    return fail_errno("remove a lock of the store");
}

}  // namespace

Result<Store> Store::open(std::string directory) {
    while (directory.size() > 1 && directory.ends_with('/')) directory.pop_back();
    if (!directory.starts_with('/'))
        return fail(Errc::invalid, "the store's directory \"" + directory + "\" is no absolute path");
    // Never made here: where the shared file system is not mounted, a new directory would be one on the node's own disk.
    if (auto opened = open_store(directory); !opened)
        return std::unexpected(opened.error().code == Errc::not_found
                                   ? Error{Errc::unavailable, "there is no store at " + directory + ": is the shared file system mounted on this node? "
                                           "An administrator makes it once: install -d -m 0700 -o root " + directory}
                                   : opened.error());
    return Store(std::move(directory));
}

Result<StoredImage> Store::put(const std::string& source, const std::string& path,
                               const std::function<void(std::uint64_t)>& progress) const {
    SCKPT_TRY(check_image_path(path));
    SCKPT_ASSIGN(const UniqueFd store, open_store(directory_));
    SCKPT_ASSIGN(const UniqueFd from, open_file(source, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
    SCKPT_TRY(check_place(store.get(), path));
    SCKPT_ASSIGN(const Incoming incoming, Incoming::make(store.get()));
    auto image = fill(from.get(), incoming.directory(), progress);
    if (!image) return std::unexpected(image.error().context("storing " + path));
    auto published = publish(store.get(), incoming, path);
    for (int tries = 1; tries < kTries && !published && published.error().code == Errc::not_found; ++tries)
        published = publish(store.get(), incoming, path);  // a remove() took the empty directory away
    if (!published) {
        remove_empty_parents(store.get(), path);
        return std::unexpected(published.error().context("storing " + path));
    }
    return image;
}

Result<> Store::get(const std::string& path, const std::string& digest, const std::string& target) const {
    SCKPT_TRY(check_image_path(path));
    SCKPT_ASSIGN(const UniqueFd store, open_store(directory_));
    SCKPT_ASSIGN(const UniqueFd image, open_image(store.get(), path));
    const auto files = verified_manifest(image.get(), digest);
    if (!files) return std::unexpected(files.error().context("image " + path));
    if (auto same = check_names(image.get(), *files); !same) return std::unexpected(same.error().context("image " + path));
    if (::mkdir(target.c_str(), 0700) != 0) return fail_errno("make directory " + target);
    if (auto copied = copy_all_verified(image.get(), *files, target); !copied) {
        if (auto removed = remove_tree(target); !removed) return std::unexpected(removed.error().context(copied.error().text));
        return std::unexpected(copied.error().context("image " + path));
    }
    return {};
}

Result<> Store::remove(const std::string& path) const {
    SCKPT_TRY(check_image_path(path));
    SCKPT_ASSIGN(const UniqueFd store, open_store(directory_));
    const auto parent = open_directory_below(store.get(), directory_of(path));
    if (!parent && parent.error().code == Errc::not_found) return {};
    if (!parent) return std::unexpected(parent.error());
    SCKPT_TRY(remove_image(parent->get(), base_of(path) + kOldSuffix));
    SCKPT_TRY(remove_image(parent->get(), base_of(path)));
    SCKPT_TRY(fsync_fd(parent->get(), "the directory of " + path));
    remove_empty_parents(store.get(), path);
    return {};
}

Result<> Store::sweep() const {
    SCKPT_ASSIGN(const UniqueFd store, open_store(directory_));
    const auto incoming = open_directory_below(store.get(), kIncomingName);
    if (!incoming && incoming.error().code == Errc::not_found) return {};
    if (!incoming) return std::unexpected(incoming.error());
    SCKPT_ASSIGN(const auto names, entries(incoming->get()));
    std::set<std::string> ids;
    for (const std::string& name : names) ids.insert(name.substr(0, name.find('.')));
    for (const std::string& id : ids) SCKPT_TRY(sweep_one(incoming->get(), id));
    return {};
}

}  // namespace sckpt
