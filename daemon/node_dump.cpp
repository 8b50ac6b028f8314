// SPDX-License-Identifier: GPL-3.0-or-later
//
// A checkpoint on its node, while it is made: orders come, room is made in the fast tier, the backend dumps trees into it, sckptctld says that the
// checkpoint is captured, and what was dumped is held (node_held.cpp). The batch script is dumped at once when none of its steps is live; else it is
// held back until their tasks are frozen, and dumped then.
#include <algorithm>
#include <ctime>
#include <filesystem>
#include <format>

#include "common/log.h"
#include "daemon/background.h"
#include "daemon/dump_size.h"
#include "daemon/generation_limits.h"
#include "daemon/image_needs.h"
#include "daemon/messages.h"
#include "daemon/node_agent.h"
#include "daemon/quiet.h"
#include "daemon/run_state.h"
#include "daemon/slurm_api.h"
#include "rpc/task_name.h"

namespace sckpt {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr milliseconds kLook{500};       // at the connection, while sckptctld is waited for
constexpr milliseconds kFlushLimit{2000};
constexpr seconds kSrunPatience{5};      // an srun that has just been started becomes a stub
constexpr milliseconds kSrunLook{200};

ImageIdentity identity_of(const rpc::DumpOrder& order, const rpc::ImageOrder& ordered) {
    ImageIdentity identity;
    identity.cluster = order.cluster();
    identity.user = order.user();
    identity.account = order.account();
    identity.task = ordered.task();
    identity.job_id = order.job_id();
    identity.uid = order.uid();
    identity.submit_time = order.submit_time();
    identity.restart_count = order.restart_count();
    identity.job_row = order.job_row();
    identity.checkpoint_row = static_cast<std::int64_t>(order.checkpoint_id());
    identity.checkpoint = order.number();
    identity.created = std::time(nullptr);
    identity.interval_seconds = order.interval_seconds();
    identity.max_restarts = order.max_restarts();
    return identity;
}

rpc::NodeMessage dump_failed(const rpc::DumpOrder& order, const std::string& why) {
    log_warning("dump of job {}: {}", order.job_id(), why);
    rpc::NodeMessage message;
    message.mutable_dump_done()->set_checkpoint_id(order.checkpoint_id());
    message.mutable_dump_done()->set_error(why);
    message.mutable_dump_done()->set_script(order.script());
    return message;
}

rpc::NodeMessage script_dumped(const HeldImage& image, const std::string& note) {
    rpc::NodeMessage message;
    rpc::DumpDone& done = *message.mutable_dump_done();
    done.set_checkpoint_id(static_cast<std::uint64_t>(image.identity.checkpoint_row));
    done.set_ok(true);
    done.set_error(note);
    done.set_script(true);
    rpc::DumpedImage& dumped = *done.add_images();
    dumped.set_task(image.identity.task);
    dumped.set_bytes(image.bytes);
    dumped.set_frozen_ms(image.identity.frozen_ms);
    *dumped.mutable_files() = to_message(image.user_files);
    return message;
}

std::string log_name(const rpc::DumpOrder& order, const std::string& task) {
    return std::format("job-{}-ckpt-{}{}.dump.log", order.job_id(), order.number(), task == kBatchTask ? "" : "-" + task);
}

using Phase = RunState::Step::Phase;

rpc::NodeMessage steps_found(std::uint64_t checkpoint_id, const RunState& state) {
    rpc::NodeMessage message;
    message.mutable_steps_found()->set_checkpoint_id(checkpoint_id);
    for (const RunState::Step& step : state.steps) {
        if (step.phase != Phase::running) continue;
        rpc::StepState& found = *message.mutable_steps_found()->add_steps();
        found.set_key(step.key);
        found.set_step_id(step.step_id);
        found.set_tasks(step.tasks);
    }
    return message;
}

std::vector<pid_t> live_sruns(const RunState& state) {
    std::vector<pid_t> pids;
    for (const RunState::Step& step : state.steps)
        if (step.phase == Phase::running) pids.push_back(step.srun);
    return pids;
}

Result<> check_replayable(const RunState& state) {
    for (const RunState::Step& step : state.steps)
        if (step.unreplayable && step.phase != Phase::ended)
            return fail(Errc::unsupported, std::format("step {} has read more of its standard input than is kept for a restart; the job can be "
                                                       "checkpointed when that step has ended",
                                                       step.step_id));
    return {};
}

}  // namespace

// ---------------------------------------------------------------- orders

NodeAgent::PartPtr NodeAgent::part(std::uint64_t checkpoint_id) const {
    const std::lock_guard lock(mutex_);
    const auto found = parts_.find(checkpoint_id);
    return found == parts_.end() ? nullptr : found->second;
}

void NodeAgent::begin_dump(const rpc::DumpOrder& order) {
    PartPtr part;
    {
        const std::lock_guard lock(mutex_);
        if (held_.contains(order.checkpoint_id())) return;  // ordered twice
        PartPtr& entry = parts_[order.checkpoint_id()];
        if (!entry) entry = std::make_shared<NodePart>(order.checkpoint_id(), *tier_);
        part = entry;
        if (!part->begin(order)) return;
    }
    if (in_background([this, part, order] { work_on(part, order); })) return;
    lost(*part, order, {Errc::busy, "this node has no thread for it"});
    if (part->leave()) finish(part, order);
}

void NodeAgent::work_on(const PartPtr& part, const rpc::DumpOrder& order) {
    const Result<> done = [&]() -> Result<> {
        try {
            if (order.store_id().empty()) return fail(Errc::invalid, "sckptctld does not say into which store: it is of another version");
            return order.script() ? dump_script(*part, order) : dump_tasks(*part, order);
        } catch (const std::exception& e) {
            return fail(Errc::internal, e.what());
        }
    }();
    if (!done) lost(*part, order, done.error());
    if (part->leave()) finish(part, order);
}

void NodeAgent::lost(NodePart& part, const rpc::DumpOrder& order, const Error& why) {
    if (part.fail(why)) link_.send(dump_failed(order, why.text));
}

void NodeAgent::connection_lost() {
    stop_store_orders(std::nullopt);
    const std::lock_guard lock(mutex_);
    for (const auto& [id, part] : parts_) part->connection_lost();
}

// After the last piece of work.
void NodeAgent::finish(const PartPtr& part, const rpc::DumpOrder& order) {
    Result<std::optional<HeldPart>> outcome = part->outcome();
    const bool has_images = outcome && *outcome;
    if (has_images) {
        (*outcome)->needs = image_needs(probe_);
        if (const auto saved = save(**outcome); !saved) outcome = std::unexpected(saved.error());  // from here on it also outlives this sckptd
    }
    if (outcome && has_images) part->keep();
    else part->discard();
    {
        const std::lock_guard lock(mutex_);
        if (outcome && has_images) {
            const HeldPart& held = held_[part->id()] = std::move(**outcome);
            drains_->add(held.id(), held.bytes(), held.urgent);
        }
        parts_.erase(part->id());
        part_ended_.notify_all();  // a drop may have been waiting
    }
    if (outcome || !part->released()) return;
    log_warning("checkpoint {} of job {} is lost: {}", order.number(), order.job_id(), outcome.error().text);
    send_lost(part->id(), outcome.error().text);
}

void NodeAgent::release(const rpc::ReleaseOrder& order) {
    if (const PartPtr part = this->part(order.checkpoint_id())) return part->release(order);
    const std::lock_guard lock(mutex_);
    if (held_.contains(order.checkpoint_id())) return;
    send_lost(order.checkpoint_id(), "its node has let the frozen processes go on already, and dropped their images");
}

// Until sckptctld says so. Whoever waits holds up a job, and goes on without sckptctld when that is away for a while.
Result<> NodeAgent::await(NodePart& part, NodePart::Until until, steady_clock::time_point deadline) {
    auto heard = steady_clock::now();
    while (!part.wait(until, kLook)) {
        const auto now = steady_clock::now();
        if (link_.connected()) heard = now;
        if (now >= deadline || now - heard >= kFrozenGrace)
            return fail(Errc::timeout, "sckptctld did not say in time how the checkpoint goes on; the job runs on");
    }
    return part.wanted();
}

// ---------------------------------------------------------------- the batch script

Result<> NodeAgent::dump_script(NodePart& part, const rpc::DumpOrder& order) {
    if (order.images_size() != 1) return fail(Errc::invalid, "an order for a batch script that is not for one image");
    SCKPT_ASSIGN(const TaskPtr task, find_task(order, order.images(0)));
    if (!task) return fail(Errc::not_found, "its batch script does not run under sckpt on this node (any more)");
    if (!probe_.usable) return fail(Errc::unsupported, probe_.reason);
    const auto timeout = seconds(config_.node.dump_timeout_seconds);
    const auto deadline = steady_clock::now() + timeout;  // to begin with it
    SCKPT_TRY(wait_for_leftovers(deadline));
    const std::lock_guard one_at_a_time(task->dumping);
    SCKPT_ASSIGN(const std::uint64_t expected, expected_dump_bytes(task->root, order.images(0).last_bytes()));
    SCKPT_TRY(part.make_room(expected, deadline));
    SCKPT_TRY(part.wanted());
    SCKPT_ASSIGN(Hold held, hold({task}));
    SCKPT_ASSIGN(const RunState state, parse_run_state(state_of(*task)));
    SCKPT_TRY(check_replayable(state));
    const std::vector<pid_t> sruns = live_sruns(state);
    std::string note;
    if (!sruns.empty()) {
        link_.send(steps_found(part.id(), state));
        SCKPT_TRY(await(part, NodePart::Until::script_may_go, steady_clock::now() + dump_answer_limit(timeout) + kFrozenGrace));
        const auto wanted = [&] { return part.wanted().has_value(); };
        if (!wait_until_quiet({{}, sruns, Queue::receive}, kFlushLimit, wanted)) note = "srun had not yet taken in all output of its tasks";
        SCKPT_TRY(ask_states({task}));  // a step whose tasks had all ended may have ended since
    }
    const std::string text = state_of(*task);
    SCKPT_ASSIGN(const DumpReport report, dump_script_tree(part, order, *task, sruns));
    held.end();
    SCKPT_TRY(write_file_durable(part.directory(kBatchTask) + "/" + kRunStateName, text, 0600));
    SCKPT_ASSIGN(HeldImage image, describe(order, order.images(0), report));
    part.reported();
    link_.send(script_dumped(image, note));
    part.add(std::move(image));
    if (sruns.empty()) part.release_alone();
    return await(part, NodePart::Until::decided, steady_clock::now() + kFrozenGrace);
}

Result<DumpReport> NodeAgent::dump_script_tree(NodePart& part, const rpc::DumpOrder& order, const SupervisedTask& task,
                                               const std::vector<pid_t>& sruns) {
    TreeToDump tree{order, task, part.directory(kBatchTask), steady_clock::now() + seconds(config_.node.dump_timeout_seconds), sruns};
    const auto patience = steady_clock::now() + kSrunPatience;
    for (;;) {
        auto report = dump_tree(tree);
        if (report || report.error().code != Errc::busy || steady_clock::now() >= patience) return report;
        if (part.wait(NodePart::Until::decided, kSrunLook)) return report;
        SCKPT_TRY(remove_tree(tree.directory));
    }
}

// ---------------------------------------------------------------- one tree

Result<NodeAgent::TaskPtr> NodeAgent::find_task(const rpc::DumpOrder& order, const rpc::ImageOrder& ordered) const {
    const bool script = ordered.task() == kBatchTask;
    if (!script && ordered.task() != task_name(ordered.step_key(), ordered.task_id()))
        return fail(Errc::invalid, "an order for an image that is not named after its task");
    const std::lock_guard lock(mutex_);
    TaskPtr found;  // the newest, should an old one be on its way out
    for (const auto& [key, task] : tasks_)
        if (task->uid == order.uid() && task->hello.job_id == order.job_id() && task->name() == ordered.task()) found = task;
    return found;
}

Result<DumpReport> NodeAgent::dump_tree(const TreeToDump& tree, const FrozenFn& frozen) {
    SCKPT_TRY(make_directories(tree.directory, 0700));
    DumpRequest request;
    request.root = tree.task.root;
    request.supervisor = tree.task.supervisor;
    request.uid = tree.task.uid;
    request.directory = tree.directory;
    request.siblings = siblings_of(tree.task);
    request.helpers = tree.helpers;
    if (!dump_slots_.try_acquire_until(tree.deadline)) return fail(Errc::timeout, "other dumps of this node took all the time that there was");
    const auto give_back = [](std::counting_semaphore<>* slots) { slots->release(); };
    std::unique_ptr<std::counting_semaphore<>, decltype(give_back)> slot(&dump_slots_, give_back);
    if (frozen)
        request.frozen = [&](const std::vector<UserFile>& files, std::uint64_t bytes, const std::function<bool()>& holds) {
            slot.reset();  // it writes no more
            return frozen(files, bytes, holds);
        };
    request.deadline = std::max(milliseconds(1), std::chrono::ceil<milliseconds>(tree.deadline - steady_clock::now()));
    Result<DumpReport> report = backend_->dump(request);
    if (!report) report.error().text += keep_log(tree.directory, "dump.log", log_name(tree.order, tree.task.name()));
    return report;
}

// By what their users say of themselves: of one user and one job, so that nobody hides another one's stray processes.
std::vector<pid_t> NodeAgent::siblings_of(const SupervisedTask& task) const {
    const std::lock_guard lock(mutex_);
    std::vector<pid_t> pids;
    for (const auto& [key, other] : tasks_)
        if (other.get() != &task && other->uid == task.uid && other->hello.job_id == task.hello.job_id)
            pids.insert(pids.end(), {other->supervisor, other->root});
    return pids;
}

Result<HeldImage> NodeAgent::describe(const rpc::DumpOrder& order, const rpc::ImageOrder& ordered, const DumpReport& report) const {
    HeldImage image;
    image.identity = identity_of(order, ordered);
    SCKPT_ASSIGN(image.identity.node, slurm_local_node_name());
    image.identity.frozen_ms = static_cast<std::uint32_t>(report.frozen.count());
    image.user_files = report.files;
    image.name = std::format("ckpt-{}-{}", order.number(), ordered.task());
    image.base = {ordered.base().path(), ordered.base().digest()};
    image.bytes = report.bytes;
    return image;
}

// Copies a log of CRIU to where it stays after the image is gone (the fast tier is a file system of its own); answers where, for the user's
// message.
std::string NodeAgent::keep_log(const std::string& directory, const char* name, const std::string& as) const {
    const std::string logs = std::filesystem::path(config_.node.fast_tier).parent_path().string() + "/logs";
    const std::string target = logs + "/" + as;
    std::error_code error;
    if (!make_directories(logs, 0700)) return "";
    std::filesystem::copy_file(directory + "/" + name, target, std::filesystem::copy_options::overwrite_existing, error);
    if (error) return "";
    return std::format(" (log: {})", target);
}

}  // namespace sckpt
