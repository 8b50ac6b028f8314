// SPDX-License-Identifier: GPL-3.0-or-later
//
// One run of the command: its options, the connection to sckptctld, and what a failure means for the exit code.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cli/output.h"
#include "common/config.h"
#include "rpc/channel.h"
#include "rpc/sckpt.grpc.pb.h"

namespace sckpt::cli {

// Documented in sckpt(1) and sckpt-clean(8); scripts rely on them.
enum class ExitCode { ok = 0, failed = 1, usage = 2, not_found = 3, denied = 4, unreachable = 5, timeout = 6, faults = 7, some = 8 };  // some: of several jobs some failed
ExitCode exit_code(Errc code);

struct Options {
    std::string config_path = kDefaultConfigPath;
    bool json = false;
};

class Session {
   public:
    using Stub = rpc::Sckpt::Stub;
    using Deadline = std::optional<std::chrono::seconds>;
    static constexpr std::chrono::seconds kDeadline{10};

    static Result<Session> open(const Options& options);

    // Asks one question and waits for its answer; without a deadline for as long as sckptctld is there. `name` is the method's,
    // without the service.
    template <class Request, class Reply>
    Result<Reply> ask(std::string_view name, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Reply*),
                      const Request& request, Deadline deadline = kDeadline) const {
        grpc::ClientContext context;
        if (deadline) context.set_deadline(std::chrono::system_clock::now() + *deadline);
        SCKPT_TRY(add_credential(context, name, request));
        Reply reply;
        const grpc::Status status = (stub_.get()->*method)(&context, request, &reply);
        if (!status.ok()) return std::unexpected(error(status));
        return reply;
    }

    // Asks for work that takes its time, and hears of its progress until it is done.
    template <class Request, class Progress, class Tell>
    Result<> follow(std::string_view name,
                    std::unique_ptr<grpc::ClientReader<Progress>> (Stub::*method)(grpc::ClientContext*, const Request&),
                    const Request& request, const Tell& tell) const {
        grpc::ClientContext context;
        SCKPT_TRY(add_credential(context, name, request));
        const auto stream = (stub_.get()->*method)(&context, request);
        Progress progress;
        bool done = false;
        while (stream->Read(&progress)) {
            done = done || progress.done();
            tell(progress);
        }
        const grpc::Status status = stream->Finish();
        if (!status.ok()) return std::unexpected(error(status));
        if (!done) return fail(Errc::internal, "sckptctld ended its answer too early: its log tells more");
        return {};
    }

    Result<> add_credential(grpc::ClientContext& context, std::string_view name, const google::protobuf::Message& request) const;
    // What to tell the user: the answer of sckptctld, or that it cannot be reached and what to check.
    Error error(const grpc::Status& status) const;

    Stub& stub() const { return *stub_; }
    std::string address() const;  // host:port of sckptctld
    bool json() const { return json_; }
    const View& view() const { return view_; }

   private:
    Session() = default;
    Config::Controller controller_;
    std::string config_path_;
    bool json_ = false;
    View view_;
    std::unique_ptr<Stub> stub_;
};

}  // namespace sckpt::cli
