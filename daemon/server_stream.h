// SPDX-License-Identifier: GPL-3.0-or-later
//
// The answering side of one bidirectional stream, without a thread of its own: gRPC's few threads tell it what has happened, and it never
// keeps them waiting.
//
// - It reads one message when it is asked to, so that a sender who is faster than its messages are handled is held back by the network, not
//   by our memory.
// - It writes one message at a time, and asks for the next when that one is on its way.
// - over() comes exactly once, whoever ends it: the peer, the network, the server's shutdown, or end().
// gRPC does not call back from within the calls that start something (StartRead, StartWrite, Finish, TryCancel), so they are made under the mutex.
#pragma once

#include <grpcpp/grpcpp.h>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "common/log.h"

namespace sckpt {

template <class In, class Out>
class ServerStream : public std::enable_shared_from_this<ServerStream<In, Out>> {
   public:
    using Reactor = grpc::ServerBidiReactor<In, Out>;

    virtual ~ServerStream() = default;
    // Once: what the service's method returns to gRPC.
    Reactor* start(grpc::CallbackServerContext* context) {
        const std::lock_guard lock(mutex_);
        context_ = context;
        bridge_ = new Bridge(this->shared_from_this());  // deletes itself in OnDone
        return bridge_;
    }
    // The peer gets this status, after what is being written. Later calls do nothing.
    void end(grpc::Status status) { close(std::move(status), false); }
    // The same at once: for a peer that does not read what it is sent.
    void cut(grpc::Status status) { close(std::move(status), true); }

   protected:
    // Both are called by gRPC's threads, without the mutex: they must not block.
    virtual void received(In message) = 0;  // the answer to read()
    virtual void over() = 0;
    // Fills in what is to be written next; false: nothing for now. With the mutex held.
    virtual bool next(Out& message) = 0;

    void read() {
        const std::lock_guard lock(mutex_);
        if (bridge_ != nullptr && !ending_) bridge_->StartRead(&in_);
    }
    // With the mutex held: next() may have something.
    void pump() {
        if (bridge_ == nullptr || ending_ || writing_ || !next(out_)) return;
        writing_ = true;
        bridge_->StartWrite(&out_);
    }
    bool is_ending() const { return ending_.has_value(); }  // with the mutex held

    std::mutex mutex_;

   private:
    class Bridge final : public Reactor {
       public:
        explicit Bridge(std::shared_ptr<ServerStream> stream) : stream_(std::move(stream)) {}
        void OnReadDone(bool ok) override { stream_->read_done(ok); }
        void OnWriteDone(bool ok) override { stream_->write_done(ok); }
        void OnCancel() override { stream_->end({grpc::StatusCode::CANCELLED, "the connection was lost"}); }
        void OnDone() override { delete this; }

       private:
        const std::shared_ptr<ServerStream> stream_;
    };

    void read_done(bool ok) {
        if (!ok) return end(grpc::Status::OK);
        guarded([this] { received(std::exchange(in_, In())); });
    }
    void write_done(bool ok) {
        {
            const std::lock_guard lock(mutex_);
            writing_ = false;
            if (ending_) return finish();
            if (ok) return pump();
        }
        end({grpc::StatusCode::CANCELLED, "the connection was lost"});
    }
    void close(grpc::Status status, bool at_once) {
        {
            const std::lock_guard lock(mutex_);
            if (ending_) return;
            ending_ = std::move(status);
            if (at_once && context_ != nullptr) context_->TryCancel();
            if (!writing_) finish();
        }
        guarded([this] { over(); });
    }
    // With the mutex held. From here on nobody uses the bridge, which goes when gRPC is done with it.
    void finish() {
        context_ = nullptr;
        if (Bridge* const bridge = std::exchange(bridge_, nullptr)) bridge->Finish(*ending_);
    }
    template <class Body>
    void guarded(const Body& body) noexcept {
        try {
            body();
        } catch (const std::exception& e) {
            log_error("a stream failed: {}", e.what());
            const std::lock_guard lock(mutex_);
            if (context_ != nullptr) context_->TryCancel();
        }
    }

    grpc::CallbackServerContext* context_ = nullptr;  // null, as the next, before the start and after the end
    Bridge* bridge_ = nullptr;
    In in_;  // gRPC's while it reads
    Out out_;  // gRPC's while it writes
    bool writing_ = false;
    std::optional<grpc::Status> ending_;
};

}  // namespace sckpt
