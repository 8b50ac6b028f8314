// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/store_work.h"

#include <string>
#include <utility>
#include <vector>

#include "daemon/messages.h"

namespace sckpt {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kReplyBytes = 1u << 20;  // of one message; gRPC takes no more than 4 MiB
constexpr std::chrono::seconds kSignOfLife{5};

std::vector<std::string> strings(const google::protobuf::RepeatedPtrField<std::string>& field) { return {field.begin(), field.end()}; }

std::vector<ManifestName> names(const google::protobuf::RepeatedPtrField<rpc::ManifestRef>& field) {
    std::vector<ManifestName> names;
    for (const rpc::ManifestRef& manifest : field) names.push_back({manifest.path(), manifest.digest()});
    return names;
}

}  // namespace

void StoreAnswer::added(std::size_t bytes) {
    bytes_ += bytes;
    if (bytes_ >= kReplyBytes) flush();
}

void StoreAnswer::alive() {
    if (steady_clock::now() - last_ >= kSignOfLife) flush();
}

void StoreAnswer::end(const Result<>& outcome) {
    part_.set_done(true);
    part_.set_ok(outcome.has_value());
    if (!outcome) part_.set_error(outcome.error().text);
    if (!outcome) part_.set_away(outcome.error().code == Errc::unavailable || outcome.error().code == Errc::denied);
    flush();
}

void StoreAnswer::flush() {
    part_.set_order(order_);
    send_(std::exchange(part_, {}));
    bytes_ = 0;
    last_ = steady_clock::now();
}

Result<> StoreWork::carry_out(const rpc::StoreOrder& order, StoreAnswer& answer, StoreCall call) const {
    if (order.store_id().empty()) return fail(Errc::unavailable, "sckptctld has not seen the cluster's store yet: `sckpt status` tells more");
    call.store = order.store_id();
    call.alive = [&answer] { answer.alive(); };
    switch (order.what_case()) {
        case rpc::StoreOrder::kRemove: return remove_files(order.remove(), answer, call);
        case rpc::StoreOrder::kQuarantine: return client_.quarantine(strings(order.quarantine().paths()), call);
        case rpc::StoreOrder::kScan: return scan_store(order.scan(), answer, call);
        case rpc::StoreOrder::kCheck: return check_store(order.check(), answer, call);
        case rpc::StoreOrder::kCompact: return compact_store(order.compact(), answer, call);
        case rpc::StoreOrder::kBackup: return backup_(order, call);
        case rpc::StoreOrder::WHAT_NOT_SET: break;
    }
    return fail(Errc::unsupported, "this sckptd does not know the order: sckptctld is of another version");
}

Result<> StoreWork::remove_files(const rpc::RemoveFiles& order, StoreAnswer& answer, const StoreCall& call) const {
    SCKPT_ASSIGN(const std::vector<Store::Unremoved> unremoved, client_.remove(strings(order.paths()), call));
    for (const Store::Unremoved& file : unremoved) {
        rpc::UnremovedFile& out = *answer.part().add_unremoved();
        out.set_path(file.path);
        out.set_why(file.why);
        answer.added(out.ByteSizeLong());
    }
    return {};
}

Result<> StoreWork::scan_store(const rpc::Scan& order, StoreAnswer& answer, const StoreCall& call) const {
    SCKPT_ASSIGN(const StoreClient::Scan scan, client_.scan(order.images(), call));
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

Result<> StoreWork::check_store(const rpc::Check& order, StoreAnswer& answer, const StoreCall& call) const {
    const std::vector<ManifestName> manifests = names(order.manifests());
    SCKPT_ASSIGN(const std::vector<StoreClient::Checked> images, client_.check(manifests, order.quick(), threads_, call));
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

Result<> StoreWork::compact_store(const rpc::Compact& order, StoreAnswer& answer, const StoreCall& call) const {
    SCKPT_ASSIGN(const std::vector<StoredImage> images, client_.compact(names(order.manifests()), strings(order.rewrite()), threads_, call));
    for (const StoredImage& image : images) {
        *answer.part().add_compacted() = to_message(image);
        answer.added(answer.part().compacted().rbegin()->ByteSizeLong());
    }
    return {};
}

}  // namespace sckpt
