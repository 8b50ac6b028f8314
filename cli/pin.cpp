// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt pin JOB[.N] and sckpt unpin JOB[.N]: what the collector must leave alone.
#include <format>

#include "cli/verbs.h"

namespace sckpt::cli {
namespace {

Result<std::string> set_pinned(const Session& session, const JobId& id, bool pinned) {
    rpc::PinRequest request;
    request.set_job_id(id.job);
    request.set_checkpoint(id.checkpoint);
    request.set_pinned(pinned);
    SCKPT_ASSIGN(const rpc::PinReply reply, session.ask("Pin", &Session::Stub::Pin, request));
    if (session.json()) return json_text({{"job_id", id.job}, {"checkpoint", reply.checkpoint()}, {"pinned", pinned}});
    const std::string name = to_string({id.job, reply.checkpoint()});
    return pinned ? std::format("checkpoint {} is pinned: it stays until `sckpt unpin {}`\n", name, name)
                  : std::format("checkpoint {} is not pinned: it goes when its time has come\n", name);
}

}  // namespace

Result<std::string> pin(const Session& session, const NamedJob& job) { return set_pinned(session, job.checkpoint(), true); }
Result<std::string> unpin(const Session& session, const NamedJob& job) { return set_pinned(session, job.checkpoint(), false); }

}  // namespace sckpt::cli
