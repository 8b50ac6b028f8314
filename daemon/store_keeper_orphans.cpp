// SPDX-License-Identifier: GPL-3.0-or-later
//
// The keeper: what in the store and in the catalogue does not belong together. The catalogue is asked after the store was listed, so that
// whatever is put meanwhile is known by then. A whole image that no row names is never removed: the catalogue may be the one that lost it.
#include <algorithm>
#include <charconv>
#include <format>
#include <ranges>

#include "common/bytes.h"
#include "common/log.h"
#include "daemon/store_keeper.h"
#include "image_store/names.h"

namespace sckpt {
namespace {

using FileUse = Catalogue::FileUse;

constexpr std::int64_t kLeftForOthers = 86400;  // seconds since the last image of a checkpoint that is not all there

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

// The image's files; how many bytes they are.
std::uint64_t take_out(std::map<std::string, std::uint64_t>& files, const rpc::StoredImage& image) {
    std::uint64_t bytes = 0;
    const auto take = [&](const std::string& path) {
        const auto file = files.extract(path);
        if (!file.empty()) bytes += file.mapped();
    };
    take(image.manifest());
    for (const rpc::Pack& pack : image.packs()) take(pack.path());
    return bytes;
}

}  // namespace

Result<StoreKeeper::Listing> StoreKeeper::scan(bool images, std::chrono::seconds silence, const Cancelled& cancelled) {
    SCKPT_ASSIGN(const Work scanning, begin_work(scanning_, cancelled));
    rpc::StoreOrder order_;
    order_.mutable_scan()->set_images(images);
    SCKPT_ASSIGN(const rpc::StoreReply reply, order(order_, silence, cancelled));
    Listing listing;
    for (const rpc::StoreFile& file : reply.files())
        if (check_store_path(file.path())) listing.files[file.path()] = {file.bytes(), file.modified()};
    for (const rpc::FoundImage& image : reply.images())
        if (to_stored(image.image())) listing.images[image.image().manifest()] = image;
    listing.unusable.assign(reply.unusable().begin(), reply.unusable().end());
    for (const rpc::Unreadable& unreadable : reply.unreadable())
        if (check_store_path(unreadable.path())) listing.unreadable[unreadable.path()] = unreadable.why();
    const std::lock_guard lock(mutex_);
    store_total_ = reply.store_total();
    store_free_ = reply.store_free();
    return listing;
}

// What an image refers to lies in its job's directory.
bool StoreKeeper::Listing::is_doubtful(const std::string& path) const {
    return std::ranges::any_of(unreadable, [&](const auto& entry) { return directory_of(entry.first) == directory_of(path); });
}

// Every pack that it refers to is there, as long as it was.
bool StoreKeeper::is_whole(const rpc::FoundImage& image, const Listing& listing) {
    return std::ranges::all_of(image.image().packs(), [&](const rpc::Pack& pack) {
        const auto file = listing.files.find(pack.path());
        return file != listing.files.end() && file->second.bytes == pack.bytes();
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
    SCKPT_ASSIGN(const std::optional<ImageRow> own, catalogue_.image(row->id, image.task()));  // its own is there? else this may be the better one
    const auto there = own ? listing.images.find(own->manifest) : listing.images.end();
    return there != listing.images.end() && is_whole(there->second, listing);
}

std::map<std::uint64_t, StoreKeeper::FoundImages> StoreKeeper::by_checkpoint(const Listing& listing) {
    std::map<std::uint64_t, FoundImages> checkpoints;
    for (const auto& [path, image] : listing.images) checkpoints[image.checkpoint_id()].push_back(&image);
    return checkpoints;
}

// A rewriting that was cut off leaves a second one of a task, and either will do.
Result<std::vector<FoundImage>> StoreKeeper::usable(const FoundImages& images, const Listing& listing, const TellUnusable& tell) {
    std::vector<FoundImage> found;
    std::set<std::string> tasks;
    for (const rpc::FoundImage* image : images) {
        auto manifest = parse_head(image->head());
        if (!manifest) tell(image->image().manifest(), manifest.error().text);
        else if (!is_whole(*image, listing)) tell(image->image().manifest(), "a pack that it refers to is missing");
        else if (tasks.insert(manifest->identity.task).second) {
            SCKPT_ASSIGN(StoredImage stored, to_stored(image->image()));
            found.push_back({std::move(manifest->identity), std::move(manifest->user_files), std::move(stored)});
        }
    }
    return found;
}

// Takes images that a rebuild could take in, with the packs that they refer to, out of `unknown`; and what may be such. A checkpoint of which images are missing
// can be restored by nobody; but they may be on their way, from a node that drains what the catalogue has lost: it is left for a while.
Result<> StoreKeeper::leave_images(Unknown& unknown, std::int64_t now, rpc::OrphansReply& reply, const Cancelled& cancelled) {
    const auto is_manifest = [](const auto& file) { return file.first.ends_with(kManifestSuffix); };
    if (std::ranges::none_of(unknown, is_manifest)) return {};
    SCKPT_ASSIGN(const Listing listing, scan(true, kSilence, cancelled));
    for (const auto& [id, images] : by_checkpoint(listing)) {
        FoundImages lost;  // by the catalogue
        for (const rpc::FoundImage* image : images) {
            if (!unknown.contains(image->image().manifest()) || !is_whole(*image, listing)) continue;
            SCKPT_ASSIGN(const bool leftover, is_leftover(*image, listing));
            if (!leftover) lost.push_back(image);
        }
        if (lost.empty()) continue;
        SCKPT_ASSIGN(const auto found, usable(images, listing, [](const auto&, const auto&) {}));
        const bool whole = check_whole(found).has_value();
        const auto age = [&](const rpc::FoundImage* image) { return now - listing.files.at(image->image().manifest()).modified; };
        if (!whole && std::ranges::min(lost | std::views::transform(age)) >= kLeftForOthers) continue;
        std::uint64_t bytes = 0;
        for (const rpc::FoundImage* image : lost) bytes += take_out(unknown, image->image());
        const std::string more = lost.size() > 1 ? std::format(" and {} more", lost.size() - 1) : "";
        add(reply, rpc::Orphan::IMAGE, std::format("{}{} of job {}", lost.front()->image().manifest(), more, lost.front()->job_id()), bytes,
            whole ? "kept; sckpt-clean rebuild-catalogue takes it in" : "kept for a day: other images of its checkpoint are missing");
    }
    for (const auto& [path, why] : listing.unreadable)
        if (unknown.contains(path))
            add(reply, rpc::Orphan::IMAGE, std::format("{}: it cannot be read: {}", path, why), unknown[path],
                "kept, with the packs beside it that no checkpoint needs");
    std::erase_if(unknown, [&](const auto& file) { return listing.is_doubtful(file.first); });
    return {};
}

Result<> StoreKeeper::find_files(const Listing& listing, Orphans mode, std::int64_t now, rpc::OrphansReply& reply,
                                 const Cancelled& cancelled) {
    std::vector<std::string> paths;
    for (const auto& [path, file] : listing.files) paths.push_back(path);
    SCKPT_ASSIGN(const std::vector<FileUse> uses, catalogue_.uses(paths));
    Unknown unknown;
    for (std::size_t i = 0; i < paths.size(); ++i)
        if (uses[i] == FileUse::unknown) unknown[paths[i]] = listing.files.at(paths[i]).bytes;
    SCKPT_TRY(leave_images(unknown, now, reply, cancelled));
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
        SCKPT_ASSIGN(const std::vector<Subject> images, subjects(job));
        SCKPT_ASSIGN(const std::optional<JobRow> row, catalogue_.job(job));
        if (!row) continue;
        const Found found = [&](const Subject& subject, const rpc::CheckedImage& image, const std::string& node) -> Result<> {
            const std::string what = std::format("checkpoint {}.{}: ", row->job_id, subject.row.number);
            if (!image.unreadable().empty())
                add(reply, rpc::Orphan::ROW, what + "it cannot be read: " + image.unreadable(), subject.bytes,
                    "not marked bad: nothing is known against it");
            if (image.faults().empty()) return {};
            bool mark = mode == Orphans::remove;
            if (mark) {
                const auto bad = confirmed(subject, true, node, cancelled);
                mark = bad && bad->has_value();  // else only that node does not see them
            }
            SCKPT_ASSIGN(const bool counts, mark ? mark_bad(subject, image.faults(0), now) : still_there(subject));
            if (!counts) return {};
            marked = marked || mark;
            add(reply, rpc::Orphan::ROW, what + image.faults(0), subject.bytes,
                mark ? "marked bad" : mode == Orphans::remove ? "not marked bad: no other node finds it so" : "not marked bad; --remove does");
            return {};
        };
        SCKPT_TRY(check_each(images, true, cancelled, found));
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
    SCKPT_TRY(find_files(listing, mode, now, reply, cancelled));
    if (mode != Orphans::sweep) SCKPT_TRY(find_jobs(now, reply));
    if (mode == Orphans::remove) {
        rpc::CleanProgress progress;
        unremoved_.try_all_again();
        SCKPT_TRY(collect(now, progress, {}, cancelled));
    }
    if (mode == Orphans::sweep)
        for (const rpc::Orphan& orphan : reply.orphans())
            if (orphan.kind() != rpc::Orphan::FILE)
                log_warning("sckpt-clean orphans: {} ({}): {}", orphan.what(), format_bytes(orphan.bytes()), orphan.done());
    return reply;
}

}  // namespace sckpt
