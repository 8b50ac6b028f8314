// SPDX-License-Identifier: GPL-3.0-or-later
//
// Another file system whose N-th call fails, for tests. It counts the calls that can fail, so that a test learns from one run how
// many N there are. After a crash every call fails and nothing reaches the other one any more, as for a process that was killed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "image_store/file_system.h"

namespace sckpt {

// Kinds of calls; a set of them is their sum.
enum Call : unsigned {
    kOpen = 1u << 0,
    kCreate = 1u << 1,
    kRead = 1u << 2,    // File::read_at and File::size
    kWrite = 1u << 3,   // File::write_at and File::truncate
    kSync = 1u << 4,    // File::sync and sync_directory
    kMakeDirectory = 1u << 5,
    kRename = 1u << 6,
    kRemove = 1u << 7,  // remove and remove_directory
    kList = 1u << 8,    // list and space
    kChanges = kCreate | kWrite | kSync | kMakeDirectory | kRename | kRemove,
    kAllCalls = kChanges | kOpen | kRead | kList,
};

struct Fault {
    unsigned calls = kAllCalls;
    std::uint64_t at = 0;  // the N-th of these calls fails, from 1; 0: none
    int error = 0;         // errno: ENOSPC, EIO
    bool crash = false;    // and every call of any kind after it
};

class FaultyFileSystem final : public FileSystem {
   public:
    explicit FaultyFileSystem(FileSystem& files) : files_(files) {}  // outlives this, and this its files

    void set(const Fault& fault);                   // counts from here
    void set_hook(std::function<void(Call)> hook);  // called before each call; may use this file system
    std::uint64_t count() const;                    // calls of the fault's kinds since set()
    bool crashed() const;

    Result<std::unique_ptr<File>> open(const std::string& path) override;
    Result<std::unique_ptr<File>> create(const std::string& path) override;
    Result<> make_directory(const std::string& path) override;
    Result<> rename(const std::string& from, const std::string& to) override;
    Result<> remove(const std::string& path) override;
    Result<> remove_directory(const std::string& path) override;
    Result<> sync_directory(const std::string& path) override;
    Result<std::vector<DirectoryEntry>> list(const std::string& path) override;
    Result<Space> space() override;

   private:
    class OpenFile;
    Result<> enter(Call call, const std::string& what);

    FileSystem& files_;
    mutable std::mutex mutex_;
    Fault fault_;
    std::function<void(Call)> hook_;
    std::uint64_t count_ = 0;
    bool crashed_ = false;
};

}  // namespace sckpt
