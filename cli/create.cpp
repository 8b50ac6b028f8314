// SPDX-License-Identifier: GPL-3.0-or-later
//
// sckpt create JOB and sckpt requeue JOB: order a checkpoint and follow it until it is complete.
#include <unistd.h>
#include <algorithm>
#include <charconv>
#include <format>

#include "cli/progress.h"
#include "cli/verbs.h"
#include "common/interval.h"

namespace sckpt::cli {
namespace {

std::string facts(const CreateState& state) {
    return std::format("{}, frozen {}", format_bytes(state.last.bytes()), format_milliseconds(state.last.frozen_ms()));
}

std::string restart_name(const CreateState& state, const NamedJob& job) {
    return std::format("{}.{}.{}", job.job, state.last.step(), state.last.checkpoint());
}

Result<std::string> result_text(const Session& session, const CreateState& state, const NamedJob& job) {
    if (!session.json()) return render_created(state, job);
    rpc::CreateProgress end = state.last;
    end.clear_drain();
    SCKPT_ASSIGN(auto document, to_json(end));
    document["job_id"] = job.job;
    if (job.part) document["step_id"] = *job.part;
    if (job.part) document["restart"] = restart_name(state, job);
    document["complete"] = state.complete;
    document["requeued"] = state.requeued;
    return json_text(document);
}

Error timed_out(const CreateState& state, const NamedJob& job, const CreateOptions& options) {
    const std::string after = format_seconds(options.max_wait->count());
    const std::string_view also = options.requeue ? ", and the job is not requeued" : "";
    const std::uint32_t number = state.last.checkpoint();
    if (number == 0)
        return {Errc::timeout,
                std::format("sckptctld began no checkpoint within {}{}: see `sckpt list {}`", after, also, job.job)};
    const std::string doing = state.last.has_drain() ? " (" + drain_text(state.last.drain()) + ")" : "";
    return {
        Errc::timeout,
        std::format("checkpoint {} is not complete after {}{}: it goes on without this command{}; `sckpt watch {}` follows it",
                    number, after, doing, also, job.job)};
}

}  // namespace

// As in the option's first form a number alone is seconds, and not minutes as in the times of Slurm.
Result<std::chrono::seconds> parse_wait(std::string_view text) {
    std::int64_t seconds = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
    const bool number = error == std::errc() && end == text.data() + text.size();
    if (!number) {
        SCKPT_ASSIGN(seconds, parse_seconds(text));
    }
    if (seconds < kMinIntervalSeconds || seconds > kMaxIntervalSeconds)
        return fail(Errc::invalid, std::format("\"{}\" is not from {} to {}", text, format_seconds(kMinIntervalSeconds),
                                               format_seconds(kMaxIntervalSeconds)));
    return std::chrono::seconds(seconds);
}

// A phase's message may leave out what an earlier one told.
void CreateState::update(const rpc::CreateProgress& progress) {
    const rpc::CreateProgress before = last;
    last = progress;
    if (last.checkpoint() == 0) last.set_checkpoint(before.checkpoint());
    if (last.step().empty()) last.set_step(before.step());
    if (last.bytes() == 0) last.set_bytes(before.bytes());
    if (last.frozen_ms() == 0) last.set_frozen_ms(before.frozen_ms());
    captured = captured || last.phase() == rpc::CreateProgress::CAPTURED;
    complete = complete || last.phase() == rpc::CreateProgress::COMPLETE;
    requeued = requeued || last.phase() == rpc::CreateProgress::REQUEUED;
}

std::string render_progress(const CreateState& state) {
    const std::string what = std::format("checkpoint {}: ", state.last.checkpoint());
    switch (state.last.phase()) {
        case rpc::CreateProgress::ORDERED: return what + "ordered";
        case rpc::CreateProgress::CAPTURED: return what + "captured, " + facts(state) + "; " + drain_text(state.last.drain());
        case rpc::CreateProgress::COMPLETE: return what + "complete";
        case rpc::CreateProgress::REQUEUED: return what + "the job is requeued";
        default: return what + "waiting";
    }
}

std::string progress_news(const CreateState& state) {
    const std::string phase = rpc::CreateProgress::Phase_Name(state.last.phase());
    return state.last.phase() == rpc::CreateProgress::CAPTURED ? phase + " " + drain_news(state.last.drain()) : phase;
}

std::string render_created(const CreateState& state, const NamedJob& job) {
    std::string text = std::format("checkpoint {} of {} {}: {}, {}{}", state.last.checkpoint(), job.part ? "step" : "job", job.name,
                                   state.complete ? "complete" : "captured", facts(state), state.requeued ? "; the job is requeued" : "");
    if (job.part && !state.last.step().empty()) text += "; `srun --ckpt-restart=" + restart_name(state, job) + "` starts a step from it";
    return text + "\n";
}

Result<std::string> create(const Session& session, const NamedJob& job, const CreateOptions& options) {
    rpc::CreateRequest request;
    request.set_job_id(job.job);
    if (job.part) request.set_step_id(*job.part);
    request.set_requeue(options.requeue);
    grpc::ClientContext context;
    if (options.max_wait) context.set_deadline(options.begin + *options.max_wait);
    SCKPT_TRY(session.add_credential(context, "Create", request));
    CreateState state;
    grpc::Status status;
    {
        ProgressLine line = options.several ? ProgressLine(STDERR_FILENO, false) : ProgressLine();
        const std::string whose = options.several ? job.name + ": " : "";
        const auto stream = session.stub().Create(&context, request);
        rpc::CreateProgress progress;
        while (stream->Read(&progress)) {
            state.update(progress);
            line.show(whose + render_progress(state), progress_news(state));
        }
        status = stream->Finish();
    }
    if (!status.ok()) {
        const Error error = session.error(status);
        const bool ours = error.code == Errc::timeout && !rpc::answered_by_peer(status) && options.max_wait;
        return std::unexpected(ours ? timed_out(state, job, options) : error);
    }
    const bool done = options.requeue ? state.requeued : state.complete;
    if (!done)
        return fail(Errc::internal,
                    std::format("sckptctld ended its answer too early: `sckpt show {}` tells what became of it", job.job));
    return result_text(session, state, job);
}

}  // namespace sckpt::cli
