// SPDX-License-Identifier: GPL-3.0-or-later
//
// Errors as values. Every function of sckpt that can fail for a reason outside the program returns Result<T>.
// Nothing here throws; a programming error (a broken invariant) is an assert, not an Error.
#pragma once

#include <cerrno>
#include <cstring>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

namespace sckpt {

// The closed set of kinds of failure. A caller may branch on these, and on nothing else of an Error.
enum class Errc {
    not_found,    // what was asked for does not exist
    exists,       // what was to be made is there already
    invalid,      // the input is wrong: the caller must change it
    denied,       // the caller may not do this
    busy,         // try again later
    no_space,     // a disk, a tmpfs or a quota is full
    corrupt,      // bytes do not verify
    unsupported,  // this system or this backend cannot do it
    timeout,      // a deadline passed
    io,           // an operating-system call failed
    unavailable,  // a peer (daemon, slurmctld) cannot be reached
    internal,     // a defect of sckpt
};

std::string_view errc_name(Errc code);  // "not_found", …; static storage

// One failure, with a text made for a person: what happened, to what, and where known what to do.
struct [[nodiscard]] Error {
    Errc code = Errc::internal;
    std::string text;

    // The same error with what was being done in front: "restoring job 12: " + text.
    Error context(std::string_view doing) const { return {code, std::string(doing) + ": " + text}; }
};

template <class T = void>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(Errc code, std::string text) { return std::unexpected(Error{code, std::move(text)}); }

// The failure of an operating-system call: text + ": " + strerror(err); ENOENT, EACCES, ENOSPC … map to their Errc.
std::unexpected<Error> fail_errno(std::string_view doing, int err = errno);

}  // namespace sckpt

#define SCKPT_CONCAT_(a, b) a##b
#define SCKPT_CONCAT(a, b) SCKPT_CONCAT_(a, b)

// SCKPT_TRY(expr): returns the error of a Result expression from the enclosing function; for Result<void>.
#define SCKPT_TRY(expr)                                                            \
    do {                                                                           \
        if (auto sckpt_try_ = (expr); !sckpt_try_)                                 \
            return std::unexpected(std::move(sckpt_try_).error());                 \
    } while (false)

// SCKPT_ASSIGN(declaration, expr): declares or assigns the value of a Result, or returns its error.
#define SCKPT_ASSIGN(declaration, expr) SCKPT_ASSIGN_(declaration, expr, SCKPT_CONCAT(sckpt_try_, __LINE__))
#define SCKPT_ASSIGN_(declaration, expr, name)                                     \
    auto name = (expr);                                                            \
    if (!name)                                                                     \
        return std::unexpected(std::move(name).error());                           \
    declaration = std::move(*name)
