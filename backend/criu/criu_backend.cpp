// SPDX-License-Identifier: GPL-3.0-or-later
//
// The CRIU backend inside sckptd: starts sckpt-criu for each call and reads its answer. The daemon has many threads and stays in its own
// namespaces with its own credentials; all else is the driver's.
#include "backend/backend.h"

#include <algorithm>
#include <array>
#include <format>
#include <functional>
#include <optional>
#include <tuple>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/criu/driver.h"
#include "backend/criu/record.h"
#include "common/process.h"

namespace sckpt {

using nlohmann::json;
using namespace std::chrono;

namespace {

constexpr const char* kDriver = SCKPT_LIBEXECDIR "/sckpt-criu";
constexpr milliseconds kProbeDeadline = 60s;
constexpr std::size_t kAnswerLimit = 64u << 20;

// How long a driver is waited for. As long as its job is suspended it cannot end, and is not to be killed (see wait_for_criu in dump.cpp).
struct Patience {
    steady_clock::time_point end;
    pid_t supervisor = 0;  // 0: of no job
    milliseconds left() {
        const auto now = steady_clock::now();
        if (now >= end && supervisor > 0 && is_suspended(supervisor)) end = now + 2 * criu::kDriverGrace;
        return ceil<milliseconds>(end - now);
    }
};

// The bytes that come until `last` does, or until the writer closes: nothing but the driver holds the other end.
Result<std::string> read_answer(int fd, Patience& patience, std::optional<char> last = std::nullopt) {
    std::string bytes;
    std::array<char, 65536> buffer;
    while (bytes.size() < kAnswerLimit) {
        const auto left = patience.left().count();
        pollfd item{fd, POLLIN, 0};
        const int n = left > 0 ? ::poll(&item, 1, static_cast<int>(std::min<std::int64_t>(left, 3600'000))) : 0;
        if (n < 0 && errno != EINTR) return fail_errno("wait for sckpt-criu");
        if (n == 0 && left <= 0) return fail(Errc::timeout, "sckpt-criu did not answer in time");
        if (n <= 0) continue;
        const ssize_t got = ::read(fd, buffer.data(), buffer.size());
        if (got < 0) return fail_errno("read the answer of sckpt-criu");
        if (got == 0) return bytes;
        bytes.append(buffer.data(), static_cast<std::size_t>(got));
        if (last && bytes.back() == *last) return bytes;
    }
    return fail(Errc::internal, "sckpt-criu answers without end");
}

Errc errc_named(const std::string& name) {
    for (int code = 0; code <= static_cast<int>(Errc::internal); ++code)
        if (errc_name(static_cast<Errc>(code)) == name) return static_cast<Errc>(code);
    return Errc::internal;
}

Result<json> parse_answer(const std::string& text, const ExitStatus& end) {
    const json answer = json::parse(text, nullptr, false);
    const auto ok = member<bool>(answer, "ok");
    if (!ok) return fail(Errc::internal, std::format("sckpt-criu ended by {} without an answer", end.text()));
    if (*ok) return answer;
    const auto error = member<std::string>(answer, "error"), why = member<std::string>(answer, "text");
    if (!error || !why) return fail(Errc::internal, "sckpt-criu failed and did not say why");
    return fail(errc_named(*error), text_to_bytes(*why));
}

// What is to be done while the driver runs; says anew when the driver has to have ended.
using Conversation = std::function<Result<>(Patience& patience)>;

// Runs the driver to its end. On its own deadline it answers by itself; only a driver that hangs is killed.
Result<json> call_driver(std::vector<std::string> arguments, std::vector<std::pair<int, int>> descriptors, milliseconds deadline,
                         pid_t supervisor = 0, const Conversation& converse = {}) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno("make a pipe");
    const UniqueFd in(ends[0]);
    UniqueFd out(ends[1]);
    descriptors.emplace_back(out.get(), criu::kReportFd);
    arguments.insert(arguments.begin(), kDriver);
    SCKPT_ASSIGN(
        ChildProcess driver,
        ChildProcess::spawn({std::move(arguments), {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"}, std::move(descriptors)}));
    out.reset();
    Patience patience{steady_clock::now() + deadline + criu::kDriverGrace, supervisor};
    if (converse) SCKPT_TRY(converse(patience));
    SCKPT_ASSIGN(const std::string answer, read_answer(in.get(), patience));
    SCKPT_ASSIGN(const ExitStatus end, driver.wait(10s));
    return parse_answer(answer, end);
}

// The driver says on its control socket that the tree is frozen, and waits for our word. A driver that fails before closes it, and answers.
Result<> hold_frozen(UniqueFd control, const DumpRequest& request, Result<>& held, Patience& patience) {
    SCKPT_ASSIGN(const std::string line, read_answer(control.get(), patience, '\n'));
    if (!line.ends_with('\n')) return {};
    const json told = json::parse(line, nullptr, false);
    SCKPT_ASSIGN(const std::uint64_t bytes, member<std::uint64_t>(told, "bytes"));
    SCKPT_ASSIGN(const std::vector<UserFile> files, criu::files_from_json(told.value("files", json())));
    const auto holds = [&] {
        pollfd item{control.get(), POLLIN, 0};  // it says nothing more, but by its end
        return ::poll(&item, 1, 0) == 0;
    };
    held = request.frozen(files, bytes, holds);
    if (held) std::ignore = ::send(control.get(), &criu::kGo, 1, MSG_NOSIGNAL);  // without a driver there is no answer either
    patience.end = steady_clock::now() + 2 * criu::kDriverGrace;
    return {};
}

class CriuBackend final : public Backend {
   public:
    explicit CriuBackend(const Config::Node& config) : config_(config) {}

    BackendProbe probe() override {
        BackendProbe result;
        result.name = "criu";
        const auto made = make_directories(config_.fast_tier, 0700);
        const auto answer = made ? call_driver({"probe", "--criu=" + config_.criu, "--cache=" + config_.fast_tier}, {}, kProbeDeadline)
                                 : Result<json>(std::unexpected(made.error()));
        if (!answer) {
            result.reason = answer.error().text;
            return result;
        }
        result.usable = member<bool>(*answer, "usable").value_or(false);
        result.version = member<std::string>(*answer, "version").value_or("");
        result.reason = member<std::string>(*answer, "reason").value_or("");
        for (const json& note : answer->value("notes", json::array()))
            if (note.is_string()) result.notes.push_back(note.get<std::string>());
        return result;
    }

    Result<DumpReport> dump(const DumpRequest& request) override {
        auto arguments = common_arguments("dump", request.directory, request.supervisor, request.uid, request.deadline);
        arguments.push_back(std::format("--root={}", request.root));
        for (const pid_t pid : request.siblings) arguments.push_back(std::format("--sibling={}", pid));
        for (const pid_t pid : request.helpers) arguments.push_back(std::format("--helper={}", pid));
        SCKPT_ASSIGN(const json answer, request.frozen ? dump_frozen(std::move(arguments), request)
                                                       : call_driver(std::move(arguments), {}, request.deadline, request.supervisor));
        DumpReport report;
        SCKPT_ASSIGN(report.files, criu::files_from_json(answer.value("files", json())));
        SCKPT_ASSIGN(report.bytes, member<std::uint64_t>(answer, "bytes"));
        SCKPT_ASSIGN(const std::uint64_t frozen, member<std::uint64_t>(answer, "frozen_us"));
        report.frozen = ceil<milliseconds>(microseconds(frozen));
        return report;
    }

    Result<> restore(const RestoreRequest& request) override {
        auto arguments = common_arguments("restore", request.directory, request.supervisor, request.uid, request.deadline);
        std::vector<std::pair<int, int>> descriptors = {{request.status, criu::kStatusFd}};
        for (int i = 0; i < 3; ++i)
            if (request.stdio[i] >= 0) descriptors.emplace_back(request.stdio[i], criu::kStreamFds + i);
        SCKPT_TRY(call_driver(std::move(arguments), std::move(descriptors), request.deadline));
        return {};
    }

    Result<> destroy(const std::string& directory) override { return remove_tree(directory); }

   private:
    static Result<json> dump_frozen(std::vector<std::string> arguments, const DumpRequest& request) {
        std::array<int, 2> ends{};
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) != 0) return fail_errno("make a socket pair");
        UniqueFd ours(ends[0]);
        UniqueFd theirs(ends[1]);
        arguments.push_back("--hold");
        Result<> held;
        auto answer = call_driver(std::move(arguments), {{theirs.get(), criu::kControlFd}}, request.deadline, request.supervisor, [&](Patience& patience) {
            theirs.reset();
            return hold_frozen(std::move(ours), request, held, patience);
        });
        if (!held) return std::unexpected(held.error());  // says more than the driver, which was only told to give up
        return answer;
    }

    std::vector<std::string> common_arguments(const char* verb, const std::string& directory, pid_t supervisor, uid_t uid,
                                              milliseconds deadline) const {
        return {verb,
                "--criu=" + config_.criu,
                "--cache=" + config_.fast_tier,
                "--directory=" + directory,
                std::format("--supervisor={}", supervisor),
                std::format("--uid={}", uid),
                std::format("--deadline-ms={}", deadline.count())};
    }

    Config::Node config_;
};

}  // namespace

std::unique_ptr<Backend> make_criu_backend(const Config::Node& config) { return std::make_unique<CriuBackend>(config); }

}  // namespace sckpt
