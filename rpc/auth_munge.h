// SPDX-License-Identifier: GPL-3.0-or-later
//
// Who is calling: munge credentials, as Slurm itself uses them. A credential names the caller's uid by the word of the munge
// daemon of its host, is good once (munge refuses replays) and for a minute, and is bound here to one purpose.
#pragma once

#include <sys/types.h>
#include <cstdint>
#include <string>
#include <string_view>

#include "common/result.h"

namespace sckpt::rpc {

struct Caller {
    uid_t uid = 0;
    gid_t gid = 0;
    std::uint32_t address = 0;  // IPv4 of the host that made the credential, network byte order (munge's MUNGE_OPT_ADDR4)
};

// Makes a credential of this process's user for `purpose` (at most 4 KiB; a method's name with a digest of the request).
// `socket`: munged's, where it is not munge's own default (tests run a munged of their own).
Result<std::string> make_credential(std::string_view purpose, const char* socket = nullptr);
// Errc::denied when it is forged, expired, replayed or made for another purpose; Errc::unavailable when munged does not run.
Result<Caller> check_credential(const std::string& credential, std::string_view purpose, const char* socket = nullptr);

}  // namespace sckpt::rpc
