// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt create JOB and sckpt requeue JOB: order a checkpoint and follow it until it is complete.
#include <unistd.h>
#include <algorithm>
#include <format>

#include "cli/verbs.h"

namespace sckpt::cli {
namespace {

// Standard error: the terminal's line is written over, a log file gets a line a phase.
class ProgressLine {
   public:
    ProgressLine() : terminal_(isatty(STDERR_FILENO) == 1) {}
    ProgressLine(const ProgressLine&) = delete;
    ProgressLine& operator=(const ProgressLine&) = delete;
    ~ProgressLine() {
        if (terminal_ && shown_) put("\r\033[K");
    }
    void show(const std::string& line, bool new_phase) {
        if (terminal_) put("\r\033[K" + line);
        else if (new_phase) put(line + "\n");
        shown_ = true;
    }

   private:
    // Nobody can be told when standard error itself fails.
    static void put(const std::string& text) { [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text.data(), text.size()); }
    bool terminal_;
    bool shown_ = false;
};

std::string facts(const CreateState& state) {
    return std::format("{}, frozen {}", format_bytes(state.last.bytes()), format_milliseconds(state.last.frozen_ms()));
}

Result<std::string> result_text(const Session& session, const CreateState& state, const CreateOptions& options) {
    if (!session.json()) return render_created(state, options.job);
    SCKPT_ASSIGN(auto document, to_json(state.last));
    document["job_id"] = options.job;
    document["complete"] = state.complete;
    document["requeued"] = state.requeued;
    return json_text(document);
}

Error timed_out(const CreateState& state, const CreateOptions& options) {
    const auto seconds = options.max_wait->count();
    const std::string_view also = options.requeue ? ", and the job is not requeued" : "";
    const std::uint32_t number = state.last.checkpoint();
    if (number == 0)
        return {Errc::timeout, std::format("sckptctld began no checkpoint within {} s{}: see `sckpt list {}`", seconds, also, options.job)};
    return {Errc::timeout,
            std::format("checkpoint {} is not complete after {} s: it goes on without this command{}; `sckpt show {}.{}` tells its end",
                        number, seconds, also, options.job, number)};
}

}  // namespace

// A phase's message may leave out what an earlier one told.
void CreateState::update(const rpc::CreateProgress& progress) {
    const rpc::CreateProgress before = last;
    last = progress;
    if (last.checkpoint() == 0) last.set_checkpoint(before.checkpoint());
    if (last.bytes() == 0) last.set_bytes(before.bytes());
    if (last.frozen_ms() == 0) last.set_frozen_ms(before.frozen_ms());
    last.set_bytes_stored(std::max(last.bytes_stored(), before.bytes_stored()));
    captured = captured || last.phase() == rpc::CreateProgress::CAPTURED;
    complete = complete || last.phase() == rpc::CreateProgress::COMPLETE;
    requeued = requeued || last.phase() == rpc::CreateProgress::REQUEUED;
}

std::string render_progress(const CreateState& state) {
    const std::string what = std::format("checkpoint {}: ", state.last.checkpoint());
    switch (state.last.phase()) {
        case rpc::CreateProgress::ORDERED: return what + "ordered";
        case rpc::CreateProgress::CAPTURED:
            if (state.last.bytes_stored() == 0) return what + "captured, " + facts(state) + "; storing";
            return what + std::format("storing, {} of {}", format_bytes(state.last.bytes_stored()), format_bytes(state.last.bytes()));
        case rpc::CreateProgress::COMPLETE: return what + "complete";
        case rpc::CreateProgress::REQUEUED: return what + "the job is requeued";
        default: return what + "waiting";
    }
}

std::string render_created(const CreateState& state, std::uint32_t job) {
    return std::format("checkpoint {} of job {}: {}, {}{}\n", state.last.checkpoint(), job, state.complete ? "complete" : "captured",
                       facts(state), state.requeued ? "; the job is requeued" : "");
}

Result<std::string> create(const Session& session, const CreateOptions& options) {
    rpc::CreateRequest request;
    request.set_job_id(options.job);
    request.set_requeue(options.requeue);
    grpc::ClientContext context;
    if (options.max_wait) context.set_deadline(std::chrono::system_clock::now() + *options.max_wait);
    SCKPT_TRY(session.add_credential(context, "Create", request));
    CreateState state;
    grpc::Status status;
    {
        ProgressLine line;
        const auto stream = session.stub().Create(&context, request);
        rpc::CreateProgress progress;
        while (stream->Read(&progress)) {
            const bool new_phase = progress.phase() != state.last.phase();
            state.update(progress);
            line.show(render_progress(state), new_phase);
        }
        status = stream->Finish();
    }
    if (!status.ok()) {
        const Error error = session.error(status);
        const bool ours = error.code == Errc::timeout && !rpc::answered_by_peer(status) && options.max_wait;
        return std::unexpected(ours ? timed_out(state, options) : error);
    }
    const bool done = options.requeue ? state.requeued : state.complete;
    if (!done)
        return fail(Errc::internal,
                    std::format("sckptctld ended its answer too early: `sckpt show {}` tells what became of it", options.job));
    return result_text(session, state, options);
}

}  // namespace sckpt::cli
