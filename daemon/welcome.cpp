// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/welcome.h"

#include <format>

#include "daemon/slurm_api.h"
#include "rpc/auth_munge.h"
#include "rpc/purpose.h"

namespace sckpt {

Result<> check_welcome(const rpc::Welcome& welcome, const std::string& nonce) {
    if (welcome.credential().empty()) return fail(Errc::denied, "sckptctld did not prove itself");
    SCKPT_ASSIGN(const rpc::Caller caller, rpc::check_credential(welcome.credential(), rpc::welcome_purpose(nonce)));
    if (caller.uid == 0) return {};
    SCKPT_ASSIGN(const uid_t slurm_user, slurm_user_id());
    if (caller.uid == slurm_user) return {};
    return fail(Errc::denied, std::format("what answers as sckptctld runs as uid {}, not as SlurmUser or root", caller.uid));
}

}  // namespace sckpt
