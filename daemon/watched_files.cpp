// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/watched_files.h"

#include <utility>

namespace sckpt {
namespace {

class WatchedFile final : public File {
   public:
    WatchedFile(std::unique_ptr<File> file, const HeardFn& heard) : file_(std::move(file)), heard_(heard) {}

    Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> to) override { return tell(file_->read_at(offset, to)); }
    Result<> write_at(std::uint64_t offset, std::span<const std::byte> bytes) override { return tell(file_->write_at(offset, bytes)); }
    Result<> truncate(std::uint64_t size) override { return tell(file_->truncate(size)); }
    Result<std::uint64_t> size() override { return file_->size(); }
    void start_writing(std::uint64_t offset, std::uint64_t size) override { file_->start_writing(offset, size); }
    Result<> sync() override { return tell(file_->sync()); }

   private:
    template <class T>
    Result<T> tell(Result<T> result) {
        if (result) SCKPT_TRY(heard_());
        return result;
    }
    const std::unique_ptr<File> file_;
    const HeardFn heard_;
};

class WatchedFileSystem final : public FileSystem {
   public:
    WatchedFileSystem(FileSystem& files, HeardFn heard) : files_(files), heard_(std::move(heard)) {}

    Result<std::unique_ptr<File>> open(const std::string& path) override { return watch(files_.open(path)); }
    Result<std::unique_ptr<File>> create(const std::string& path) override { return watch(files_.create(path)); }
    Result<> make_directory(const std::string& path) override { return tell(files_.make_directory(path)); }
    Result<> rename(const std::string& from, const std::string& to) override { return tell(files_.rename(from, to)); }
    Result<> remove(const std::string& path) override { return tell(files_.remove(path)); }
    Result<> remove_directory(const std::string& path) override { return tell(files_.remove_directory(path)); }
    Result<> sync_directory(const std::string& path) override { return tell(files_.sync_directory(path)); }
    Result<std::vector<DirectoryEntry>> list(const std::string& path) override { return tell(files_.list(path)); }
    Result<Space> space() override { return tell(files_.space()); }

   private:
    template <class T>
    Result<T> tell(Result<T> result) {
        if (result) SCKPT_TRY(heard_());
        return result;
    }
    Result<std::unique_ptr<File>> watch(Result<std::unique_ptr<File>> opened) {
        SCKPT_ASSIGN(auto file, tell(std::move(opened)));
        return std::make_unique<WatchedFile>(std::move(file), heard_);
    }
    FileSystem& files_;
    const HeardFn heard_;
};

class PartOfFileSystem final : public FileSystem {
   public:
    PartOfFileSystem(FileSystem& files, std::set<std::string> hidden) : files_(files), hidden_(std::move(hidden)) {}

    Result<std::unique_ptr<File>> open(const std::string& path) override { return files_.open(path); }
    Result<std::unique_ptr<File>> create(const std::string& path) override { return files_.create(path); }
    Result<> make_directory(const std::string& path) override { return files_.make_directory(path); }
    Result<> rename(const std::string& from, const std::string& to) override { return files_.rename(from, to); }
    Result<> remove(const std::string& path) override { return files_.remove(path); }
    Result<> remove_directory(const std::string& path) override { return files_.remove_directory(path); }
    Result<> sync_directory(const std::string& path) override { return files_.sync_directory(path); }
    Result<Space> space() override { return files_.space(); }
    Result<std::vector<DirectoryEntry>> list(const std::string& path) override {
        SCKPT_ASSIGN(auto entries, files_.list(path));
        const std::string prefix = path.empty() ? "" : path + "/";
        std::erase_if(entries, [&](const DirectoryEntry& entry) { return hidden_.contains(prefix + entry.name); });
        return entries;
    }

   private:
    FileSystem& files_;
    const std::set<std::string> hidden_;
};

}  // namespace

std::unique_ptr<FileSystem> watched(FileSystem& files, HeardFn heard) { return std::make_unique<WatchedFileSystem>(files, std::move(heard)); }
std::unique_ptr<FileSystem> without(FileSystem& files, std::set<std::string> paths) {
    return std::make_unique<PartOfFileSystem>(files, std::move(paths));
}

}  // namespace sckpt
