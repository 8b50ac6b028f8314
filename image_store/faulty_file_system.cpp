// SPDX-License-Identifier: GPL-3.0-or-later
//
// Each call asks enter() whether it may go on. A write that fails has written half of its bytes, as one does on a disk that gets full.
#include "image_store/faulty_file_system.h"

#include <utility>

namespace sckpt {

class FaultyFileSystem::OpenFile final : public File {
   public:
    OpenFile(FaultyFileSystem& files, std::unique_ptr<File> file, std::string path)
        : files_(files), file_(std::move(file)), path_(std::move(path)) {}

    Result<std::size_t> read_at(std::uint64_t offset, std::span<std::byte> to) override {
        SCKPT_TRY(files_.enter(kRead, "read " + path_));
        return file_->read_at(offset, to);
    }
    Result<> write_at(std::uint64_t offset, std::span<const std::byte> bytes) override {
        const bool before = files_.crashed();
        if (auto entered = files_.enter(kWrite, "write " + path_); !entered) {
            if (!before) static_cast<void>(file_->write_at(offset, bytes.first(bytes.size() / 2)));
            return entered;
        }
        return file_->write_at(offset, bytes);
    }
    Result<> truncate(std::uint64_t size) override {
        SCKPT_TRY(files_.enter(kWrite, "truncate " + path_));
        return file_->truncate(size);
    }
    Result<std::uint64_t> size() override {
        SCKPT_TRY(files_.enter(kRead, "stat " + path_));
        return file_->size();
    }
    void start_writing(std::uint64_t offset, std::uint64_t size) override { file_->start_writing(offset, size); }
    Result<> sync() override {
        SCKPT_TRY(files_.enter(kSync, "fsync " + path_));
        return file_->sync();
    }

   private:
    FaultyFileSystem& files_;
    const std::unique_ptr<File> file_;
    const std::string path_;
};

void FaultyFileSystem::set(const Fault& fault) {
    const std::scoped_lock lock(mutex_);
    fault_ = fault;
    count_ = 0;
    crashed_ = false;
}

void FaultyFileSystem::set_hook(std::function<void(Call)> hook) {
    const std::scoped_lock lock(mutex_);
    hook_ = std::move(hook);
}

std::uint64_t FaultyFileSystem::count() const {
    const std::scoped_lock lock(mutex_);
    return count_;
}

bool FaultyFileSystem::crashed() const {
    const std::scoped_lock lock(mutex_);
    return crashed_;
}

Result<> FaultyFileSystem::enter(Call call, const std::string& what) {
    std::unique_lock lock(mutex_);
    if (const auto hook = hook_) {
        lock.unlock();
        hook(call);
        lock.lock();
    }
    if (crashed_) return fail_errno(what, EIO);
    if ((call & fault_.calls) == 0 || ++count_ != fault_.at) return {};
    crashed_ = fault_.crash;
    return fail_errno(what, fault_.error);
}

Result<std::unique_ptr<File>> FaultyFileSystem::open(const std::string& path) {
    SCKPT_TRY(enter(kOpen, "open " + path));
    SCKPT_ASSIGN(std::unique_ptr<File> file, files_.open(path));
    return std::make_unique<OpenFile>(*this, std::move(file), path);
}

Result<std::unique_ptr<File>> FaultyFileSystem::create(const std::string& path) {
    SCKPT_TRY(enter(kCreate, "create " + path));
    SCKPT_ASSIGN(std::unique_ptr<File> file, files_.create(path));
    return std::make_unique<OpenFile>(*this, std::move(file), path);
}

Result<> FaultyFileSystem::make_directory(const std::string& path) {
    SCKPT_TRY(enter(kMakeDirectory, "make directory " + path));
    return files_.make_directory(path);
}

Result<> FaultyFileSystem::rename(const std::string& from, const std::string& to) {
    SCKPT_TRY(enter(kRename, "rename " + from));
    return files_.rename(from, to);
}

Result<> FaultyFileSystem::remove(const std::string& path) {
    SCKPT_TRY(enter(kRemove, "remove " + path));
    return files_.remove(path);
}

Result<> FaultyFileSystem::remove_directory(const std::string& path) {
    SCKPT_TRY(enter(kRemove, "remove directory " + path));
    return files_.remove_directory(path);
}

Result<> FaultyFileSystem::sync_directory(const std::string& path) {
    SCKPT_TRY(enter(kSync, "fsync " + path));
    return files_.sync_directory(path);
}

Result<std::vector<DirectoryEntry>> FaultyFileSystem::list(const std::string& path) {
    SCKPT_TRY(enter(kList, "read directory " + path));
    return files_.list(path);
}

Result<Space> FaultyFileSystem::space() {
    SCKPT_TRY(enter(kList, "ask for free space"));
    return files_.space();
}

}  // namespace sckpt
