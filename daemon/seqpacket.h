// SPDX-License-Identifier: GPL-3.0-or-later
//
// SOCK_SEQPACKET at a path, as sckpt-run speaks it to sckptd and to the stubs of its script: plain structs (rpc/local.h, rpc/srun.h), with
// descriptors. Nothing here waits: a peer that hangs costs the job nothing. Failures leave errno.
#pragma once

#include <sys/types.h>
#include <string>
#include <vector>

#include "common/fd.h"

namespace sckpt {

inline constexpr int kMaxPassedFds = 253;  // SCM_MAX_FD of the kernel

UniqueFd connect_seqpacket(const std::string& path);
UniqueFd listen_seqpacket(const std::string& path);  // in place of what is there, at once: no moment without a file

// False: errno; EAGAIN when the peer does not read.
bool send_packet(int socket, const void* bytes, std::size_t size, const int* fds = nullptr, std::size_t fd_count = 0);
// Its size; 0: the peer has closed; -1: errno, EMSGSIZE for one that is longer or whose descriptors could not all be taken.
// Descriptors that are not asked for are closed.
ssize_t receive_packet(int socket, void* bytes, std::size_t size, std::vector<UniqueFd>* fds = nullptr);

}  // namespace sckpt
