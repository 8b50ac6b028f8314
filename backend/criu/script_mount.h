// SPDX-License-Identifier: GPL-3.0-or-later
//
// The spooled batch script, which bash holds open and reads as it goes. slurmd removes it with the job and, with %n in SlurmdSpoolDir,
// another node has it elsewhere. In a restored tree's private mount namespace it is put back at its old path; the real spool directory is
// never written to: a file of ours there would make the next launch of that job fail.
#pragma once

#include <string>

#include "backend/criu/credentials.h"
#include "common/result.h"

namespace sckpt::criu {

// `path` shows the bytes of `copy` from now on, as a file of the user's. The mount namespace must be the caller's own.
Result<> put_script_back(const std::string& path, const std::string& copy, const Credentials& user);

}  // namespace sckpt::criu
