// SPDX-License-Identifier: GPL-3.0-or-later
//
// Simulated nodes for tests/bench/fanout.py: fanout_nodes CONTROLLER-PORT NODE-PORTS JOB UID CLUSTER NODES ROUNDS PIDS
//
// Each node speaks sckptd's protocol over a connection of its own, runs one task of the job's one step (the first node its script too), and has
// every dump and drain done at once: what is left is what a checkpoint costs in messages. For each round one checkpoint is ordered as
// `sckpt create` does it; a line of JSON tells when what was reached, what was said, and what the processes of PIDS have spent meanwhile.
#include <grpcpp/grpcpp.h>
#include <unistd.h>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <format>
#include <fstream>
#include <memory>
#include <mutex>
#include <semaphore>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "rpc/channel.h"
#include "rpc/local.h"
#include "rpc/sckpt.grpc.pb.h"
#include "rpc/task_name.h"

namespace {

using namespace sckpt;
using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{300};
constexpr std::ptrdiff_t kAttaching = 200;  // nodes at once
constexpr const char* kStore = "00000000-0000-4000-8000-000000000000";

[[noreturn]] void give_up(const std::string& why) {
    std::fprintf(stderr, "fanout_nodes: %s\n", why.c_str());
    _exit(1);
}

// How many nodes have reached something in this round, and when the last one did.
class Count {
   public:
    void one() {
        const std::lock_guard lock(mutex_);
        ++count_;
        last_ = Clock::now();
        changed_.notify_all();
    }
    Clock::time_point wait(std::size_t all) {
        std::unique_lock lock(mutex_);
        if (!changed_.wait_for(lock, kPatience, [&] { return count_ >= all; })) give_up(std::format("{} of {} nodes have answered", count_, all));
        return last_;
    }

    void reset() {
        const std::lock_guard lock(mutex_);
        count_ = 0;
    }

   private:
    std::mutex mutex_;
    std::condition_variable changed_;
    std::size_t count_ = 0;
    Clock::time_point last_;
};

struct World {
    std::uint32_t job = 0, uid = 0, nodes = 0;
    std::string cluster;
    std::counting_semaphore<kAttaching> attaching{kAttaching};
    Count attached, released, stored;
    std::atomic<std::uint64_t> up = 0, down = 0;
};

rpc::Task task(const World& world, std::uint32_t step, std::uint32_t rank) {
    rpc::Task task;
    task.set_job_id(world.job);
    task.set_uid(world.uid);
    task.set_step_id(step);
    task.set_task_id(rank);
    task.set_max_restarts(-1);
    task.set_tasks(step == local::kBatchStep ? 1 : world.nodes);
    return task;
}

class Node final : public grpc::ClientBidiReactor<rpc::NodeMessage, rpc::ControllerMessage> {
   public:
    Node(World& world, std::uint32_t number, int port) : world_(world), number_(number) {
        grpc::ChannelArguments arguments;
        arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
        arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 60'000);  // all nodes share this machine's few cores
        arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
        arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
        arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
        arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
        stub_ = rpc::Node::NewStub(grpc::CreateCustomChannel(std::format("127.0.0.1:{}", port), grpc::InsecureChannelCredentials(), arguments));
        if (const auto added = rpc::add_credential(context_, "/sckpt.rpc.Node/Attach", nullptr); !added) give_up(added.error().text);
        rpc::NodeMessage message;
        rpc::NodeHello& hello = *message.mutable_hello();
        hello.set_name(std::format("f{:05}", number + 1));
        hello.set_version("simulated");
        hello.set_nonce("nonce");
        hello.mutable_info()->set_backend_usable(true);
        hello.mutable_info()->set_backend("simulated");
        hello.mutable_info()->set_store_id(kStore);
        hello.mutable_info()->set_store_cluster(world.cluster);
        if (number == 0) *hello.add_tasks() = task(world, local::kBatchStep, 0);
        *hello.add_tasks() = task(world, 0, number);
        context_.set_wait_for_ready(true);  // as sckptd, which dials until it is answered
        stub_->async()->Attach(&context_, this);
        say(std::move(message));
        StartRead(&received_);
        StartCall();
    }
    void OnReadDone(bool ok) override {
        if (!ok) return;  // OnDone tells why
        handle();
        StartRead(&received_);
    }
    void OnWriteDone(bool ok) override {
        const std::lock_guard lock(mutex_);
        queue_.pop_front();
        if (ok && !queue_.empty()) StartWrite(&queue_.front());
    }
    void OnDone(const grpc::Status& status) override { give_up(std::format("node {}: {}", number_ + 1, status.error_message())); }

   private:
    void say(rpc::NodeMessage message) {
        const std::lock_guard lock(mutex_);
        queue_.push_back(std::move(message));
        if (queue_.size() == 1) StartWrite(&queue_.front());
    }
    void answer(rpc::NodeMessage message) {
        ++world_.up;
        say(std::move(message));
    }
    void handle() {
        switch (received_.what_case()) {
            case rpc::ControllerMessage::kWelcome:
                world_.attaching.release();
                return world_.attached.one();
            case rpc::ControllerMessage::kStore: return store_order(received_.store());
            case rpc::ControllerMessage::kDump: ++world_.down; return dump(received_.dump());
            case rpc::ControllerMessage::kScript: ++world_.down; return dumped({kBatchTask}, true);
            case rpc::ControllerMessage::kRelease: ++world_.down; return release();
            case rpc::ControllerMessage::kGrant: ++world_.down; return store();
            case rpc::ControllerMessage::kStored:
                ++world_.down;
                images_.clear();
                return world_.stored.one();
            case rpc::ControllerMessage::kDrop: return images_.clear();
            default: return;
        }
    }
    void dump(const rpc::DumpOrder& order) {
        order_ = order;
        if (!order.script()) {
            std::vector<std::string> tasks;
            for (const auto& image : order.images()) tasks.push_back(image.task());
            return dumped(tasks, false);
        }
        rpc::NodeMessage message;
        message.mutable_steps_found()->set_checkpoint_id(order.checkpoint_id());
        message.mutable_steps_found()->add_steps()->set_tasks(world_.nodes);
        answer(std::move(message));
    }
    void dumped(const std::vector<std::string>& tasks, bool script) {
        rpc::NodeMessage message;
        rpc::DumpDone& done = *message.mutable_dump_done();
        done.set_checkpoint_id(order_.checkpoint_id());
        done.set_ok(true);
        done.set_script(script);
        for (const std::string& name : tasks) {
            rpc::DumpedImage& image = *done.add_images();
            image.set_task(name);
            image.set_bytes(1 << 20);
            images_.push_back(name);
        }
        answer(std::move(message));
    }
    void release() {
        world_.released.one();
        rpc::NodeMessage message;
        message.mutable_drain_request()->set_checkpoint_id(order_.checkpoint_id());
        message.mutable_drain_request()->set_bytes(1 << 20);
        answer(std::move(message));
    }
    void store() {
        rpc::NodeMessage message;
        rpc::StoreDone& done = *message.mutable_store_done();
        done.set_checkpoint_id(order_.checkpoint_id());
        done.set_ok(true);
        for (const std::string& name : images_) {
            rpc::StoredTask& image = *done.add_images();
            const std::string path = std::format("{}/ckpt-{}-{}-{:016x}", order_.directory(), order_.number(), name, number_);
            image.set_task(name);
            image.set_frozen_ms(1);
            image.mutable_image()->set_manifest(path + ".manifest");
            image.mutable_image()->set_digest(std::string(64, 'd'));
            image.mutable_image()->set_plain_bytes(1 << 20);
            image.mutable_image()->set_new_bytes(1 << 19);
            rpc::Pack& pack = *image.mutable_image()->add_packs();
            pack.set_path(path + ".pack");
            pack.set_bytes(1 << 19);
            pack.set_used(1 << 19);
        }
        answer(std::move(message));
    }
    // The collector's, beside the checkpoints: all is done that it asks for, in a store without files.
    void store_order(const rpc::StoreOrder& order) {
        rpc::NodeMessage message;
        message.mutable_store_reply()->set_order(order.order());
        message.mutable_store_reply()->set_done(true);
        message.mutable_store_reply()->set_ok(true);
        say(std::move(message));
    }

    World& world_;
    const std::uint32_t number_;
    std::unique_ptr<rpc::Node::Stub> stub_;
    grpc::ClientContext context_;
    rpc::ControllerMessage received_;
    rpc::DumpOrder order_;
    std::vector<std::string> images_;
    std::mutex mutex_;
    std::deque<rpc::NodeMessage> queue_;  // the first is on its way
};

double cpu_seconds(const std::string& pid) {
    std::ifstream file("/proc/" + pid + "/stat");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    std::istringstream fields(text.substr(std::min(text.rfind(')') + 2, text.size())));
    std::string skipped;
    for (int i = 0; i < 11; ++i) fields >> skipped;
    double user = 0, system = 0;
    fields >> user >> system;
    return (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

std::uint64_t peak_kib(const std::string& pid) {
    std::ifstream file("/proc/" + pid + "/status");
    for (std::string word; file >> word;)
        if (word == "VmHWM:") {
            std::uint64_t kib = 0;
            file >> kib;
            return kib;
        }
    return 0;
}

std::vector<std::string> words(const std::string& list) {
    std::vector<std::string> all;
    std::istringstream stream(list);
    for (std::string word; std::getline(stream, word, ',');) all.push_back(word);
    return all;
}

// One checkpoint, in milliseconds since it was ordered; why not, if there is none.
Result<std::string> round(World& world, rpc::Sckpt::Stub& commands, const std::vector<std::string>& pids) {
    std::vector<double> before;
    for (const std::string& pid : pids) before.push_back(cpu_seconds(pid));
    world.up = world.down = 0;
    world.released.reset();
    world.stored.reset();
    rpc::CreateRequest request;
    request.set_job_id(world.job);
    grpc::ClientContext context;
    if (const auto added = rpc::add_credential(context, "/sckpt.rpc.Sckpt/Create", &request); !added) give_up(added.error().text);
    const auto begin = Clock::now();
    const auto since = [&](Clock::time_point moment) { return std::chrono::duration<double, std::milli>(moment - begin).count(); };
    const auto stream = commands.Create(&context, request);
    double captured = 0, complete = 0;
    for (rpc::CreateProgress progress; stream->Read(&progress);) {
        if (captured == 0 && progress.phase() >= rpc::CreateProgress::CAPTURED) captured = since(Clock::now());
        if (progress.phase() == rpc::CreateProgress::COMPLETE) complete = since(Clock::now());
    }
    if (const auto status = stream->Finish(); !status.ok()) return std::unexpected(rpc::error_from_status(status));
    const double released = since(world.released.wait(world.nodes)), stored = since(world.stored.wait(world.nodes));
    std::string cpu, peak;
    for (std::size_t i = 0; i < pids.size(); ++i) {
        cpu += std::format("{}{:.2f}", i == 0 ? "" : ", ", cpu_seconds(pids[i]) - before[i]);
        peak += std::format("{}{}", i == 0 ? "" : ", ", peak_kib(pids[i]));
    }
    return std::format("{{\"captured\": {:.2f}, \"released\": {:.2f}, \"complete\": {:.2f}, \"stored\": {:.2f}, \"up\": {}, \"down\": {}, "
                       "\"cpu\": [{}], \"peak_kib\": [{}]}}",
                       captured, released, complete, stored, world.up.load(), world.down.load(), cpu, peak);
}

// The first one waits until sckptctld has learnt its store and all tasks; the others build on it, as in a job that has run for a while.
void rounds(World& world, rpc::Sckpt::Stub& commands, const std::vector<std::string>& pids, std::uint32_t count) {
    const auto deadline = Clock::now() + kPatience;
    for (auto first = round(world, commands, pids); !first; first = round(world, commands, pids)) {
        if (Clock::now() > deadline) give_up("no checkpoint is made: " + first.error().text);
        std::this_thread::sleep_for(std::chrono::milliseconds(500));
    }
    for (std::uint32_t i = 0; i < count; ++i) {
        const auto line = round(world, commands, pids);
        if (!line) give_up("a checkpoint was not made: " + line.error().text);
        std::printf("%s\n", line->c_str());
        std::fflush(stdout);
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 9) return 2;
    const auto number = [&](int i) { return static_cast<std::uint32_t>(std::strtoul(argv[i], nullptr, 10)); };
    World world;
    world.job = number(3);
    world.uid = number(4);
    world.cluster = argv[5];
    world.nodes = number(6);
    const std::vector<std::string> ports = words(argv[2]), pids = words(argv[8]);
    const auto begin = Clock::now();
    std::vector<std::unique_ptr<Node>> nodes;
    for (std::uint32_t i = 0; i < world.nodes; ++i) {
        world.attaching.acquire();
        nodes.push_back(std::make_unique<Node>(world, i, std::atoi(ports[i % ports.size()].c_str())));
    }
    const auto attached = world.attached.wait(world.nodes);
    std::printf("{\"attached\": %.2f, \"peak_kib\": [%llu]}\n", std::chrono::duration<double, std::milli>(attached - begin).count(),
                static_cast<unsigned long long>(peak_kib(pids.front())));
    std::fflush(stdout);
    const auto channel = rpc::make_channel("127.0.0.1", static_cast<int>(number(1)));
    if (!channel) give_up(channel.error().text);
    const auto commands = rpc::Sckpt::NewStub(*channel);
    rounds(world, *commands, pids, number(7));
    _exit(0);  // ten thousand streams are not taken leave of one by one
}
