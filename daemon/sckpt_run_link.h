// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt-run's end of the connection to sckptd (rpc/local.h). No call here waits: a sckptd that hangs costs the job nothing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/fd.h"
#include "daemon/sckpt_run_options.h"
#include "rpc/local.h"

namespace sckpt {

// A message of sckptd, with the state of an earlier sckpt-run where one came along.
struct NodeOrder {
    local::Message message;
    UniqueFd state;
};

class NodeLink {
   public:
    explicit NodeLink(const RunOptions& options) : options_(options) {}

    int fd() const { return socket_.get(); }
    bool connected() const { return static_cast<bool>(socket_); }
    const std::string& why_not() const { return why_not_; }  // why there is no connection, after one was lost or refused

    bool socket_missing() const { return socket_missing_; }  // at the last attempt: no sckptd was ever started here

    // Connects and says hello; `status_end` goes along. False leaves the reason in why_not().
    bool open(bool payload_runs, int status_end);
    // Tells that the payload runs; a failure closes the connection.
    void started(std::int64_t pid, int pidfd);
    void held(int state);         // the answer to `hold`, with a memfd of the state
    void ended(int wait_status);  // the last word; nothing where there is no connection
    // The next message; nothing when there is none, or the connection was lost: see connected().
    std::optional<NodeOrder> receive();
    void close(std::string reason);

   private:
    bool send(local::Message message, const int* fds, std::size_t fd_count);
    const RunOptions& options_;
    UniqueFd socket_;
    std::string why_not_;
    bool socket_missing_ = false;
};

// What came out of the status socket of a restore.
struct RestoreEvent {
    enum class What { nothing, restored, exited, closed } what = What::nothing;
    int wait_status = 0;
    UniqueFd pidfd;
};
RestoreEvent read_restore_event(int status_socket);
// The pid that a pidfd stands for, as seen from here; -1 when the process is gone.
pid_t pid_of(int pidfd);

}  // namespace sckpt
