// SPDX-License-Identifier: GPL-3.0-or-later
//
// The verbs of sckpt, one file each. A verb returns what goes to standard output. The render functions have no other input or
// effect than what is in their arguments.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "cli/job_id.h"
#include "cli/session.h"
#include "rpc/sckpt.pb.h"

namespace sckpt::cli {

struct CreateOptions {
    std::uint32_t job = 0;
    bool requeue = false;
    std::optional<std::chrono::seconds> max_wait;
};
// Shows its progress on standard error: one changing line on a terminal, else a line a phase.
Result<std::string> create(const Session& session, const CreateOptions& options);
Result<std::string> list(const Session& session, std::optional<std::uint32_t> job);
Result<std::string> show(const Session& session, const JobId& id);
Result<std::string> status(const Session& session);

// create: the phases seen so far, and the line that tells of the newest.
struct CreateState {
    rpc::CreateProgress last;
    bool captured = false, complete = false, requeued = false;
    void update(const rpc::CreateProgress& progress);
};
std::string render_progress(const CreateState& state);
std::string render_created(const CreateState& state, std::uint32_t job);

std::string render_jobs(const rpc::ListReply& reply, const View& view);
std::string render_checkpoints(const rpc::Job& job, const View& view, std::string_view indent = "");
std::string render_job(const rpc::Job& job, const View& view);
std::string render_checkpoint(const rpc::Job& job, const rpc::Checkpoint& checkpoint, const View& view);
std::string render_status(const rpc::StatusReply& reply, const std::string& address, const View& view);

}  // namespace sckpt::cli
