// SPDX-License-Identifier: GPL-3.0-or-later
//
// A file system in memory that knows what is durable, for tests: File::sync() makes a file's bytes durable, sync_directory() the names
// in that directory, and nothing else does. power_failure() leaves what was durable, and of the rest what the test chooses.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "image_store/file_system.h"

namespace sckpt {

class MemoryFileSystem final : public FileSystem {
   public:
    explicit MemoryFileSystem(std::uint64_t capacity = std::numeric_limits<std::uint64_t>::max());
    ~MemoryFileSystem() override;  // after its files

    Result<std::unique_ptr<File>> open(const std::string& path) override;
    Result<std::unique_ptr<File>> create(const std::string& path) override;
    Result<> make_directory(const std::string& path) override;
    Result<> rename(const std::string& from, const std::string& to) override;
    Result<> remove(const std::string& path) override;
    Result<> remove_directory(const std::string& path) override;
    Result<> sync_directory(const std::string& path) override;
    Result<std::vector<DirectoryEntry>> list(const std::string& path) override;
    Result<Space> space() override;

    // What becomes of what was not durable. some: by the seed, each write whole, in part or not at all, and each change of a name or
    // not; a rename stays one change. Files that are open are not of this file system any more.
    enum class Survival { none, all, some };
    void power_failure(Survival survival, std::uint64_t seed = 0);

    void set_time(std::int64_t now);                             // Unix seconds, for what is written from now on
    void set_capacity(std::uint64_t bytes);
    Result<> damage(const std::string& path, std::uint64_t at);  // changes this byte, durably

   private:
    struct Node;
    class OpenFile;
    using NodePtr = std::shared_ptr<Node>;
    // A name that came, or went (no node).
    struct NameChange {
        NodePtr directory;
        std::string name;
        NodePtr node;
    };
    using Change = std::vector<NameChange>;  // durable together

    Result<NodePtr> find(const std::string& path) const;
    Result<NodePtr> find_file(const std::string& path) const;
    Result<NodePtr> find_directory(const std::string& path) const;
    void apply(Change change);
    void make_durable(std::size_t change);
    std::uint64_t used() const;

    mutable std::mutex mutex_;
    NodePtr top_;
    std::vector<Change> changes_;  // not durable yet, oldest first
    std::uint64_t capacity_;
    std::int64_t now_ = 1'000'000'000;
};

}  // namespace sckpt
