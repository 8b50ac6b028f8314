// SPDX-License-Identifier: GPL-3.0-or-later
//
// How a restarted task comes back: sckptctld says from what, the image is brought (from the fast tier of this node, else from the store)
// and verified, the backend restores it. Runs in the thread of the task's supervisor. A start from the beginning happens only when
// sckptctld says that there is nothing else, and is said to the user.
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <format>
#include <thread>

#include "common/log.h"
#include "daemon/node_agent.h"
#include "daemon/run_state.h"
#include "rpc/task_name.h"

namespace sckpt {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::seconds kAskAgain{2};
constexpr std::chrono::milliseconds kBringAgain{2000};

// backend.h: what these say is about this node or this moment, not about the image, so an older image would fare no better.
bool is_node_fault(Errc code) {
    return code == Errc::unsupported || code == Errc::unavailable || code == Errc::no_space || code == Errc::busy || code == Errc::denied;
}

// What sckpt-run has to say after a restore that failed for us. The driver is in the job's cgroup and is killed with it: when the job is
// cancelled, or when its program ends at once. Neither says anything against the checkpoint.
enum class LastWord { none, started, gone };

LastWord last_word(const SupervisedTask& task) {
    constexpr int kPatienceMs = 500;  // slurmstepd may kill sckpt-run a moment after the driver
    pollfd item{task.socket.get(), POLLIN, 0};
    if (poll(&item, 1, kPatienceMs) <= 0) return LastWord::none;
    local::Message message;
    const ssize_t got = recv(task.socket.get(), &message, sizeof message, MSG_PEEK | MSG_DONTWAIT);
    if (got <= 0) return LastWord::gone;
    return got == sizeof message && message.kind == local::Kind::started ? LastWord::started : LastWord::none;
}

constexpr std::uint64_t kRoomForLogs = 16u << 20;  // of the backend, beside the image

// Ends the bringing of an image when it takes too long, and when the job that waits for it has gone.
class FetchWatch {
   public:
    FetchWatch(int socket, std::chrono::seconds patience)
        : end_(steady_clock::now() + patience), done_(eventfd(0, EFD_CLOEXEC)), thread_([this, socket] { watch(socket); }) {}
    FetchWatch(const FetchWatch&) = delete;
    FetchWatch& operator=(const FetchWatch&) = delete;
    ~FetchWatch() { eventfd_write(done_.get(), 1); }
    const std::atomic<bool>* stop() const { return &stop_; }
    // An error of the work, as the one who waits has to see it: a store that hangs says nothing against the image.
    Error explain(const Error& error) const {
        if (stop_ && steady_clock::now() < end_) return {Errc::busy, "the job was ended"};
        if (stop_) return {Errc::unavailable, "its image did not come from the store in time (node.restore_timeout)"};
        return {error.code == Errc::timeout ? Errc::unavailable : error.code, error.text};
    }

   private:
    void watch(int socket) {
        for (;;) {
            const auto left = std::chrono::ceil<std::chrono::milliseconds>(end_ - steady_clock::now()).count();
            pollfd items[2] = {{done_.get(), POLLIN, 0}, {socket, POLLRDHUP, 0}};
            const int ready = left > 0 ? poll(items, 2, static_cast<int>(left)) : 0;
            if (ready < 0 && errno == EINTR) continue;
            if (items[0].revents == 0) stop_ = true;
            return;
        }
    }
    const steady_clock::time_point end_;
    const UniqueFd done_;
    std::atomic<bool> stop_ = false;
    std::jthread thread_;  // last: it uses the rest
};

// The same files under another directory: no bytes are copied, and what the backend writes there is its own.
Result<> link_image(const std::string& from, const std::string& to) {
    SCKPT_TRY(make_directories(to, 0700));
    std::error_code error;
    for (std::filesystem::directory_iterator entry(from, error), end; !error && entry != end; entry.increment(error)) {
        const std::string name = entry->path().filename().string();
        if (kNotOfTheImage.contains(name)) continue;
        if (link((from + "/" + name).c_str(), (to + "/" + name).c_str()) != 0) return fail_errno("link " + from + "/" + name);
    }
    if (error) return fail_errno("list " + from, error.value());
    return {};
}

std::uint32_t milliseconds_since(steady_clock::time_point begin) {
    return static_cast<std::uint32_t>(std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now() - begin).count());
}

}  // namespace

// Asks until sckptctld answers, controller_wait at most.
Result<rpc::ResumeOrder> NodeAgent::ask(const rpc::Task& task, std::uint64_t& query) {
    std::unique_lock lock(mutex_);
    query = next_query_++;
    PendingResume& pending = resumes_[query];
    pending.task = task;
    const auto deadline = steady_clock::now() + std::chrono::seconds(config_.node.controller_wait_seconds);
    while (!pending.order && steady_clock::now() < deadline) {
        rpc::NodeMessage message;
        message.mutable_resume_query()->set_query(query);
        *message.mutable_resume_query()->mutable_task() = task;
        if (link_.connected()) link_.send(std::move(message));
        answered_.wait_for(lock, kAskAgain, [&] { return pending.order.has_value(); });
    }
    const std::optional<rpc::ResumeOrder> order = pending.order;
    resumes_.erase(query);
    if (order) return *order;
    return fail(Errc::unavailable,
                std::format("sckptctld at {}:{} did not answer for {} s, so it is not known which checkpoint the job goes on from",
                            config_.controller.host, config_.controller.port, config_.node.controller_wait_seconds));
}

Result<> NodeAgent::resume(const TaskPtr& task) {
    for (;;) {
        std::uint64_t query = 0;
        const auto order = ask(task->describe(), query);
        if (!order) {
            SCKPT_TRY(tell(*task, local::Kind::refused, order.error().text));
            return std::unexpected(order.error());
        }
        switch (order->action()) {
            case rpc::ResumeOrder::FROM_BEGINNING:
                if (!order->text().empty()) SCKPT_TRY(tell(*task, local::Kind::note, order->text()));
                return tell(*task, local::Kind::launch);
            case rpc::ResumeOrder::RESTORE: {
                const Result<> restored = restore(*task, *order);
                if (restored) return {};
                if (task->has_origin()) return refuse_restore(*task, restored.error());
                if (!task->is_script()) return listen(task);  // all of the job goes back to another checkpoint, and ends it
                continue;                                     // the next order is an older checkpoint, or the end
            }
            case rpc::ResumeOrder::EXITED: return end_likewise(*task, *order);
            default: SCKPT_TRY(tell(*task, local::Kind::refused, order->text())); return fail(Errc::denied, order->text());
        }
    }
}

// Whoever has started the step is told, and sckptctld ends the other tasks.
Result<> NodeAgent::refuse_restore(const SupervisedTask& task, const Error& why) {
    const auto text = std::format("task {} cannot be restored from checkpoint {} of job {}: {}", task.hello.task_id, task.hello.resume_from,
                                  task.hello.origin_job, why.text);
    SCKPT_TRY(tell(task, local::Kind::refused, text));
    return fail(Errc::not_found, text);
}

// This rank had ended before the checkpoint was made.
Result<> NodeAgent::end_likewise(const SupervisedTask& task, const rpc::ResumeOrder& order) {
    ended_.add(task.as_ended(order.wait_status()));
    local::Message message;
    message.kind = local::Kind::finish;
    message.wait_status = order.wait_status();
    SCKPT_TRY(send(task, message));
    rpc::NodeMessage started, ended;
    *started.mutable_task_started()->mutable_task() = sckpt::describe(task.as_ended(order.wait_status()));
    *ended.mutable_task_ended()->mutable_task() = started.task_started().task();
    link_.send(std::move(started));
    link_.send(std::move(ended));
    return fail(Errc::not_found, "the rank had ended");
}

// The image's files in a directory of this restore's own, verified: those of the fast tier, if it has them, else from the store.
Result<NodeAgent::Brought> NodeAgent::bring(const SupervisedTask& task, const rpc::ResumeOrder& order, const std::string& name) {
    const auto patience = std::chrono::seconds(config_.node.restore_timeout_seconds);
    const auto deadline = steady_clock::now() + patience;
    const FetchWatch watch(task.socket.get(), patience);
    if (order.store_id().empty()) return fail(Errc::unavailable, "sckptctld does not say from which store: it is of another version");
    StoreCall call;
    call.store = order.store_id();
    call.stop = watch.stop();
    StoreClient::Fetch fetch;
    fetch.manifest = {order.path(), order.digest()};
    fetch.checkpoint_row = static_cast<std::int64_t>(order.checkpoint_id());
    fetch.job_id = order.job_id();
    fetch.uid = task.uid;
    fetch.target = tier_->directory(name);
    fetch.threads = static_cast<int>(config_.drain.threads);
    const auto part = held(order.checkpoint_id());  // the image may have been dumped on another node, and others of the checkpoint here
    const bool is_here = part && std::ranges::contains(part->images, order.task(), [](const HeldImage& image) { return image.identity.task; });
    if (auto source = is_here ? tier_->read(part->fast_name()) : std::nullopt) {
        SCKPT_ASSIGN(FastTier::Reservation room, tier_->reserve(name, kRoomForLogs, deadline));
        const Result<bool> good = link_verified(source->directory() + "/" + order.task(), fetch, call);
        if (!good) return std::unexpected(watch.explain(good.error()));
        if (*good) return Brought{std::move(source), std::move(room)};
        source.reset();
        discard(order.checkpoint_id());
    }
    SCKPT_ASSIGN(FastTier::Reservation room, tier_->reserve(name, order.bytes() + kRoomForLogs, deadline));
    if (const auto fetched = store_.fetch(fetch, call); !fetched) return std::unexpected(watch.explain(fetched.error()));
    return Brought{std::nullopt, std::move(room)};
}

// False: the files of the fast tier are not those that were sealed.
Result<bool> NodeAgent::link_verified(const std::string& source, const StoreClient::Fetch& fetch, const StoreCall& call) const {
    SCKPT_TRY(link_image(source, fetch.target));
    const auto verified = store_.verify_local(fetch, call);
    if (verified) return true;
    if (verified.error().code != Errc::corrupt) return std::unexpected(verified.error());
    log_error("job {}: {} does not verify, the image is fetched from the store: {}", fetch.job_id, source, verified.error().text);
    return false;
}

// Tries again for as long as a restore may take: a store that fails for a moment must not cost the job a checkpoint. What is not said against
// the image itself is said against this node.
Result<NodeAgent::Brought> NodeAgent::bring_in_time(const SupervisedTask& task, const rpc::ResumeOrder& order, const std::string& name) {
    const auto deadline = steady_clock::now() + std::chrono::seconds(config_.node.restore_timeout_seconds);
    for (;;) {
        auto brought = bring(task, order, name);
        if (brought || brought.error().code == Errc::corrupt) return brought;
        const bool passes = brought.error().code == Errc::io || brought.error().code == Errc::unavailable;
        pollfd item{task.socket.get(), POLLRDHUP, 0};
        if (passes && steady_clock::now() + kBringAgain < deadline) {
            log_warning("{}: checkpoint {} is tried again: {}", task.shown(), order.number(), brought.error().text);
            if (poll(&item, 1, static_cast<int>(kBringAgain.count())) == 0) continue;
        }
        return fail(is_node_fault(brought.error().code) ? brought.error().code : Errc::unavailable, brought.error().text);
    }
}

// With what an earlier sckpt-run has given for this one, in memory that nobody changes any more.
Result<> NodeAgent::tell_restoring(const SupervisedTask& task, const rpc::ResumeOrder& order, const std::string& image) {
    SCKPT_ASSIGN(const std::string state, read_file(image + "/" + kRunStateName, kMaxRunState));
    const UniqueFd memory(memfd_create(kRunStateName, MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!memory) return fail_errno("make a file in memory");
    SCKPT_TRY(write_all(memory.get(), state));
    if (fcntl(memory.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0 || lseek(memory.get(), 0, SEEK_SET) != 0)
        return fail_errno("seal a file in memory");
    local::Message message;
    message.kind = local::Kind::restoring;
    message.resume_from = order.number();
    return send(task, message, &memory);
}

Result<> NodeAgent::attempt(const SupervisedTask& task, const rpc::ResumeOrder& order, const std::string& name) {
    const auto begin = steady_clock::now();
    if (order.uid() != task.uid)
        return fail(Errc::denied, std::format("the checkpoint belongs to uid {}, the task to {}", order.uid(), task.uid));
    if (order.job_id() != (task.has_origin() ? task.hello.origin_job : task.hello.job_id))
        return fail(Errc::denied, std::format("sckptctld names an image of job {}, which is not what was asked for", order.job_id()));
    if (!probe_.usable) return fail(Errc::unsupported, std::format("this node cannot restore: {}", probe_.reason));
    if (order.task() != kBatchTask && !parse_task_name(order.task())) return fail(Errc::invalid, "sckptctld names an image that cannot be");
    SCKPT_ASSIGN(const Brought image, bring_in_time(task, order, name));
    log_info("{}: checkpoint {} is here and verified after {} ms", task.shown(), order.number(), milliseconds_since(begin));
    SCKPT_TRY(tell_restoring(task, order, image.room.directory()));
    RestoreRequest request;
    request.directory = image.room.directory();
    request.supervisor = task.supervisor;
    request.uid = task.uid;
    for (int i = 0; i < 3; ++i) request.stdio[i] = task.stdio[i].get();
    request.status = task.status.get();
    request.deadline = std::chrono::seconds(config_.node.restore_timeout_seconds);
    Result<> restored = backend_->restore(request);
    // Every byte was verified: an image that the backend cannot read is none to be put aside.
    if (!restored && restored.error().code == Errc::corrupt) restored.error().code = Errc::io;
    if (!restored)
        restored.error().text +=
            keep_log(request.directory, "restore.log", std::format("job-{}-ckpt-{}{}.restore.log", task.hello.job_id, order.number(),
                                                                          task.is_script() ? "" : "-" + order.task()));
    return restored;
}

// One attempt. Its outcome goes to sckptctld; no error when the task runs again, or has ended meanwhile.
Result<> NodeAgent::restore(const SupervisedTask& task, const rpc::ResumeOrder& order) {
    const auto begin = steady_clock::now();
    Result<> result = attempt(task, order, std::format("restore-{}-{}", task.hello.job_id, order.query()));
    const LastWord word = result ? LastWord::none : last_word(task);
    if (word == LastWord::started) result = {};
    if (word == LastWord::gone) {
        log_info("{} was ended during its restore from checkpoint {}", task.shown(), order.number());
        return {};
    }
    rpc::NodeMessage message;
    rpc::RestoreDone& done = *message.mutable_restore_done();
    done.set_query(order.query());
    done.set_checkpoint_id(order.checkpoint_id());
    done.set_digest(order.digest());
    done.set_ok(result.has_value());
    done.set_restore_ms(milliseconds_since(begin));
    done.set_restart_count(task.hello.restart_count);
    done.set_task(task.name());
    if (task.has_origin()) *done.mutable_of() = task.describe();
    if (!result) {
        done.set_error(result.error().text);
        done.set_image_bad(result.error().code == Errc::corrupt);
        done.set_node_fault(is_node_fault(result.error().code));
        log_warning("restore of {} from checkpoint {}: {}", task.shown(), order.number(), done.error());
    } else {
        log_info("{} goes on from checkpoint {} after {} ms", task.shown(), order.number(), done.restore_ms());
    }
    link_.send(std::move(message));
    return result;
}

}  // namespace sckpt
