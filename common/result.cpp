// SPDX-License-Identifier: GPL-3.0-or-later
#include "common/result.h"

namespace sckpt {

std::string_view errc_name(Errc code) {
    switch (code) {
        case Errc::not_found: return "not_found";
        case Errc::exists: return "exists";
        case Errc::invalid: return "invalid";
        case Errc::denied: return "denied";
        case Errc::busy: return "busy";
        case Errc::no_space: return "no_space";
        case Errc::corrupt: return "corrupt";
        case Errc::unsupported: return "unsupported";
        case Errc::timeout: return "timeout";
        case Errc::io: return "io";
        case Errc::unavailable: return "unavailable";
        case Errc::internal: return "internal";
    }
    return "internal";
}

std::unexpected<Error> fail_errno(std::string_view doing, int err) {
    Errc code = Errc::io;
    switch (err) {
        case ENOENT: case ESRCH: code = Errc::not_found; break;
        case EEXIST: code = Errc::exists; break;
        case EACCES: case EPERM: code = Errc::denied; break;
        case ENOSPC: case EDQUOT: code = Errc::no_space; break;
        case EBUSY: case EAGAIN: code = Errc::busy; break;
        case ETIMEDOUT: code = Errc::timeout; break;
        case ENOSYS: case EOPNOTSUPP: code = Errc::unsupported; break;
        case EINVAL: case ELOOP: case ENOTDIR: case EISDIR: code = Errc::invalid; break;
        default: break;
    }
    return fail(code, std::string(doing) + ": " + std::strerror(err));
}

}  // namespace sckpt
