// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckptctld --relay: stands between nodes and sckptctld, or the next relay. It runs as SlurmUser on a host of relay.hosts, has no state, and may
// die and come back at any time: to its nodes and to sckptctld that is a lost connection.
#pragma once

#include "common/config.h"

namespace sckpt {

// Until it is told to stop.
Result<> serve_relay(const Config& config);

}  // namespace sckpt
