// SPDX-License-Identifier: GPL-3.0-or-later
//
// Every write goes through to the real file, which is what the process sees; beside it is kept what the disk has, with the writes since
// then. Shared memory and locks are the real ones: they are never durable.
#include "image_store/faulty_database.h"

#include <cassert>
#include <filesystem>
#include <fstream>
#include <new>
#include <random>
#include <utility>
#include <vector>

namespace sckpt {

struct FaultyDatabase::Disk {
    struct Edit {
        std::uint64_t offset = 0;
        std::string bytes;
        bool truncates = false;  // to `offset`
    };
    std::string bytes;
    std::vector<Edit> unsynced;

    static void apply(const Edit& edit, std::string& to) {
        if (edit.truncates) return to.resize(edit.offset);
        if (to.size() < edit.offset + edit.bytes.size()) to.resize(edit.offset + edit.bytes.size());
        to.replace(edit.offset, edit.bytes.size(), edit.bytes);
    }
    std::string as_seen() const {
        std::string seen = bytes;
        for (const Edit& edit : unsynced) apply(edit, seen);
        return seen;
    }
    void sync() {
        for (const Edit& edit : unsynced) apply(edit, bytes);
        unsynced.clear();
    }
};

// In memory that SQLite gives; the real file follows.
struct FaultyDatabase::OpenFile final : sqlite3_file {
    OpenFile(const sqlite3_io_methods* methods, FaultyDatabase& faults, std::shared_ptr<Disk> known)
        : sqlite3_file{methods}, owner(faults), disk(std::move(known)) {}
    FaultyDatabase& owner;
    const std::shared_ptr<Disk> disk;

    static constexpr std::size_t kRealAt = 64;
    static sqlite3_file* real(sqlite3_file* file) { return reinterpret_cast<sqlite3_file*>(reinterpret_cast<char*>(file) + kRealAt); }
};

struct FaultyDatabase::Methods {
    static OpenFile& file(sqlite3_file* file) { return *static_cast<OpenFile*>(file); }
    static sqlite3_file* real(sqlite3_file* from) { return OpenFile::real(from); }
    static const sqlite3_io_methods& of(sqlite3_file* from) { return *real(from)->pMethods; }

    static int close(sqlite3_file* from) {
        const int rc = of(from).xClose(real(from));
        file(from).~OpenFile();
        return rc;
    }
    static int read(sqlite3_file* from, void* to, int bytes, sqlite3_int64 offset) {
        if (file(from).owner.enter(kRead) != SQLITE_OK) return SQLITE_IOERR_READ;
        return of(from).xRead(real(from), to, bytes, offset);
    }
    static int write(sqlite3_file* to, const void* bytes, int size, sqlite3_int64 offset) {
        OpenFile& self = file(to);
        const bool before = self.owner.crashed();
        const int rc = self.owner.enter(kWrite);
        if (rc != SQLITE_OK && before) return rc;
        const int written = rc == SQLITE_OK ? size : size / 2;
        if (const int failed = of(to).xWrite(real(to), bytes, written, offset); failed != SQLITE_OK) return failed;
        self.disk->unsynced.push_back({static_cast<std::uint64_t>(offset), {static_cast<const char*>(bytes), static_cast<std::size_t>(written)}});
        return rc;
    }
    static int truncate(sqlite3_file* from, sqlite3_int64 size) {
        if (const int rc = file(from).owner.enter(kTruncate); rc != SQLITE_OK) return rc;
        if (const int rc = of(from).xTruncate(real(from), size); rc != SQLITE_OK) return rc;
        file(from).disk->unsynced.push_back({static_cast<std::uint64_t>(size), {}, true});
        return SQLITE_OK;
    }
    static int sync(sqlite3_file* from, int) {  // the real disk has nothing to keep
        if (const int rc = file(from).owner.enter(kSync); rc != SQLITE_OK) return rc;
        file(from).disk->sync();
        return SQLITE_OK;
    }
    static int size(sqlite3_file* from, sqlite3_int64* bytes) { return of(from).xFileSize(real(from), bytes); }
    static int lock(sqlite3_file* from, int level) { return of(from).xLock(real(from), level); }
    static int unlock(sqlite3_file* from, int level) { return of(from).xUnlock(real(from), level); }
    static int is_reserved(sqlite3_file* from, int* answer) { return of(from).xCheckReservedLock(real(from), answer); }
    static int control(sqlite3_file* from, int what, void* argument) { return of(from).xFileControl(real(from), what, argument); }
    static int sector_size(sqlite3_file* from) { return of(from).xSectorSize(real(from)); }
    static int characteristics(sqlite3_file* from) { return of(from).xDeviceCharacteristics(real(from)); }
    static int shm_map(sqlite3_file* from, int page, int bytes, int extend, void volatile** to) {
        return of(from).xShmMap(real(from), page, bytes, extend, to);
    }
    static int shm_lock(sqlite3_file* from, int offset, int n, int flags) { return of(from).xShmLock(real(from), offset, n, flags); }
    static void shm_barrier(sqlite3_file* from) { of(from).xShmBarrier(real(from)); }
    static int shm_unmap(sqlite3_file* from, int remove) { return of(from).xShmUnmap(real(from), remove); }

    // Version 2: without memory maps, which would read beside this.
    static constexpr sqlite3_io_methods kIo = {2,        close,    read,        write,    truncate,         sync,    size,
                                               lock,     unlock,   is_reserved, control,  sector_size,      characteristics,
                                               shm_map,  shm_lock, shm_barrier, shm_unmap, nullptr,         nullptr};

    static FaultyDatabase& owner(sqlite3_vfs* vfs) { return *static_cast<FaultyDatabase*>(vfs->pAppData); }

    static int open(sqlite3_vfs* vfs, const char* name, sqlite3_file* to, int flags, int* out_flags) {
        FaultyDatabase& self = owner(vfs);
        sqlite3_file* const real_file = real(to);
        to->pMethods = nullptr;
        if (self.enter(kOpen) != SQLITE_OK) return SQLITE_CANTOPEN;
        if (const int rc = self.real_->xOpen(self.real_, name, real_file, flags, out_flags); rc != SQLITE_OK) return rc;
        auto disk = name != nullptr ? self.disk_of(name, *real_file) : std::make_shared<Disk>();  // no name: SQLite's own, and temporary
        new (to) OpenFile(&kIo, self, std::move(disk));
        return SQLITE_OK;
    }
    static int remove(sqlite3_vfs* vfs, const char* name, int sync_directory) {
        FaultyDatabase& self = owner(vfs);
        if (const int rc = self.enter(kDelete); rc != SQLITE_OK) return rc;
        const std::scoped_lock lock(self.mutex_);
        self.disks_.erase(name);
        return self.real_->xDelete(self.real_, name, sync_directory);
    }
};

FaultyDatabase::FaultyDatabase() : real_(sqlite3_vfs_find(nullptr)) {
    static_assert(sizeof(OpenFile) <= OpenFile::kRealAt);
    assert(real_ != nullptr && sqlite3_vfs_find("sckpt-faulty") == nullptr);
    vfs_ = *real_;
    vfs_.pNext = nullptr;
    vfs_.zName = "sckpt-faulty";
    vfs_.pAppData = this;
    vfs_.szOsFile = static_cast<int>(OpenFile::kRealAt) + real_->szOsFile;
    vfs_.xOpen = Methods::open;
    vfs_.xDelete = Methods::remove;
    sqlite3_vfs_register(&vfs_, 1);
}

FaultyDatabase::~FaultyDatabase() {
    sqlite3_vfs_unregister(&vfs_);
    sqlite3_vfs_register(real_, 1);
}

void FaultyDatabase::set(const Fault& fault) {
    const std::scoped_lock lock(mutex_);
    fault_ = fault;
    count_ = 0;
    crashed_ = false;
}

void FaultyDatabase::die_with(std::function<bool()> dead) {
    const std::scoped_lock lock(mutex_);
    dead_ = std::move(dead);
}

std::uint64_t FaultyDatabase::count() const {
    const std::scoped_lock lock(mutex_);
    return count_;
}

bool FaultyDatabase::crashed() const {
    const std::scoped_lock lock(mutex_);
    return crashed_;
}

// SQLITE_OK, or how the call fails.
int FaultyDatabase::enter(Call call) {
    const std::scoped_lock lock(mutex_);
    const int failed = call == kOpen       ? SQLITE_CANTOPEN
                       : call == kRead     ? SQLITE_IOERR_READ
                       : call == kWrite    ? SQLITE_IOERR_WRITE
                       : call == kTruncate ? SQLITE_IOERR_TRUNCATE
                       : call == kSync     ? SQLITE_IOERR_FSYNC
                                           : SQLITE_IOERR_DELETE;
    if (dead_ && dead_()) crashed_ = true;
    if (crashed_) return failed;
    if ((call & fault_.calls) == 0 || ++count_ != fault_.at) return SQLITE_OK;
    crashed_ = fault_.crash;
    return fault_.full ? SQLITE_FULL : failed;
}

// What is known of the file, unless it was made or changed by others meanwhile: then it is as it is.
std::shared_ptr<FaultyDatabase::Disk> FaultyDatabase::disk_of(const std::string& path, sqlite3_file& file) {
    sqlite3_int64 size = 0;
    std::string seen;
    if (file.pMethods->xFileSize(&file, &size) == SQLITE_OK) seen.resize(static_cast<std::size_t>(size));
    if (!seen.empty()) file.pMethods->xRead(&file, seen.data(), static_cast<int>(seen.size()), 0);
    const std::scoped_lock lock(mutex_);
    std::shared_ptr<Disk>& disk = disks_[path];
    if (!disk || disk->as_seen() != seen) disk = std::make_shared<Disk>(Disk{std::move(seen), {}});
    return disk;
}

void FaultyDatabase::power_failure(Survival survival, std::uint64_t seed) {
    const std::scoped_lock lock(mutex_);
    std::mt19937_64 entropy(seed);
    for (const auto& [path, disk] : disks_) {
        std::error_code error;
        if (!std::filesystem::exists(path, error)) continue;  // removed by others
        for (Disk::Edit edit : std::exchange(disk->unsynced, {})) {
            const std::uint64_t chance = entropy() % 3;
            if (survival == Survival::none || (survival == Survival::some && chance == 0)) continue;
            if (survival == Survival::some && chance == 1) edit.bytes.resize(entropy() % (edit.bytes.size() + 1));
            Disk::apply(edit, disk->bytes);
        }
        std::ofstream(path, std::ios::binary | std::ios::trunc) << disk->bytes;
    }
}

}  // namespace sckpt
