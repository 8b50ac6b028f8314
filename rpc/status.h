// SPDX-License-Identifier: GPL-3.0-or-later
//
// Errors across the network: Error on one side, grpc::Status on the wire, the same Error on the other side.
#pragma once

#include <grpcpp/support/status.h>

#include "common/result.h"

namespace sckpt::rpc {

grpc::Status status_from_error(const Error& error);
// Never called with an OK status. The kind of failure is exact when the peer made the status by status_from_error().
Error error_from_status(const grpc::Status& status);
// True when sckpt's peer gave this answer; false when gRPC made it up (no connection, a deadline, a cancelled call).
bool answered_by_peer(const grpc::Status& status);

}  // namespace sckpt::rpc
