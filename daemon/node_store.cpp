// SPDX-License-Identifier: GPL-3.0-or-later
//
// Work on the store that sckptctld orders: it has no access to the store itself. Each order is carried out in a thread of its own, as the
// service user; long answers go in several messages, and while there is nothing to tell, an empty one says that the work goes on. It ends
// when sckptctld has given up waiting for the answer, or is gone.
#include <atomic>
#include <chrono>
#include <format>

#include "common/log.h"
#include "daemon/background.h"
#include "daemon/deadline.h"
#include "daemon/messages.h"
#include "daemon/node_agent.h"
#include "rpc/channel.h"
#include "rpc/sckpt.grpc.pb.h"

namespace sckpt {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kReplyBytes = 1u << 20;  // of one message; gRPC takes no more than 4 MiB
constexpr std::chrono::seconds kSignOfLife{5};
constexpr std::chrono::seconds kPiecePatience{120};  // for the next piece of a backup

std::vector<std::string> strings(const google::protobuf::RepeatedPtrField<std::string>& field) { return {field.begin(), field.end()}; }

std::vector<ManifestName> names(const google::protobuf::RepeatedPtrField<rpc::ManifestRef>& field) {
    std::vector<ManifestName> names;
    for (const rpc::ManifestRef& manifest : field) names.push_back({manifest.path(), manifest.digest()});
    return names;
}

}  // namespace

// The parts of one answer: what is added is sent as soon as it is enough for a message.
class NodeAgent::StoreAnswer {
   public:
    StoreAnswer(ControllerLink& link, std::uint64_t order) : link_(link), order_(order) {}

    rpc::StoreReply& part() { return part_; }
    void added(std::size_t bytes) {
        bytes_ += bytes;
        if (bytes_ >= kReplyBytes) flush();
    }
    void alive() {
        if (steady_clock::now() - last_ >= kSignOfLife) flush();
    }
    void end(const Result<>& outcome) {
        part_.set_done(true);
        part_.set_ok(outcome.has_value());
        if (!outcome) part_.set_error(outcome.error().text);
        if (!outcome) part_.set_away(outcome.error().code == Errc::unavailable || outcome.error().code == Errc::denied);
        flush();
    }

   private:
    void flush() {
        rpc::NodeMessage message;
        part_.set_order(order_);
        message.mutable_store_reply()->Swap(&part_);
        part_.Clear();
        bytes_ = 0;
        last_ = steady_clock::now();
        link_.send(std::move(message));
    }
    ControllerLink& link_;
    const std::uint64_t order_;
    rpc::StoreReply part_;
    std::size_t bytes_ = 0;
    steady_clock::time_point last_ = steady_clock::now();
};

void NodeAgent::begin_store_order(const rpc::StoreOrder& order) {
    const auto stop = std::make_shared<std::atomic<bool>>(false);
    {
        const std::lock_guard lock(mutex_);
        store_orders_[order.order()] = stop;
    }
    const bool begun = in_background([this, order, stop] {
        store_order(order, *stop);
        const std::lock_guard lock(mutex_);
        store_orders_.erase(order.order());
    });
    if (begun) return;
    StoreAnswer(link_, order.order()).end(fail(Errc::unavailable, "this node has no thread for it"));
    const std::lock_guard lock(mutex_);
    store_orders_.erase(order.order());
}

void NodeAgent::stop_store_orders(std::optional<std::uint64_t> order) {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, stop] : store_orders_)
        if (!order || id == *order) *stop = true;
}

void NodeAgent::store_order(const rpc::StoreOrder& order, const std::atomic<bool>& stop) {
    StoreAnswer answer(link_, order.order());
    const Result<> outcome = carry_out(order, answer, stop);
    if (!outcome) log_warning("an order about the store: {}", outcome.error().text);
    answer.end(outcome);
}

Result<> NodeAgent::carry_out(const rpc::StoreOrder& order, StoreAnswer& answer, const std::atomic<bool>& stop) {
    if (order.store_id().empty()) return fail(Errc::unavailable, "sckptctld has not seen the cluster's store yet: `sckpt status` tells more");
    StoreCall call;
    call.store = order.store_id();
    call.stop = &stop;
    call.alive = [&answer] { answer.alive(); };
    call.idle = true;
    switch (order.what_case()) {
        case rpc::StoreOrder::kRemove: return remove_files(order.remove(), answer, call);
        case rpc::StoreOrder::kQuarantine: return store_.quarantine(strings(order.quarantine().paths()), call);
        case rpc::StoreOrder::kScan: return scan_store(order.scan(), answer, call);
        case rpc::StoreOrder::kCheck: return check_store(order.check(), answer, call);
        case rpc::StoreOrder::kCompact: return compact_store(order.compact(), answer, call);
        case rpc::StoreOrder::kBackup: return backup_catalogue(order, call);
        case rpc::StoreOrder::WHAT_NOT_SET: break;
    }
    return fail(Errc::unsupported, "this sckptd does not know the order: sckptctld is of another version");
}

Result<> NodeAgent::remove_files(const rpc::RemoveFiles& order, StoreAnswer& answer, const StoreCall& call) {
    SCKPT_ASSIGN(const std::vector<Store::Unremoved> unremoved, store_.remove(strings(order.paths()), call));
    for (const Store::Unremoved& file : unremoved) {
        rpc::UnremovedFile& out = *answer.part().add_unremoved();
        out.set_path(file.path);
        out.set_why(file.why);
        answer.added(out.ByteSizeLong());
    }
    return {};
}

Result<> NodeAgent::scan_store(const rpc::Scan& order, StoreAnswer& answer, const StoreCall& call) {
    SCKPT_ASSIGN(const StoreClient::Scan scan, store_.scan(order.images(), call));
    for (const Store::Listed& listed : scan.files) {
        rpc::StoreFile& file = *answer.part().add_files();
        file.set_path(listed.path);
        file.set_bytes(listed.bytes);
        file.set_modified(listed.modified);
        answer.added(file.ByteSizeLong());
    }
    for (const StoreClient::Found& found : scan.images) {
        rpc::FoundImage& image = *answer.part().add_images();
        *image.mutable_image() = to_message(found.image);
        image.set_job_id(found.identity.job_id);
        image.set_checkpoint_id(static_cast<std::uint64_t>(found.identity.checkpoint_row));
        image.set_head(found.head);
        image.set_task(found.identity.task);
        answer.added(image.ByteSizeLong());
    }
    for (const std::string& text : scan.unusable) {
        answer.part().add_unusable(text);
        answer.added(text.size());
    }
    for (const Store::Unreadable& unreadable : scan.unreadable) {
        rpc::Unreadable& out = *answer.part().add_unreadable();
        out.set_path(unreadable.path);
        out.set_why(unreadable.why);
        answer.added(out.ByteSizeLong());
    }
    answer.part().set_store_total(scan.space.total);
    answer.part().set_store_free(scan.space.free);
    return {};
}

Result<> NodeAgent::check_store(const rpc::Check& order, StoreAnswer& answer, const StoreCall& call) {
    const std::vector<ManifestName> manifests = names(order.manifests());
    const int threads = static_cast<int>(config_.drain.threads);
    SCKPT_ASSIGN(const std::vector<StoreClient::Checked> images, store_.check(manifests, order.quick(), threads, call));
    for (std::size_t i = 0; i < images.size(); ++i) {
        rpc::CheckedImage& checked = *answer.part().add_checked();
        const rpc::ManifestRef& asked = order.manifests(static_cast<int>(i));
        checked.set_checkpoint_id(asked.checkpoint_id());
        checked.set_task(asked.task());
        for (const std::string& fault : images[i].faults) checked.add_faults(fault);
        checked.set_unreadable(images[i].unreadable);
        answer.added(checked.ByteSizeLong());
    }
    return {};
}

Result<> NodeAgent::compact_store(const rpc::Compact& order, StoreAnswer& answer, const StoreCall& call) {
    const int threads = static_cast<int>(config_.drain.threads);
    SCKPT_ASSIGN(const std::vector<StoredImage> images, store_.compact(names(order.manifests()), strings(order.rewrite()), threads, call));
    for (const StoredImage& image : images) {
        *answer.part().add_compacted() = to_message(image);
        answer.added(answer.part().compacted().rbegin()->ByteSizeLong());
    }
    return {};
}

// The database comes over the connection that sckptctld has proved itself on. It may be large and the store slow, so there is no deadline for
// the whole: each piece has one.
Result<> NodeAgent::backup_catalogue(const rpc::StoreOrder& order, const StoreCall& call) {
    const std::shared_ptr<grpc::Channel> channel = link_.channel();
    if (!channel) return fail(Errc::unavailable, "there is no connection to sckptctld");
    const auto stub = rpc::Node::NewStub(channel);
    rpc::BackupRequest request;
    request.set_order(order.order());
    grpc::ClientContext context;
    SCKPT_TRY(rpc::add_credential(context, "/sckpt.rpc.Node/FetchBackup", &request));
    const auto stream = stub->FetchBackup(&context, request);
    bool ended = false;
    std::atomic<bool> late = false;
    const auto next = [&]() -> Result<std::string> {
        const Deadline deadline(kPiecePatience, [&] {
            late = true;
            context.TryCancel();
        });
        rpc::BackupPiece piece;
        while (stream->Read(&piece))
            if (!piece.data().empty()) return std::move(*piece.mutable_data());
        ended = true;
        const grpc::Status status = stream->Finish();
        if (late) return fail(Errc::timeout, std::format("sckptctld has sent no further piece of the catalogue for {} s", kPiecePatience.count()));
        if (!status.ok()) return std::unexpected(rpc::error_from_status(status));
        return std::string();
    };
    const Result<> kept = store_.backup(order.backup().name(), next, call);
    if (!ended) {
        context.TryCancel();
        (void)stream->Finish();
    }
    return kept;
}

}  // namespace sckpt
