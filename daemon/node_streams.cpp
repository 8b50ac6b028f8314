// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/node_streams.h"

#include <grpcpp/alarm.h>
#include <deque>
#include <exception>

#include "rpc/server_auth.h"
#include "rpc/status.h"
#include "rpc/text.h"

namespace sckpt {
namespace {

class NodeStream final : public NodeStreams::Stream, public NodeOutbox {
   public:
    NodeStream(NodeDesk& desk, const NodeStreams::Limits& limits, std::shared_ptr<Workers::Strand> strand, std::string peer)
        : desk_(desk), limits_(limits), strand_(std::move(strand)), peer_(std::move(peer)) {}

    void begin(Result<std::string> credential) {
        work(Lane::slow, [this, credential = std::move(credential)] {
            if (!credential) return end(rpc::status_from_error(credential.error()));
            if (const auto admitted = desk_.admit(*credential); !admitted) return end(rpc::status_from_error(admitted.error()));
            hello_limit_.Set(std::chrono::system_clock::now() + limits_.hello, [stream = self()](bool expired) {
                if (!expired) return;
                if (const auto kept = stream.lock()) kept->end({grpc::StatusCode::DEADLINE_EXCEEDED, "a node says hello first, and soon"});
            });
            read();
        });
    }

    void push(rpc::ControllerMessage message) override {
        rpc::make_utf8(message);
        const std::size_t bytes = message.ByteSizeLong();
        {
            const std::lock_guard lock(mutex_);
            if (is_ending()) return;
            if (queued_ + bytes <= limits_.queued_bytes) {
                queued_ += bytes;
                queue_.push_back(std::move(message));
                return pump();
            }
        }
        log_warning("{} does not read what it is sent: the connection is cut", peer_);
        // Not from here: who pushes may hold what over() needs.
        work(Lane::quick, [this] { cut({grpc::StatusCode::RESOURCE_EXHAUSTED, "the orders are not read"}); });
    }

    void refuse(const Error& error) override { end(rpc::status_from_error(error)); }

   private:
    void received(rpc::NodeMessage message) override {
        const Lane lane = name_.empty() || desk_.may_wait(message) ? Lane::slow : Lane::quick;
        work(lane, [this, message = std::move(message)] {
            if (name_.empty()) hello(message);
            else desk_.handle(name_, outbox(), message);
            read();
        });
    }
    void over() override {
        work(Lane::quick, [this] {
            hello_limit_.Cancel();
            if (!name_.empty()) desk_.detach(name_, outbox());
        });
    }
    bool next(rpc::ControllerMessage& message) override {
        if (queue_.empty()) return false;
        message = std::move(queue_.front());
        queue_.pop_front();
        queued_ -= message.ByteSizeLong();
        return true;
    }

    void hello(const rpc::NodeMessage& message) {
        hello_limit_.Cancel();
        if (!message.has_hello() || message.hello().name().empty())
            return end({grpc::StatusCode::INVALID_ARGUMENT, "a node says hello first"});
        Result<> known = desk_.verify(message.hello().name(), peer_);
        if (known) known = desk_.attach(message.hello(), outbox());
        if (!known) {
            log_warning("refused: {}", known.error().text);
            return end(rpc::status_from_error(known.error()));
        }
        name_ = message.hello().name();
    }

    // An exception (out of memory, for one) ends the stream that met it, not the daemon.
    template <class Body>
    void work(Lane lane, Body body) {
        strand_->post(lane, [kept = shared_from_this(), this, body = std::move(body)] {
            try {
                body();
            } catch (const std::exception& e) {
                log_error("{}: {}", peer_, e.what());
                end({grpc::StatusCode::INTERNAL, "sckptctld ran out of a resource; its log tells more"});
            }
        });
    }
    std::shared_ptr<NodeOutbox> outbox() { return std::static_pointer_cast<NodeStream>(shared_from_this()); }
    std::weak_ptr<NodeStreams::Stream> self() { return weak_from_this(); }

    NodeDesk& desk_;
    const NodeStreams::Limits limits_;
    const std::shared_ptr<Workers::Strand> strand_;
    const std::string peer_;
    grpc::Alarm hello_limit_;  // of the strand, as the next
    std::string name_;                                                  // once it is attached
    std::deque<rpc::ControllerMessage> queue_;  // under the stream's mutex, as the next
    std::size_t queued_ = 0;                    // bytes
};

}  // namespace

NodeStreams::NodeStreams(NodeDesk& desk, const Limits& limits)
    : desk_(desk), limits_(limits), workers_(limits.quick_workers, limits.slow_workers) {}

NodeStreams::Stream::Reactor* NodeStreams::attach(grpc::CallbackServerContext* context) {
    const auto stream = std::make_shared<NodeStream>(desk_, limits_, workers_.strand(), context->peer());
    Stream::Reactor* const reactor = stream->start(context);
    stream->begin(rpc::credential_of(*context));
    return reactor;
}

}  // namespace sckpt
