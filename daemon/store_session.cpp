// SPDX-License-Identifier: GPL-3.0-or-later
//
// A worker lives as long as the call that started it, in the thread that started it: so it may be tied to that thread, and a sckptd that
// is killed leaves none.
#include "daemon/store_session.h"

#include <array>
#include <atomic>
#include <chrono>
#include <format>
#include <thread>
#include <tuple>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "common/interval.h"

namespace sckpt {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr int kLookMs = 200;    // how soon a call sees that it was stopped
constexpr auto kEndTime = 5s;   // for a killed process to be gone; longer, and the kernel waits for a device that does not answer
constexpr int kMaxStuck = 16;   // processes that cannot be killed, before no more are started: each holds descriptors and a thread

std::atomic<int> stuck_workers = 0;

// Waits for a killed process for as long as it takes, for nobody.
void leave_to_reaper(std::unique_ptr<StoreProcess> worker) {
    ++stuck_workers;
    std::thread([worker = std::move(worker)]() mutable {
        while (!worker->wait(std::chrono::hours(24))) {
        }
        --stuck_workers;
    }).detach();
}

Result<UniqueFd> make_memory(const char* name) {
    UniqueFd memory(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memory) return fail_errno("make a file in memory");
    return memory;
}

}  // namespace

Result<Json> StoreSession::run(Json request, std::initializer_list<int> fds, const StoreHandlers& handlers) {
    SCKPT_TRY(start());
    request["kind"] = "request";
    request["version"] = SCKPT_VERSION;
    request["store"] = config_.store.directory;
    request["store_id"] = call_.store;
    const auto sent = channel_->send(request, fds);
    const bool heard = sent || sent.error().code == Errc::unavailable;  // it ended already: what it has said is read
    auto answer = heard ? converse(handlers) : std::unexpected(sent.error());
    const bool gone = end();
    if (answer && !gone) return fail(Errc::timeout, "a process of the store has answered and yet does not end");
    if (!heard && sent.error().code == Errc::busy) return fail(Errc::timeout, "sckpt-store does not take its request");
    return answer;
}

Result<> StoreSession::start() {
    if (stuck_workers >= kMaxStuck)
        return fail(Errc::unavailable, std::format("the store at {} does not answer: {} processes hang in it and cannot even be killed; "
                                                   "no more are started until its file system is alive", config_.store.directory, kMaxStuck));
    std::array<int, 2> ends{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) return fail_errno("make a socket pair");
    UniqueFd ours(ends[0]);
    UniqueFd theirs(ends[1]);
    const timeval patience{config_.store.timeout_seconds, 0};  // with a worker that does not read
    if (::setsockopt(ours.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0) return fail_errno("set a socket's timeout");
    SCKPT_ASSIGN(worker_, start_(std::move(theirs), call_.idle));
    channel_.emplace(std::move(ours));
    return {};
}

// Whether nothing of it is left.
bool StoreSession::end() {
    copying_ = {};
    channel_.reset();  // with the descriptors that are still on their way in it
    if (!worker_) return true;
    worker_->kill();
    const bool gone = worker_->wait(kEndTime).has_value();
    if (!gone) leave_to_reaper(std::move(worker_));
    worker_.reset();
    return gone;
}

Error StoreSession::died() {
    const std::string how = worker_->wait(kEndTime).value_or("it has closed its socket");
    return {Errc::io, std::format("sckpt-store ended in the middle of its work on {}: {}", config_.store.directory, how)};
}

Result<Json> StoreSession::converse(const StoreHandlers& handlers) {
    const std::chrono::seconds patience(config_.store.timeout_seconds);
    for (auto heard = Clock::now();;) {
        if (call_.stop != nullptr && *call_.stop) return fail(Errc::busy, "the work on the store was stopped");
        auto message = channel_->receive(kLookMs);
        if (!message && message.error().code != Errc::timeout) return std::unexpected(message.error());
        if (!message) {
            if (Clock::now() - heard < patience) continue;
            return fail(Errc::timeout, std::format("the store at {} has not moved for {}: is its file system alive?", config_.store.directory,
                                                   format_seconds(patience.count())));
        }
        if (message->body.is_null()) return std::unexpected(died());
        if (message->kind() == "done") return std::move(message->body);
        if (message->kind() == "failed")
            return std::unexpected(error_of(message->body).context(std::format("the store at {}", config_.store.directory)));
        const auto handled = handle(*message, handlers);
        if (!handled && handled.error().code == Errc::unavailable) continue;  // it ended while it was answered: its end is read next
        if (!handled) return std::unexpected(handled.error());
        heard = Clock::now();
        if (call_.alive) call_.alive();
    }
}

Result<> StoreSession::handle(StoreChannel::Message& message, const StoreHandlers& handlers) {
    const std::string kind = message.kind(), path = text_of(message.body, "path");
    if (kind == "alive") return {};
    if (kind == "progress") {
        if (call_.progress) call_.progress(number_of(message.body, "plain"), number_of(message.body, "written"));
        return {};
    }
    if (kind == "manifest" && handlers.manifest) return begin_copy(message.body);
    if (kind == "copied" && handlers.manifest) return finish_copy(handlers);
    if (kind == "unreadable" && handlers.manifest) {
        copying_ = {};
        std::ignore = handlers.manifest(path, std::unexpected(error_of(message.body)));
        return {};
    }
    if (kind == "seal" && handlers.seal) return give_seal(message.body, handlers);
    if (kind == "next" && handlers.next) return give_piece(handlers);
    if (handlers.part) return handlers.part(message.body);
    return fail(Errc::internal, "sckpt-store says something that nobody asked for");
}

Result<> StoreSession::begin_copy(const Json& message) {
    const std::uint64_t bytes = number_of(message, "bytes");
    if (bytes > kMaxManifestBytes)
        return channel_->send(error_message("refused", {Errc::corrupt, std::format("{} bytes are more than a manifest can have", bytes)}));
    SCKPT_ASSIGN(UniqueFd memory, make_memory("sckpt-manifest"));
    if (::ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) return fail_errno("make room for a manifest");
    if (::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK) != 0) return fail_errno("seal the size of a manifest's copy");
    copying_ = {text_of(message, "path"), std::move(memory)};
    return channel_->send({{"kind", "copy"}}, {copying_.memory.get()});
}

// From the seal on nobody can write to it, also not who has a descriptor; the kernel refuses the seal while somebody has it mapped to write.
Result<ManifestCopy> StoreSession::sealed_copy(Copying copying) {
    if (!copying.memory) return fail(Errc::internal, "sckpt-store has copied what it was not given room for");
    if (::fcntl(copying.memory.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) != 0) return fail_errno("seal the copy of " + copying.path);
    ManifestCopy copy{file_of(std::move(copying.memory), copying.path), {}, 0};
    SCKPT_ASSIGN(copy.bytes, copy.file->size());
    SCKPT_ASSIGN(copy.hashes, Manifest::hash(*copy.file));
    return copy;
}

Result<> StoreSession::finish_copy(const StoreHandlers& handlers) {
    Copying copying = std::exchange(copying_, {});
    const std::string path = copying.path;
    const auto allowed = handlers.manifest(path, sealed_copy(std::move(copying)));
    return channel_->send(allowed ? Json{{"kind", "go"}} : error_message("refused", allowed.error()));
}

Result<> StoreSession::give_seal(const Json& message, const StoreHandlers& handlers) {
    const auto rest = digest_from_hex(text_of(message, "rest"));
    const auto seal = rest ? handlers.seal(text_of(message, "head"), *rest) : std::unexpected(rest.error());
    if (!seal) return channel_->send(error_message("refused", seal.error()));
    return channel_->send({{"kind", "sealed"}, {"key", seal->key_id}, {"value", to_hex(seal->value)}});
}

Result<> StoreSession::give_piece(const StoreHandlers& handlers) {
    SCKPT_ASSIGN(const std::string bytes, handlers.next());
    if (bytes.empty()) return channel_->send({{"kind", "piece"}});
    SCKPT_ASSIGN(const UniqueFd memory, make_memory("sckpt-backup"));
    SCKPT_TRY(write_all(memory.get(), bytes));
    return channel_->send({{"kind", "piece"}}, {memory.get()});
}

}  // namespace sckpt
