// SPDX-License-Identifier: GPL-3.0-or-later
//
// A store of names alone, for the tests of its keeper: it does what nodes do at an order, and fails where a test wants it to.
#pragma once

#include <algorithm>
#include <format>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "daemon/store_keeper.h"
#include "image_store/manifest.h"
#include "image_store/names.h"
#include "tests/unit/catalogue_tools.h"

namespace sckpt::test {

constexpr std::int64_t kNow = 1'000'000;
inline const StoreKeeper::Cancelled never = [] { return false; };

class FakeStore final : public StoreAccess {
   public:
    std::map<std::string, std::uint64_t> files;
    std::map<std::string, std::int64_t> modified;  // where it matters
    std::map<std::string, rpc::FoundImage> heads;  // of every manifest that was ever written
    std::map<std::string, std::string> faults;     // by manifest
    std::string bad_node;                          // reads nothing right
    std::vector<std::string> nodes = {"n1", "n2"};
    std::map<std::string, int> unreadable;         // manifests, and by how many more orders
    std::set<std::string> stuck;                   // cannot be removed
    std::vector<std::string> quarantined, removed;
    std::function<void(const rpc::StoreOrder&)> before;  // another's doing, while the node is at work
    int orders = 0;
    int fail_at = 0;          // this order fails; 0: none
    bool done_first = false;  // and is done all the same

    bool any_node() const override { return true; }
    Result<rpc::StoreReply> run(rpc::StoreOrder order, std::chrono::seconds, const Cancelled&) override {
        const int mine = ++orders;
        if (mine == fail_at && !done_first) return fail(Errc::io, "the node failed");
        if (before) before(order);
        rpc::StoreReply reply;
        const auto other = std::ranges::find_if(nodes, [&](const std::string& name) { return name != order.avoid(); });
        reply.set_node(other != nodes.end() ? *other : nodes.front());
        if (order.has_remove()) remove(order.remove(), reply);
        if (order.has_scan()) scan(order.scan(), reply);
        if (order.has_check()) check(order.check(), reply);
        if (order.has_compact()) compact(order.compact(), reply);
        if (order.has_quarantine()) quarantine(order.quarantine());
        if (mine == fail_at) return fail(Errc::io, "the node failed when it was done");
        return reply;
    }

    // As a drain leaves it: one of so many images of the checkpoint, which the batch script's leads.
    void put(const Catalogue& catalogue, const CheckpointRow& row, const StoredImage& image, const std::string& task = "batch",
             std::uint32_t images = 1) {
        const auto job = catalogue.job(row.job);
        REQUIRE((job && *job));
        Manifest manifest;
        manifest.identity = {.cluster = "c",
                             .user = (*job)->user,
                             .account = (*job)->account,
                             .node = "n1",
                             .task = task,
                             .job_id = (*job)->job_id,
                             .uid = (*job)->uid,
                             .submit_time = (*job)->submit_time,
                             .job_row = row.job,
                             .checkpoint_row = row.id,
                             .checkpoint = row.number,
                             .images = images,
                             .created = row.created,
                             .interval_seconds = 60,
                             .max_restarts = 3,
                             .leader = "batch",
                             .ended = {}};
        manifest.needs = {.backend = "criu", .backend_version = "4", .architecture = "x86_64", .kernel = "6"};
        manifest.files = {{.name = "a", .size = image.plain_bytes, .first_chunk = 0, .chunks = 1}};
        manifest.packs = image.packs;
        manifest.chunk_count = 1;
        manifest.plain_bytes = image.plain_bytes;
        write(image, row.id, (*job)->job_id, head_text(manifest));
    }
    // What is there of what this image needs.
    bool has(const StoredImage& image) const {
        return files.contains(image.manifest) &&
               std::ranges::all_of(image.packs, [&](const PackUse& pack) { return files.contains(pack.path); });
    }

   private:
    void write(const StoredImage& image, RowId checkpoint, std::uint32_t job_id, const std::string& head) {
        rpc::FoundImage& found = heads[image.manifest];
        found.set_job_id(job_id);
        found.set_checkpoint_id(static_cast<std::uint64_t>(checkpoint));
        found.set_head(head);
        found.set_task(parse_head(head)->identity.task);
        rpc::StoredImage& out = *found.mutable_image();
        out.set_manifest(image.manifest);
        out.set_digest(image.digest);
        out.set_plain_bytes(image.plain_bytes);
        out.set_new_bytes(image.new_bytes);
        files[image.manifest] = 10;
        for (const PackUse& pack : image.packs) {
            rpc::Pack& use = *out.add_packs();
            use.set_path(pack.path);
            use.set_bytes(pack.bytes);
            use.set_used(pack.used);
            files[pack.path] = pack.bytes;
        }
    }
    void remove(const rpc::RemoveFiles& request, rpc::StoreReply& reply) {
        for (const std::string& path : request.paths()) {
            if (stuck.contains(path)) {
                rpc::UnremovedFile& unremoved = *reply.add_unremoved();
                unremoved.set_path(path);
                unremoved.set_why("not permitted");
                continue;
            }
            files.erase(path);
            removed.push_back(path);
        }
    }
    bool is_unreadable(const std::string& path) {
        const auto found = unreadable.find(path);
        return found != unreadable.end() && found->second > 0 && found->second-- > 0;
    }
    void scan(const rpc::Scan& request, rpc::StoreReply& reply) {
        reply.set_store_total(1000);
        reply.set_store_free(400);
        for (const auto& [path, bytes] : files) {
            rpc::StoreFile& file = *reply.add_files();
            file.set_path(path);
            file.set_bytes(bytes);
            if (const auto time = modified.find(path); time != modified.end()) file.set_modified(time->second);
            if (!request.images() || !path.ends_with(kManifestSuffix)) continue;
            if (is_unreadable(path)) {
                rpc::Unreadable& out = *reply.add_unreadable();
                out.set_path(path);
                out.set_why("input/output error");
                continue;
            }
            if (const auto head = heads.find(path); head != heads.end()) *reply.add_images() = head->second;
            else reply.add_unusable(path + ": it is torn");
        }
    }
    void check(const rpc::Check& request, rpc::StoreReply& reply) {
        for (const rpc::ManifestRef& manifest : request.manifests()) {
            rpc::CheckedImage& checked = *reply.add_checked();
            checked.set_checkpoint_id(manifest.checkpoint_id());
            checked.set_task(manifest.task());
            checked.set_bytes(100);
            if (is_unreadable(manifest.path())) {
                checked.set_unreadable("input/output error");
                continue;
            }
            if (!files.contains(manifest.path())) {
                checked.add_faults(manifest.path() + ": no such file");
                continue;
            }
            if (reply.node() == bad_node) checked.add_faults("it is read wrongly here");
            if (const auto fault = faults.find(manifest.path()); fault != faults.end()) checked.add_faults(fault->second);
            for (const rpc::Pack& pack : heads.at(manifest.path()).image().packs())
                if (!files.contains(pack.path())) checked.add_faults(pack.path() + ": no such file");
        }
    }
    void compact(const rpc::Compact& request, rpc::StoreReply& reply) {
        const std::string round = std::format("{:04x}", ++compactions_);
        for (const rpc::ManifestRef& manifest : request.manifests()) {
            const rpc::FoundImage old = heads.at(manifest.path());
            const std::string directory = manifest.path().substr(0, manifest.path().find('/'));
            StoredImage image{.manifest = std::format("{}/ckpt-{}-{}.manifest", directory, manifest.checkpoint_id(), round),
                              .digest = old.image().digest() + round,
                              .plain_bytes = old.image().plain_bytes(),
                              .new_bytes = 10};
            for (const rpc::Pack& pack : old.image().packs())
                if (std::ranges::find(request.rewrite(), pack.path()) == request.rewrite().end())
                    image.packs.push_back({pack.path(), pack.bytes(), pack.used()});
            image.packs.push_back({std::format("{}/ckpt-1-{}.pack", directory, round), 100, 100});
            write(image, static_cast<RowId>(manifest.checkpoint_id()), old.job_id(), old.head());
            *reply.add_compacted() = heads.at(image.manifest).image();
        }
    }
    void quarantine(const rpc::Quarantine& request) {
        for (const std::string& path : request.paths()) {
            files.erase(path);
            quarantined.push_back(path);
        }
    }

    int compactions_ = 0;
};

// A catalogue, a store and their keeper.
struct Kept {
    TempDir directory;
    Config config = [this] {
        Config made;
        made.controller.state_directory = directory / "";
        made.retention.keep = 2;
        made.retention.backup_interval_seconds = 1'000'000'000;
        return made;
    }();
    Catalogue catalogue = open_catalogue();
    FakeStore store;
    std::vector<SlurmJob> slurm;
    std::optional<StoreKeeper> keeper;

    Kept() {
        REQUIRE(catalogue.set_rebuilt());
        restart();
    }
    void restart() {  // of sckptctld
        keeper.emplace(config, catalogue, store, [this] { return Result<std::vector<SlurmJob>>(slurm); });
    }
    CheckpointRow make(RowId job, const std::vector<std::string>& of_base = {}) {
        const CheckpointRow row = begin(catalogue, job);
        const StoredImage image = stored(row, of_base);
        complete(catalogue, row, image);
        store.put(catalogue, row, image);
        return row;
    }
    // The same of several tasks; the packs are the base's of the same task, and one of its own.
    CheckpointRow make_tasks(RowId job, const std::vector<std::string>& tasks, const CheckpointRow* base = nullptr) {
        const CheckpointRow row = begin(catalogue, job);
        std::vector<CapturedImage> dumped;
        std::vector<StoredTask> images;
        for (const std::string& task : tasks) {
            dumped.push_back({task, "n1", 10, {}});
            images.push_back({task, stored_as(row, task, base != nullptr ? std::vector{pack_name(*base, task)} : std::vector<std::string>()), 1});
            store.put(catalogue, row, images.back().image, task, static_cast<std::uint32_t>(tasks.size()));
        }
        REQUIRE(catalogue.captured(row.id, dumped, {}));
        REQUIRE(catalogue.complete(row.id, images, 101));
        return row;
    }
    std::vector<std::string> named() const {
        const auto files = catalogue.named_files();
        REQUIRE(files);
        return *files;
    }
    std::vector<std::string> in_store() const {
        std::vector<std::string> paths;
        for (const auto& [path, bytes] : store.files) paths.push_back(path);
        return paths;
    }
    bool all_named_are_there() const {
        return std::ranges::all_of(named(), [&](const std::string& path) { return store.files.contains(path); });
    }
    CheckpointState state(const CheckpointRow& row) const { return row_of(catalogue, row.id).state; }
};

inline std::vector<rpc::Orphan> of_kind(const rpc::OrphansReply& reply, rpc::Orphan::Kind kind) {
    std::vector<rpc::Orphan> found;
    for (const rpc::Orphan& orphan : reply.orphans())
        if (orphan.kind() == kind) found.push_back(orphan);
    return found;
}

// Three images that share packs, of which the oldest goes by retention; one bad; and a torn drain.
struct Busy : Kept {
    RowId job = add_job(catalogue);
    CheckpointRow first = make(job);
    CheckpointRow second = make(job, {pack_name(first)});
    CheckpointRow third = make(job, {pack_name(first), pack_name(second)});
    Busy() { store.files["job-12-1/ckpt-9-batch-00cc.pack"] = 77; }
};

}  // namespace sckpt::test
