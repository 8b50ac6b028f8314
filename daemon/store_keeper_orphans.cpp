// SPDX-License-Identifier: GPL-3.0-or-later
//
// The keeper: what in the store and in the catalogue does not belong together. The catalogue is asked after the store was listed, so that
// whatever is put meanwhile is known by then. A whole image that no row names is never removed: the catalogue may be the one that lost it.
#include <algorithm>
#include <charconv>
#include <format>

#include "common/bytes.h"
#include "common/log.h"
#include "daemon/store_keeper.h"
#include "image_store/names.h"

namespace sckpt {
namespace {

using FileUse = Catalogue::FileUse;

void add(rpc::OrphansReply& reply, rpc::Orphan::Kind kind, std::string what, std::uint64_t bytes, std::string done) {
    rpc::Orphan& orphan = *reply.add_orphans();
    orphan.set_kind(kind);
    orphan.set_what(std::move(what));
    orphan.set_bytes(bytes);
    orphan.set_done(std::move(done));
}

// The job's row in "job-4711-8/…": 8; 0 when it is no directory of ours.
RowId job_of(const std::string& path) {
    const std::string directory = path.substr(0, path.find('/'));
    const std::size_t dash = directory.rfind('-');
    RowId row = 0;
    if (!directory.starts_with("job-") || dash == std::string::npos) return 0;
    const char* end = directory.data() + directory.size();
    const auto [rest, error] = std::from_chars(directory.data() + dash + 1, end, row);
    return error == std::errc() && rest == end && row > 0 ? row : 0;
}

}  // namespace

Result<StoreKeeper::Listing> StoreKeeper::scan(bool images, std::chrono::seconds silence, const Cancelled& cancelled) {
    rpc::StoreOrder order_;
    order_.mutable_scan()->set_images(images);
    SCKPT_ASSIGN(const rpc::StoreReply reply, order(order_, silence, cancelled));
    Listing listing;
    for (const rpc::StoreFile& file : reply.files())
        if (check_store_path(file.path())) listing.files[file.path()] = file.bytes();
    for (const rpc::FoundImage& image : reply.images())
        if (to_stored(image.image())) listing.images[image.image().manifest()] = image;
    listing.unusable.assign(reply.unusable().begin(), reply.unusable().end());
    const std::lock_guard lock(mutex_);
    store_total_ = reply.store_total();
    store_free_ = reply.store_free();
    return listing;
}

// Every pack that it refers to is there, as long as it was.
bool StoreKeeper::is_whole(const rpc::FoundImage& image, const Listing& listing) {
    return std::ranges::all_of(image.image().packs(), [&](const rpc::Pack& pack) {
        const auto file = listing.files.find(pack.path());
        return file != listing.files.end() && file->second == pack.bytes();
    });
}

// Of a checkpoint that the catalogue knows, or has removed, without this image: made by a drain that was given up, or by a compaction that
// was not used.
Result<bool> StoreKeeper::is_leftover(const rpc::FoundImage& image, const Listing& listing) const {
    SCKPT_ASSIGN(const std::optional<CheckpointRow> row, catalogue_.checkpoint(static_cast<RowId>(image.checkpoint_id())));
    if (!row) return catalogue_.gave_number(static_cast<RowId>(image.checkpoint_id()));
    SCKPT_ASSIGN(const std::optional<JobRow> job, catalogue_.job(row->job));
    if (!job || job->job_id != image.job_id()) return false;
    if (row->state != CheckpointState::complete) return catalogue_.gave_number(row->id);
    SCKPT_ASSIGN(const std::optional<ImageRow> own, catalogue_.image(row->id));  // its own is there? else this may be the better one
    const auto there = own ? listing.images.find(own->manifest) : listing.images.end();
    return there != listing.images.end() && is_whole(there->second, listing);
}

// Takes whole images, with the packs that they refer to, out of `unknown`.
Result<> StoreKeeper::leave_images(Unknown& unknown, rpc::OrphansReply& reply, const Cancelled& cancelled) {
    const auto is_manifest = [](const auto& file) { return file.first.ends_with(kManifestSuffix); };
    if (std::ranges::none_of(unknown, is_manifest)) return {};
    SCKPT_ASSIGN(const Listing listing, scan(true, kSilence, cancelled));
    for (const auto& [path, image] : listing.images) {
        if (!unknown.contains(path) || !is_whole(image, listing)) continue;
        SCKPT_ASSIGN(const bool leftover, is_leftover(image, listing));
        if (leftover) continue;
        std::uint64_t bytes = unknown[path];
        unknown.erase(path);
        for (const rpc::Pack& pack : image.image().packs())
            if (unknown.erase(pack.path()) != 0) bytes += pack.bytes();
        add(reply, rpc::Orphan::IMAGE, std::format("{} of job {}", path, image.job_id()), bytes,
            "kept; sckpt-clean rebuild-catalogue takes it in");
    }
    return {};
}

Result<> StoreKeeper::find_files(const Listing& listing, Orphans mode, rpc::OrphansReply& reply, const Cancelled& cancelled) {
    std::vector<std::string> paths;
    for (const auto& [path, bytes] : listing.files) paths.push_back(path);
    SCKPT_ASSIGN(const std::vector<FileUse> uses, catalogue_.uses(paths));
    Unknown unknown;
    for (std::size_t i = 0; i < paths.size(); ++i)
        if (uses[i] == FileUse::unknown) unknown[paths[i]] = listing.files.at(paths[i]);
    SCKPT_TRY(leave_images(unknown, reply, cancelled));
    if (mode != Orphans::report) {
        std::vector<Catalogue::Garbage> garbage;
        for (const auto& [path, bytes] : unknown) garbage.push_back({path, bytes});
        if (!garbage.empty()) {
            SCKPT_TRY(catalogue_.add_garbage(garbage));
            log_info("{} files of the store belong to nothing and are removed", garbage.size());
        }
    }
    for (const auto& [path, bytes] : unknown)
        add(reply, rpc::Orphan::FILE, path, bytes, mode == Orphans::report ? "not removed; --remove does" : "removed");
    return {};
}

// named: what the rows named before the store was listed. What is missing in the list is looked at once more by a node, and the checkpoints
// that need it are told.
Result<> StoreKeeper::find_rows(const std::vector<std::string>& named, const Listing& listing, Orphans mode, std::int64_t now,
                                rpc::OrphansReply& reply, const Cancelled& cancelled) {
    std::set<RowId> jobs;
    std::size_t missing = 0;
    for (const std::string& path : named) {
        if (listing.files.contains(path)) continue;
        ++missing;
        if (const RowId job = job_of(path); job != 0) jobs.insert(job);
    }
    if (missing != 0 && missing == named.size())
        return fail(Errc::io,
                    std::format("none of the {} files that the catalogue knows is in the store: is the right file system mounted at {} "
                                "on the nodes?",
                                missing, config_.store.directory));
    bool marked = false;
    for (const RowId job : jobs) {
        SCKPT_ASSIGN(const std::vector<Subject> batch, subjects(job));
        if (batch.empty()) continue;
        SCKPT_ASSIGN(const rpc::StoreReply checked, check_batch(batch, true, cancelled));
        SCKPT_ASSIGN(const std::optional<JobRow> row, catalogue_.job(job));
        for (const rpc::CheckedImage& image : checked.checked()) {
            const auto subject =
                std::ranges::find(batch, static_cast<RowId>(image.checkpoint_id()), [](const Subject& s) { return s.row.id; });
            if (subject == batch.end() || image.faults().empty() || !row) continue;
            SCKPT_ASSIGN(const bool counts, still_there(*subject));
            if (!counts) continue;
            if (mode == Orphans::remove) SCKPT_TRY(mark_bad(*subject, image.faults(0), now));
            marked = marked || mode == Orphans::remove;
            add(reply, rpc::Orphan::ROW, std::format("checkpoint {}.{}: {}", row->job_id, subject->row.number, image.faults(0)),
                subject->row.bytes, mode == Orphans::remove ? "marked bad" : "not marked bad; --remove does");
        }
    }
    return marked ? put_bad_aside() : Result<>();
}

Result<> StoreKeeper::find_jobs(std::int64_t now, rpc::OrphansReply& reply) {
    SCKPT_ASSIGN(const std::vector<SlurmJob> slurm, slurm_jobs_());
    std::set<std::uint32_t> known;
    for (const SlurmJob& job : slurm) known.insert(job.job_id);
    SCKPT_ASSIGN(const std::vector<KeptCheckpoint> kept, catalogue_.kept(now));
    struct Sum {
        JobRow job;
        std::uint64_t checkpoints = 0, bytes = 0;
    };
    std::map<RowId, Sum> jobs;
    for (const KeptCheckpoint& checkpoint : kept) {
        if (known.contains(checkpoint.job.job_id) || checkpoint.row.state != CheckpointState::complete) continue;
        Sum& sum = jobs[checkpoint.job.id];
        sum.job = checkpoint.job;
        ++sum.checkpoints;
        sum.bytes += checkpoint.row.new_bytes;
    }
    for (const auto& [id, sum] : jobs)
        add(reply, rpc::Orphan::JOB, std::format("job {} of {}: {} checkpoints", sum.job.job_id, sum.job.user, sum.checkpoints), sum.bytes,
            "kept as the retention rules say; sckpt-clean report shows until when, sckpt-clean run with other rules removes them");
    return {};
}

Result<rpc::OrphansReply> StoreKeeper::orphans(Orphans mode, std::int64_t now, const Cancelled& cancelled) {
    SCKPT_ASSIGN(const Work work, begin_work(work_, cancelled));
    if (catalogue_.needs_rebuild())
        return fail(Errc::busy, "the catalogue is not rebuilt from the store yet: it does not know what is an orphan");
    rpc::OrphansReply reply;
    SCKPT_ASSIGN(const std::vector<std::string> named, catalogue_.named_files());
    SCKPT_ASSIGN(const Listing listing, scan(false, kSilence, cancelled));
    SCKPT_TRY(find_rows(named, listing, mode, now, reply, cancelled));
    SCKPT_TRY(find_files(listing, mode, reply, cancelled));
    if (mode != Orphans::sweep) SCKPT_TRY(find_jobs(now, reply));
    if (mode == Orphans::remove) {
        rpc::CleanProgress progress;
        SCKPT_TRY(collect(progress, {}, cancelled));
    }
    if (mode == Orphans::sweep)
        for (const rpc::Orphan& orphan : reply.orphans())
            if (orphan.kind() != rpc::Orphan::FILE)
                log_warning("sckpt-clean orphans: {} ({}): {}", orphan.what(), format_bytes(orphan.bytes()), orphan.done());
    return reply;
}

}  // namespace sckpt
