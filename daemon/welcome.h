// SPDX-License-Identifier: GPL-3.0-or-later
//
// How the one who dials learns that it is the cluster's sckptctld who answers (or, to a relay, another relay of the cluster).
#pragma once

#include <string>

#include "common/result.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

// SlurmUser or root made the credential over our nonce, just now.
Result<> check_welcome(const rpc::Welcome& welcome, const std::string& nonce);

}  // namespace sckpt
