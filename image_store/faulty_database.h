// SPDX-License-Identifier: GPL-3.0-or-later
//
// The seam for SQLite's own calls, for tests: while an object of this class lives, databases that are opened by file name go through a VFS
// before the default one, whose N-th call fails, and which knows what is durable. One object at a time in a process.
// Only the bytes of files are looked after: a name that SQLite makes or removes is durable at once.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include <sqlite3.h>

#include "image_store/memory_file_system.h"

namespace sckpt {

class FaultyDatabase {
   public:
    // Kinds of calls; a set of them is their sum.
    enum Call : unsigned {
        kOpen = 1u << 0,
        kRead = 1u << 1,
        kWrite = 1u << 2,
        kTruncate = 1u << 3,
        kSync = 1u << 4,
        kDelete = 1u << 5,
        kChanges = kOpen | kWrite | kTruncate | kSync | kDelete,
        kAllCalls = kChanges | kRead,
    };
    struct Fault {
        unsigned calls = kChanges;
        std::uint64_t at = 0;  // the N-th of these calls fails, from 1; 0: none. Of a write that fails half is written
        bool full = false;     // SQLITE_FULL; else an input/output error of the call
        bool crash = false;    // and every call of any kind after it
    };
    using Survival = MemoryFileSystem::Survival;

    FaultyDatabase();
    FaultyDatabase(const FaultyDatabase&) = delete;
    FaultyDatabase& operator=(const FaultyDatabase&) = delete;
    ~FaultyDatabase();  // after its databases

    void set(const Fault& fault);               // counts from here
    void die_with(std::function<bool()> dead);  // asked before each call: whether the process has crashed elsewhere
    std::uint64_t count() const;                // calls of the fault's kinds since set()
    bool crashed() const;

    // What becomes of what was not durable; every database has been closed. `all` is what the death of the process alone leaves.
    void power_failure(Survival survival, std::uint64_t seed = 0);

   private:
    struct Disk;
    struct OpenFile;
    struct Methods;
    std::shared_ptr<Disk> disk_of(const std::string& path, sqlite3_file& file);
    int enter(Call call);

    sqlite3_vfs* const real_;
    sqlite3_vfs vfs_{};
    mutable std::mutex mutex_;  // of what follows
    Fault fault_;
    std::function<bool()> dead_;
    std::uint64_t count_ = 0;
    bool crashed_ = false;
    std::map<std::string, std::shared_ptr<Disk>> disks_;
};

}  // namespace sckpt
