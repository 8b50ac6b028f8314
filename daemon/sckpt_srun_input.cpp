// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/sckpt_srun_input.h"

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

namespace sckpt {

namespace {

bool is_dev_null(const struct stat& st) { return S_ISCHR(st.st_mode) && st.st_rdev == ::makedev(1, 3); }

}  // namespace

StubInput::StubInput() {
    struct stat st {};
    relayed_ = ::fstat(STDIN_FILENO, &st) == 0 && !is_dev_null(st) && ::isatty(STDIN_FILENO) == 0;
}

int StubInput::offer() {
    if (!relayed_) return STDIN_FILENO;
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return -1;
    offered_read_.reset(ends[0]);
    offered_write_.reset(ends[1]);
    if (::fcntl(offered_write_.get(), F_SETFL, O_NONBLOCK) != 0) return -1;
    return offered_read_.get();
}

void StubInput::settle(bool fresh) {
    if (fresh) {
        pipe_ = std::move(offered_write_);
        feeding_ = false;
        sent_ = 0;
    }
    offered_read_.reset();
    offered_write_.reset();
}

void StubInput::serve_input() {
    std::array<char, 64 * 1024> bytes;
    const ssize_t got = ::read(STDIN_FILENO, bytes.data(), bytes.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        complete_ = true;
    } else {
        if (!replayable_) kept_.clear(), sent_ = 0;  // all of it is sent: else nothing would be read
        kept_.append(bytes.data(), static_cast<std::size_t>(got));
        if (kept_.size() > kMaxKept) replayable_ = false;
    }
    serve_output();
}

void StubInput::serve_output() {
    if (sent_ < kept_.size()) {
        const ssize_t put = ::write(pipe_.get(), kept_.data() + sent_, kept_.size() - sent_);
        if (put > 0) sent_ += static_cast<std::size_t>(put);
        else if (put < 0 && errno == EPIPE) pipe_.reset();  // srun reads no more
    }
    if (complete_ && sent_ == kept_.size()) pipe_.reset();
}

}  // namespace sckpt
