// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/node_agent.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <format>
#include <thread>

#include "common/bytes.h"
#include "common/log.h"
#include "daemon/background.h"
#include "daemon/idle_group.h"

namespace sckpt {
namespace {

constexpr std::ptrdiff_t kMaxStreams = 4096;

std::ptrdiff_t dump_streams(const Config& config) {
    const auto wanted = config.node.dump_streams != 0 ? config.node.dump_streams : static_cast<std::int64_t>(std::thread::hardware_concurrency());
    return std::clamp<std::ptrdiff_t>(wanted, 1, kMaxStreams);
}

std::string ended_file(const Config& config) { return std::filesystem::path(config.node.socket).replace_filename("ended-tasks").string(); }

std::uint64_t random_start() { return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()); }

rpc::Drain drain_message(const DrainState& state) {
    rpc::Drain drain;
    switch (state.phase) {
        case DrainState::Phase::queued: drain.set_phase(rpc::Drain::QUEUED); break;
        case DrainState::Phase::copying: drain.set_phase(rpc::Drain::COPYING); break;
        case DrainState::Phase::waiting: drain.set_phase(rpc::Drain::WAITING); break;
    }
    drain.set_bytes_done(state.done);
    drain.set_bytes_written(state.written);
    drain.set_bytes_total(state.total);
    drain.set_bytes_per_second(state.rate);
    drain.set_urgent(state.urgent);
    drain.set_text(state.text);
    return drain;
}

}  // namespace

NodeAgent::NodeAgent(Config config, std::unique_ptr<Backend> backend)
    : config_(std::move(config)),
      backend_(std::move(backend)),
      store_(config_),
      link_(config_,
            {[this] { return hello(); }, [this] { reconnected(); }, [this](const auto& message) { received(message); },
             [this] { connection_lost(); }}),
      ended_(ended_file(config_)),
      dump_slots_(dump_streams(config_)),
      next_query_(random_start()) {}

Result<> NodeAgent::start() {
    SCKPT_ASSIGN(const MountedTier mounted, mount_fast_tier(config_.node.fast_tier, config_.node.fast_tier_bytes));
    log_info("fast tier {}: {}", config_.node.fast_tier, format_bytes(mounted.bytes));
    notes_ = mounted.notes;
    if (const auto group = open_idle_group(); !group && group.error().code != Errc::unsupported)
        notes_.push_back("drains may take CPU time that jobs need: " + group.error().text);
    for (const std::string& text : notes_) log_warning("{}", text);
    probe_ = backend_->probe();
    if (probe_.usable) log_info("backend {} {}", probe_.name, probe_.version);
    else log_error("no checkpoints on this node: {}", probe_.reason);
    for (const std::string& text : probe_.notes) log_info("backend: {}", text);
    tier_ = std::make_unique<FastTier>(config_.node.fast_tier, mounted.bytes,
                                       FastTier::Hooks{[this](const std::string& directory) { return backend_->destroy(directory); },
                                                       [this](const std::string& name) { evicted(name); }});
    drains_ = std::make_unique<DrainQueue>(DrainQueue::Limits{config_.drain.streams, config_.drain.bandwidth, config_.drain.urgent_streams},
                                           drain_hooks());
    recover();
    in_background([this] { watch_store(); });
    in_background([this] { watch_ended(); });
    link_.start();
    return {};
}

DrainQueue::Hooks NodeAgent::drain_hooks() {
    DrainQueue::Hooks hooks;
    hooks.drain = [this](std::uint64_t id, const StoreCall& call) { return drain(id, call); };
    hooks.ended = [this](std::uint64_t id, const Result<>& outcome) { drained(id, outcome); };
    hooks.report = [this](std::uint64_t id, const DrainState& state) {
        if (!link_.connected()) return;  // all is reported again at the next connection
        rpc::NodeMessage message;
        message.mutable_drain_progress()->set_checkpoint_id(id);
        *message.mutable_drain_progress()->mutable_drain() = drain_message(state);
        link_.send(std::move(message));
    };
    hooks.ask = [this](std::uint64_t id, std::uint64_t bytes, bool urgent) {
        rpc::NodeMessage message;
        message.mutable_drain_request()->set_checkpoint_id(id);
        message.mutable_drain_request()->set_bytes(bytes);
        message.mutable_drain_request()->set_urgent(urgent);
        link_.send(std::move(message));
    };
    hooks.connected = [this] { return link_.connected(); };
    return hooks;
}

// Whether the store can be used from here is asked for the administrator's eyes alone: every use of it finds out for itself.
void NodeAgent::watch_store() {
    constexpr std::chrono::seconds kWhenGood{600}, kWhenBad{30};
    for (;;) {
        const auto usable = store_.usable({});
        const std::string note = usable ? "store: usable" : "store: " + usable.error().text;
        bool is_new = false;
        {
            const std::lock_guard lock(mutex_);
            is_new = std::exchange(store_note_, note) != note || seen_store_.id != usable.value_or(StoreId()).id;
            seen_store_ = usable.value_or(StoreId());
        }
        if (is_new) {
            if (usable) log_info("{}", note);
            else log_error("{}", note);
            send_info();
        }
        std::this_thread::sleep_for(usable ? kWhenGood : kWhenBad);
    }
}

// ---------------------------------------------------------------- what sckptctld is told

rpc::NodeInfo NodeAgent::info() const {
    rpc::NodeInfo info;
    info.set_version(SCKPT_VERSION);
    info.set_backend_usable(probe_.usable);
    info.set_backend(probe_.name + " " + probe_.version);
    info.set_backend_reason(probe_.reason);
    for (const std::string& text : probe_.notes) info.add_backend_notes(text);
    for (const std::string& text : notes_) info.add_backend_notes(text);
    info.set_fast_tier_bytes(tier_->bytes());
    info.set_fast_tier_used(tier_->used());
    const std::lock_guard lock(mutex_);
    info.add_backend_notes(store_note_);
    info.set_store_id(seen_store_.id);
    info.set_store_cluster(seen_store_.cluster);
    info.set_tasks(static_cast<std::uint32_t>(tasks_.size()));
    return info;
}

void NodeAgent::send_info() {
    if (!link_.connected()) return;
    rpc::NodeMessage message;
    *message.mutable_info() = info();
    link_.send(std::move(message));
}

Result<rpc::NodeHello> NodeAgent::hello() {
    rpc::NodeHello hello;
    hello.set_version(SCKPT_VERSION);
    *hello.mutable_info() = info();
    const std::lock_guard lock(mutex_);
    for (const auto& [key, task] : tasks_) *hello.add_tasks() = task->describe();
    for (const TaskEnd& rank : ended_.all()) *hello.add_tasks() = sckpt::describe(rank);
    for (const auto& [id, part] : held_) {
        rpc::HeldImage& entry = *hello.add_images();
        entry.set_checkpoint_id(id);
        entry.set_job_id(part.identity().job_id);
        entry.set_stored(part.acknowledged);
        entry.set_bytes(part.bytes());
    }
    for (const auto& [id, part] : parts_) {
        rpc::HeldImage& entry = *hello.add_images();
        entry.set_checkpoint_id(id);
        entry.set_dumping(true);
    }
    return hello;
}

void NodeAgent::reconnected() {
    send_info();  // the store may have been seen since the hello was written, and sckptctld waits for that
    {
        const std::lock_guard lock(mutex_);
        for (const auto& [query, pending] : resumes_) {
            rpc::NodeMessage message;
            message.mutable_resume_query()->set_query(query);
            *message.mutable_resume_query()->mutable_task() = pending.task;
            link_.send(std::move(message));
        }
        for (const auto& [id, part] : held_)
            if (!part.acknowledged && (part.stored() || !part.given_up.empty())) send_store_done(part);
    }
    drains_->reconnected();
}

// ---------------------------------------------------------------- what sckptctld says

void NodeAgent::received(const rpc::ControllerMessage& message) {
    switch (message.what_case()) {
        case rpc::ControllerMessage::kDump: return begin_dump(message.dump());
        case rpc::ControllerMessage::kDrop: in_background([this, id = message.drop().checkpoint_id()] { drop(id); }); return;
        case rpc::ControllerMessage::kStored: in_background([this, id = message.stored().checkpoint_id()] { acknowledged(id); }); return;
        case rpc::ControllerMessage::kUrgent: in_background([this, id = message.urgent().checkpoint_id()] { make_urgent(id); }); return;
        case rpc::ControllerMessage::kStore: return begin_store_order(message.store());
        case rpc::ControllerMessage::kStopStore: return stop_store_orders(message.stop_store().order());
        case rpc::ControllerMessage::kGrant: return drains_->grant(message.grant().checkpoint_id(), message.grant().bytes_per_second());
        case rpc::ControllerMessage::kResume: {
            const std::lock_guard lock(mutex_);
            const auto pending = resumes_.find(message.resume().query());
            if (pending == resumes_.end()) return;
            pending->second.order = message.resume();
            answered_.notify_all();
            return;
        }
        case rpc::ControllerMessage::kScript:
            if (const PartPtr part = this->part(message.script().checkpoint_id())) part->script_may_go();
            return;
        case rpc::ControllerMessage::kRelease: return release(message.release());
        case rpc::ControllerMessage::kWelcome:
        case rpc::ControllerMessage::WHAT_NOT_SET: return;
    }
}

}  // namespace sckpt
