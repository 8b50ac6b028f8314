// SPDX-License-Identifier: GPL-3.0-or-later
//
// What a credential is bound to. Both ends build the same text; a credential for one request is worth nothing for another.
#pragma once

#include <google/protobuf/message.h>
#include <string>
#include <string_view>

#include "common/result.h"

namespace sckpt::rpc {

// The metadata key that carries the credential of a call.
inline constexpr const char* kCredentialKey = "sckpt-credential";

// "/package.Service/Method DIGEST": the digest is BLAKE3 over the request; a bidirectional stream has no single request (null)
// and is bound to the method alone.
std::string call_purpose(std::string_view method, const google::protobuf::Message* request);
// Of the credential in Welcome, by which sckptctld proves itself to a node: over the node's nonce (NodeHello.nonce).
std::string welcome_purpose(std::string_view nonce);
// Fresh for each connection: 16 random bytes in hex.
Result<std::string> make_nonce();

}  // namespace sckpt::rpc
