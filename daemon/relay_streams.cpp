// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/relay_streams.h"

#include <grpcpp/alarm.h>
#include <atomic>
#include <deque>
#include <exception>
#include <map>

#include "rpc/server_auth.h"
#include "rpc/status.h"
#include "rpc/text.h"

namespace sckpt {
namespace {

class RelayStream;

// One node behind the relay.
class Link final : public NodeOutbox {
   public:
    Link(std::weak_ptr<RelayStream> stream, std::uint64_t number, std::shared_ptr<Workers::Strand> its_strand)
        : strand(std::move(its_strand)), stream_(std::move(stream)), number_(number) {}
    void push(rpc::ControllerMessage message) override;
    void refuse(const Error& error) override;

    const std::shared_ptr<Workers::Strand> strand;
    std::string name;  // once it is attached; of the strand

   private:
    const std::weak_ptr<RelayStream> stream_;
    const std::uint64_t number_;
};

class RelayStream final : public RelayStreams::Stream {
   public:
    RelayStream(NodeDesk& desk, Workers& workers, const RelayStreams::Limits& limits, std::string peer)
        : desk_(desk), workers_(workers), limits_(limits), strand_(workers.strand()), peer_(std::move(peer)) {}

    void begin(Result<std::string> credential) {
        work(strand_, Lane::slow, [this, credential = std::move(credential)] {
            if (!credential) return end(rpc::status_from_error(credential.error()));
            if (const auto admitted = desk_.admit_relay(*credential, peer_); !admitted) {
                log_warning("refused: {}", admitted.error().text);
                return end(rpc::status_from_error(admitted.error()));
            }
            hello_limit_.Set(std::chrono::system_clock::now() + limits_.hello, [stream = weak_from_this()](bool expired) {
                if (!expired) return;
                if (const auto kept = stream.lock()) kept->end({grpc::StatusCode::DEADLINE_EXCEEDED, "a relay says hello first, and soon"});
            });
            read();
        });
    }

    // The same for many nodes, one after the other, is said once.
    void push(std::uint64_t link, rpc::RelayedOrder order) {
        rpc::make_utf8(order);
        std::string bytes = order.SerializeAsString();
        {
            const std::lock_guard lock(mutex_);
            if (is_ending()) return;
            if (queued_ + bytes.size() <= limits_.queued_bytes) {
                if (queue_.empty() || queue_.back().bytes != bytes) {
                    queued_ += bytes.size();
                    queue_.push_back({std::move(bytes), std::move(order)});
                }
                queue_.back().order.add_links(link);
                return pump();
            }
        }
        log_warning("the relay at {} does not read what it is sent: the connection is cut", peer_);
        work(strand_, Lane::quick, [this] { cut({grpc::StatusCode::RESOURCE_EXHAUSTED, "the orders are not read"}); });
    }

   private:
    struct Queued {
        std::string bytes;  // without the links
        rpc::RelayedOrder order;
    };

    void received(rpc::RelayUp message) override {
        work(strand_, welcomed_ ? Lane::quick : Lane::slow, [this, message = std::move(message)]() mutable {
            if (!welcomed_) return hello(message);
            for (rpc::RelayedMessage& one : *message.mutable_messages()) take(one);
            may_read_ = true;
            read_if_possible();
        });
    }
    void over() override {
        work(strand_, Lane::quick, [this] {
            hello_limit_.Cancel();
            if (welcomed_) log_warning("the relay at {} is lost, with {} nodes", peer_, links_.size());
            for (const auto& [number, link] : links_) leave(link);
            links_.clear();
        });
    }
    bool next(rpc::RelayDown& message) override {
        message.Clear();
        if (!proof_.empty()) {
            message.mutable_welcome()->set_credential(std::exchange(proof_, {}));
            return true;
        }
        for (std::size_t bytes = 0; !queue_.empty() && bytes < kRelayPack; queue_.pop_front()) {
            bytes += queue_.front().bytes.size();
            queued_ -= queue_.front().bytes.size();
            *message.add_orders() = std::move(queue_.front().order);
        }
        return message.orders_size() != 0;
    }

    // ---- of the strand
    void hello(const rpc::RelayUp& message) {
        hello_limit_.Cancel();
        if (!message.has_hello()) return end({grpc::StatusCode::INVALID_ARGUMENT, "a relay says hello first"});
        auto proof = desk_.prove(message.hello().nonce());
        if (!proof) return end(rpc::status_from_error(proof.error()));
        log_info("the relay at {} is connected: sckptctld {}", peer_, message.hello().version());
        welcomed_ = true;
        {
            const std::lock_guard lock(mutex_);
            proof_ = std::move(*proof);
            pump();
        }
        read();
    }
    void take(rpc::RelayedMessage& message) {
        const auto found = links_.find(message.link());
        if (message.said().has_hello()) {
            if (found == links_.end()) join(message);
        } else if (found == links_.end()) {
            return;  // of a link that has ended, or of before the relay had lost us
        } else if (message.gone()) {
            leave(found->second);
            links_.erase(found);
        } else {
            const Lane lane = desk_.may_wait(message.said()) ? Lane::slow : Lane::quick;
            counted(lane, found->second, [this, link = found->second, said = std::move(*message.mutable_said())] {
                if (!link->name.empty()) desk_.handle(link->name, link, said);
            });
        }
    }
    void join(rpc::RelayedMessage& message) {
        const auto self = std::static_pointer_cast<RelayStream>(shared_from_this());
        const auto link = std::make_shared<Link>(self, message.link(), workers_.strand());
        links_.emplace(message.link(), link);
        counted(Lane::slow, link, [this, link, hello = std::move(*message.mutable_said()->mutable_hello())] {
            Result<> attached;
            if (hello.name().empty()) attached = fail(Errc::invalid, "a node says its name");
            else attached = desk_.attach(hello, link);
            if (attached) link->name = hello.name();
            else link->refuse(attached.error());
        });
    }
    void leave(const std::shared_ptr<Link>& link) {
        counted(Lane::quick, link, [this, link] {
            if (!link->name.empty()) desk_.detach(link->name, link);
        });
    }

    // ---- messages that are not handled yet: none is read while there are too many
    template <class Body>
    void counted(Lane lane, const std::shared_ptr<Link>& link, Body body) {
        ++pending_;
        work(link->strand, lane, [this, body = std::move(body)] {
            const Done done{this};
            body();
        });
    }
    struct Done {
        RelayStream* stream;
        ~Done() {
            --stream->pending_;
            stream->read_if_possible();
        }
    };
    void read_if_possible() {
        if (pending_ < limits_.pending && may_read_.exchange(false)) read();
    }

    template <class Body>
    void work(const std::shared_ptr<Workers::Strand>& strand, Lane lane, Body body) {
        strand->post(lane, [kept = shared_from_this(), this, body = std::move(body)]() mutable {
            try {
                body();
            } catch (const std::exception& e) {
                log_error("the relay at {}: {}", peer_, e.what());
                end({grpc::StatusCode::INTERNAL, "sckptctld ran out of a resource; its log tells more"});
            }
        });
    }

    NodeDesk& desk_;
    Workers& workers_;
    const RelayStreams::Limits limits_;
    const std::shared_ptr<Workers::Strand> strand_;
    const std::string peer_;
    grpc::Alarm hello_limit_;                                // of the strand, as the next
    std::map<std::uint64_t, std::shared_ptr<Link>> links_;   // by number
    std::atomic<bool> welcomed_ = false;
    std::atomic<bool> may_read_ = false;                     // the last batch is taken in, and the next is not asked for
    std::atomic<std::size_t> pending_ = 0;
    std::string proof_;                                      // under the stream's mutex, as the rest
    std::deque<Queued> queue_;
    std::size_t queued_ = 0;  // bytes
};

void Link::push(rpc::ControllerMessage message) {
    const auto stream = stream_.lock();
    if (!stream) return;
    rpc::RelayedOrder order;
    *order.mutable_order() = std::move(message);
    stream->push(number_, std::move(order));
}

void Link::refuse(const Error& error) {
    const auto stream = stream_.lock();
    if (!stream) return;
    log_warning("refused: {}", error.text);
    const grpc::Status status = rpc::status_from_error(error);
    rpc::RelayedOrder order;
    order.mutable_refused()->set_code(static_cast<std::uint32_t>(status.error_code()));
    order.mutable_refused()->set_text(status.error_message());
    order.mutable_refused()->set_kind(status.error_details());
    stream->push(number_, std::move(order));
}

}  // namespace

RelayStreams::Stream::Reactor* RelayStreams::attach(grpc::CallbackServerContext* context) {
    const auto stream = std::make_shared<RelayStream>(desk_, workers_, limits_, context->peer());
    Stream::Reactor* const reactor = stream->start(context);
    stream->begin(rpc::credential_of(*context));
    return reactor;
}

}  // namespace sckpt
