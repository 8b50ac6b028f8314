// SPDX-License-Identifier: GPL-3.0-or-later
//
// Descriptors and small files. UniqueFd owns a descriptor; the rest reads and writes whole small files, durably where it says so.
// All descriptors made here are close-on-exec.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/result.h"

namespace sckpt {

// Owns one descriptor, or none (-1). Closes it once, never retried: on Linux the descriptor is gone even when close(2) says EINTR.
class UniqueFd {
   public:
    UniqueFd() = default;
    explicit UniqueFd(int fd) : fd_(fd) {}
    UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    UniqueFd& operator=(UniqueFd&& other) noexcept {
        if (this != &other) reset(std::exchange(other.fd_, -1));
        return *this;
    }
    ~UniqueFd() { reset(); }

    int get() const { return fd_; }
    explicit operator bool() const { return fd_ >= 0; }
    int release() { return std::exchange(fd_, -1); }
    void reset(int fd = -1);

   private:
    int fd_ = -1;
};

Result<UniqueFd> open_file(const std::string& path, int flags, unsigned mode = 0);  // O_CLOEXEC is added
Result<UniqueFd> open_at(int dir, const std::string& name, int flags, unsigned mode = 0);

// Reads a whole file, /proc files included. Fails with Errc::invalid beyond `limit` bytes.
Result<std::string> read_file(const std::string& path, std::size_t limit = 16u << 20);
// The same for a file that is open; `shown` is its name in messages.
Result<std::string> read_all(int fd, const std::string& shown, std::size_t limit = 16u << 20);
Result<> write_all(int fd, std::string_view bytes);

// Makes `path` hold `bytes` durably or not at all: a temporary name beside it, fsync, rename, fsync of the directory.
Result<> write_file_durable(const std::string& path, std::string_view bytes, unsigned mode);
Result<> fsync_directory(const std::string& path);

// mkdir -p with this mode for what is made; what exists is left alone, and must be a directory.
Result<> make_directories(const std::string& path, unsigned mode);
// Removes a tree without following symbolic links or leaving the file system; a missing one is success.
Result<> remove_tree(const std::string& path);

// SOCK_SEQPACKET messages with descriptors (SCM_RIGHTS). At most kMaxFds descriptors a message.
inline constexpr int kMaxFds = 8;
struct Received {
    std::string bytes;             // empty: the peer closed
    std::vector<UniqueFd> fds;
};
Result<> send_message(int socket, std::string_view bytes, const int* fds = nullptr, int fd_count = 0);
// Waits until `deadline_ms` from now at most (-1: for ever); Errc::timeout after it.
Result<Received> receive_message(int socket, int deadline_ms, std::size_t limit = 64u << 10);

}  // namespace sckpt
