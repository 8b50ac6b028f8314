// SPDX-License-Identifier: GPL-3.0-or-later
//
// How a restarted task comes back: sckptctld says from what, the image is fetched and verified, the backend restores it.
// Runs in the thread of the task's supervisor. A start from the beginning happens only when sckptctld says that there is nothing
// else, and is said to the user.
#include <poll.h>
#include <sys/socket.h>
#include <chrono>
#include <format>

#include "common/log.h"
#include "daemon/node_agent.h"

namespace sckpt {
namespace {

using std::chrono::steady_clock;

constexpr std::chrono::seconds kAskAgain{2};

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

Result<> NodeAgent::resume(const std::shared_ptr<SupervisedTask>& task) {
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
            case rpc::ResumeOrder::RESTORE:
                if (restore(*task, *order)) return {};
                continue;  // the next order is an older checkpoint, or the end
            default: SCKPT_TRY(tell(*task, local::Kind::refused, order->text())); return fail(Errc::denied, order->text());
        }
    }
}

// One attempt. Its outcome goes to sckptctld; true when the task runs again, or has ended meanwhile.
bool NodeAgent::restore(const SupervisedTask& task, const rpc::ResumeOrder& order) {
    const auto begin = steady_clock::now();
    const std::string directory = std::format("{}/restore-{}-{}", config_.node.fast_tier, task.hello.job_id, order.query());
    const auto attempt = [&]() -> Result<> {
        if (order.uid() != task.uid)
            return fail(Errc::denied, std::format("the checkpoint belongs to uid {}, the task to {}", order.uid(), task.uid));
        if (!probe_.usable) return fail(Errc::unsupported, std::format("this node cannot restore: {}", probe_.reason));
        SCKPT_TRY(tell(task, local::Kind::restoring));
        SCKPT_ASSIGN(const Store store, Store::open(config_.store.directory));
        SCKPT_TRY(store.get(order.path(), order.digest(), directory));
        log_info("job {}: checkpoint {} is here and verified after {} ms", task.hello.job_id, order.number(), milliseconds_since(begin));
        RestoreRequest request;
        request.directory = directory;
        request.supervisor = task.supervisor;
        request.uid = task.uid;
        for (int i = 0; i < 3; ++i) request.stdio[i] = task.stdio[i].get();
        request.status = task.status.get();
        request.deadline = std::chrono::seconds(config_.node.restore_timeout_seconds);
        return backend_->restore(request);
    };
    Result<> result = attempt();
    const LastWord word = result ? LastWord::none : last_word(task);
    if (word == LastWord::started) result = {};
    if (word == LastWord::gone) {
        log_info("job {} was ended during its restore from checkpoint {}", task.hello.job_id, order.number());
        if (auto removed = backend_->destroy(directory); !removed) log_warning("{}", removed.error().text);
        return true;
    }
    rpc::NodeMessage message;
    rpc::RestoreDone& done = *message.mutable_restore_done();
    done.set_query(order.query());
    done.set_checkpoint_id(order.checkpoint_id());
    done.set_ok(result.has_value());
    done.set_restore_ms(milliseconds_since(begin));
    if (!result) {
        const std::string log =
            keep_log(directory, "restore.log", std::format("job-{}-ckpt-{}.restore.log", task.hello.job_id, order.number()));
        done.set_error(result.error().text + log);
        done.set_image_bad(result.error().code == Errc::corrupt);
        done.set_node_fault(is_node_fault(result.error().code));
        log_warning("restore of job {} from checkpoint {}: {}", task.hello.job_id, order.number(), done.error());
    } else {
        log_info("job {} goes on from checkpoint {} after {} ms", task.hello.job_id, order.number(), done.restore_ms());
    }
    link_.send(std::move(message));
    if (auto removed = backend_->destroy(directory); !removed) log_warning("{}", removed.error().text);
    return result.has_value();
}

}  // namespace sckpt
