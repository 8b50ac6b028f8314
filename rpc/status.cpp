// SPDX-License-Identifier: GPL-3.0-or-later
#include "rpc/status.h"

#include <optional>

#include "rpc/text.h"

namespace sckpt::rpc {
namespace {

// A status travels in HTTP/2 headers, which are limited to 8 KiB with all others; three bytes for one that is not ASCII.
constexpr std::size_t kMaxText = 2000;

struct Pair {
    Errc code;
    grpc::StatusCode status;
};
// First match counts in both directions.
constexpr Pair kPairs[] = {
    {Errc::not_found, grpc::StatusCode::NOT_FOUND},
    {Errc::exists, grpc::StatusCode::ALREADY_EXISTS},
    {Errc::invalid, grpc::StatusCode::INVALID_ARGUMENT},
    {Errc::invalid, grpc::StatusCode::OUT_OF_RANGE},
    {Errc::denied, grpc::StatusCode::PERMISSION_DENIED},
    {Errc::denied, grpc::StatusCode::UNAUTHENTICATED},
    {Errc::busy, grpc::StatusCode::ABORTED},
    {Errc::no_space, grpc::StatusCode::RESOURCE_EXHAUSTED},
    {Errc::corrupt, grpc::StatusCode::DATA_LOSS},
    {Errc::unsupported, grpc::StatusCode::FAILED_PRECONDITION},
    {Errc::unsupported, grpc::StatusCode::UNIMPLEMENTED},
    {Errc::timeout, grpc::StatusCode::DEADLINE_EXCEEDED},
    {Errc::io, grpc::StatusCode::UNKNOWN},
    {Errc::unavailable, grpc::StatusCode::UNAVAILABLE},
    {Errc::unavailable, grpc::StatusCode::CANCELLED},
    {Errc::internal, grpc::StatusCode::INTERNAL},
};

// The name of the Errc goes along in the status's details: gRPC's codes are fewer, and gRPC itself leaves the details empty.
std::optional<Errc> code_in_details(const grpc::Status& status) {
    for (const Pair& pair : kPairs)
        if (status.error_details() == errc_name(pair.code)) return pair.code;
    return std::nullopt;
}

}  // namespace

grpc::Status status_from_error(const Error& error) {
    grpc::StatusCode status = grpc::StatusCode::INTERNAL;
    for (const Pair& pair : kPairs)
        if (pair.code == error.code) {
            status = pair.status;
            break;
        }
    std::string text = error.text;
    if (text.size() > kMaxText) text.replace(kMaxText, std::string::npos, " ...");
    return {status, utf8_text(text), std::string(errc_name(error.code))};
}

Error error_from_status(const grpc::Status& status) {
    if (const auto code = code_in_details(status)) return {*code, status.error_message()};
    if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED)
        return {Errc::unsupported, "the other side does not know this request: the programs are of different versions"};
    if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) return {Errc::timeout, "no answer in time"};
    for (const Pair& pair : kPairs)
        if (pair.status == status.error_code()) return {pair.code, status.error_message()};
    return {Errc::internal, status.error_message()};
}

bool answered_by_peer(const grpc::Status& status) { return code_in_details(status).has_value(); }

}  // namespace sckpt::rpc
