// SPDX-License-Identifier: GPL-3.0-or-later
//
// The catalogue: what sckptctld knows about jobs, checkpoints, images, files, restarts and events, in one SQLite database.
// Only sckptctld opens it. WAL on local disk, synchronous=FULL: when a call that writes returns, it is on disk.
//
// Rules kept here, whatever the caller does
// - A checkpoint is complete only by complete(), in one transaction with the manifests and references of all its images, and only from
//   `captured`, which says which images these are.
// - The newest complete checkpoint of a live job is never removed, nor is that of one of its steps: remove_checkpoint() refuses it. What was made
//   of a step alone is never taken for the job's.
// - A file of the store is garbage only by the transaction that takes away the last row that names it; and a drain refers to packs of its base
//   alone (of the image of the same task), which its row keeps from being removed. So a chunk that is referred to, or may yet be, is never
//   deleted.
// - Numbers of a job's checkpoints grow and are never used again.
// One object may be shared by threads: a mutex serialises the calls. A call never waits for anything but the disk.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"
#include "image_store/store.h"

namespace sckpt {

using RowId = std::int64_t;

enum class JobOutcome { live = 0, succeeded = 1, failed = 2, cancelled = 3, unknown = 4 };  // unknown: Slurm forgot the job

struct JobRow {
    RowId id = 0;
    std::uint32_t job_id = 0;               // Slurm's; one job id may have several rows over the years, the newest counts
    std::uint32_t uid = 0;
    std::string user, account;              // names, for reports and quotas
    std::int64_t submit_time = 0;           // of the last run seen: Slurm sets it anew at each requeue
    std::int64_t interval_seconds = 0;      // 0: manual
    std::int64_t max_restarts = 0;
    std::uint32_t restarts = 0;             // requeues made by sckpt
    std::uint32_t slurm_restart_count = 0;  // the last one seen
    JobOutcome outcome = JobOutcome::live;  // anything else: nothing more to do for it, and retention decides about its checkpoints
    std::int64_t ended = 0;                 // Unix seconds; 0: live
    std::string held_reason;
    std::string last_error;
};

enum class CheckpointState { preparing = 1, captured = 2, complete = 3, failed = 4, bad = 5 };

struct CheckpointRow {
    RowId id = 0;
    RowId job = 0;
    std::uint32_t number = 0;
    CheckpointState state{};
    std::int64_t created = 0, completed = 0;  // Unix seconds
    std::uint64_t bytes = 0;                  // of its images' files
    std::uint64_t new_bytes = 0;              // written to the store for it
    std::uint32_t frozen_ms = 0;              // of the tree that was frozen longest; 0 before it is complete
    bool urgent = false;                      // drained before periodic ones
    bool pinned = false;                      // never removed by the collector
    RowId base = 0;                           // the complete checkpoint that its drain may refer to; 0: none
    std::string reason;
    std::string step;                         // "": of the whole job. Else of this step's tasks alone: the step's part of their names
    std::uint32_t images = 0;                 // that it has; 0 before it is captured
    bool passed = false;                      // complete, and the job has gone on from an older one: nothing goes on from this one any more
};

struct ImageRow {
    std::string task;       // "batch", or that of a step
    std::string node;       // where it was dumped
    std::string fast_node;  // that node while its fast tier has it, captured or still kept; "": it has it no more
    std::string manifest;   // path below the store; "" until stored
    std::string digest;     // BLAKE3 of the manifest; "" until stored
    std::uint64_t bytes = 0;
    std::vector<UserFile> files;
};

struct CapturedImage {
    std::string task, node;
    std::uint64_t bytes = 0;  // of its files
    std::vector<UserFile> files;
};

struct StoredTask {
    std::string task;
    StoredImage image;
    std::uint32_t frozen_ms = 0;
};

// A manifest in the store that verifies.
struct FoundImage {
    ImageIdentity identity;
    std::vector<UserFile> user_files;
    StoredImage stored;
};
// Whether these are all images of one checkpoint, each once, its leader's among them. Errc::not_found: some are missing; Errc::corrupt:
// they contradict each other.
Result<> check_whole(const std::vector<FoundImage>& images);

struct RestartRow {
    std::int64_t time = 0;
    std::uint32_t slurm_restart_count = 0;
    std::uint32_t checkpoint = 0;  // number; 0: from the beginning
    std::string node, outcome;
    std::uint32_t restore_ms = 0;
};

struct EventRow {
    std::int64_t time = 0;
    std::string text;
};

struct PackRow {
    std::string path;
    std::uint64_t bytes = 0;
    std::uint64_t used = 0;        // at least: the most that one image uses of it
    std::uint32_t images = 0;      // that refer to it
    std::string task;              // of these images: packs are shared by images of the same task
};

// A checkpoint with what retention and reports need to know of it (image_store/retention.h).
struct KeptCheckpoint {
    CheckpointRow row;
    JobRow job;                    // without held_reason and last_error
    bool newest_complete = false;  // of its job; of its step, where it is a step's
    bool in_use = false;           // leased to a restore, or the base of a drain under way
    // Bytes of the store that its removal gives back once the older ones of its job are gone: its manifests, and the packs that no newer
    // one refers to. So the sum over all is what the store holds.
    std::uint64_t freed = 0;
};

class Catalogue {
   public:
    inline static constexpr int kSchemaVersion = 4;

    // Opens or creates; migrates an older schema (each step in one transaction), refuses a newer one. Errc::corrupt for a damaged file
    // (quick_check): the caller puts it aside. ":memory:" for tests. After a crash the database is as of the last call that returned.
    static Result<Catalogue> open(const std::string& path);
    Catalogue(Catalogue&&) noexcept;
    Catalogue& operator=(Catalogue&&) noexcept;
    ~Catalogue();

    // True from its creation until set_rebuilt(): checkpoints of before may be in the store and not in here, so nobody may be told that
    // there is none. The numbers of rows made meanwhile are above all that were given before.
    bool needs_rebuild() const;  // waits for nobody
    Result<> set_rebuilt();
    // Whether this catalogue has made that row itself, and not one of before that was lost: what has such a number and no row was removed.
    Result<bool> gave_number(RowId checkpoint) const;

    // The store that this is the catalogue of (image_store/store_id.h); "" until it was seen. It is set once, and never changes: Errc::exists.
    std::string store_id() const;
    Result<> set_store_id(const std::string& id);

    // jobs
    Result<RowId> add_job(const JobRow& job);                              // job.id is ignored
    Result<std::optional<JobRow>> job(RowId id) const;
    Result<std::optional<JobRow>> newest_job(std::uint32_t job_id) const;
    Result<std::vector<JobRow>> jobs(bool with_ended) const;               // newest first
    Result<> set_job_run(RowId job, std::uint32_t slurm_restart_count, std::int64_t submit_time);
    Result<> set_job_ended(RowId job, JobOutcome outcome, std::int64_t now);  // live: it is not ended after all; ended already: the time stays
    Result<> set_job_held(RowId job, const std::string& reason);           // "" clears it
    Result<> set_job_error(RowId job, const std::string& text);
    Result<std::uint32_t> count_restart(RowId job);                        // restarts + 1, returned

    // checkpoints
    // The next number, state preparing, no image yet. step: see CheckpointRow. Its base becomes the newest complete checkpoint of the job, or of
    // the same step, not passed, that shares no pack with a bad one, if any; that checkpoint cannot be removed until this one is complete, failed, or
    // gone.
    Result<CheckpointRow> begin_checkpoint(RowId job, bool urgent, std::int64_t now, const std::string& step = {});
    // One transaction: its images, one at least, each in the fast tier of its node; and the tasks that had ended. From preparing only.
    Result<> captured(RowId checkpoint, const std::vector<CapturedImage>& images, const std::vector<EndedTask>& ended);
    // One durable transaction: the manifests of exactly the images that were captured, their packs and references, and the state. Every
    // pack of an image but new ones must be one that the base's image of the same task refers to; manifests and new ones must have names of this
    // checkpoint. Errc::corrupt: one of those packs was found bad meanwhile, so this checkpoint may be no better.
    Result<> complete(RowId checkpoint, const std::vector<StoredTask>& images, std::int64_t now);
    Result<> failed(RowId checkpoint, const std::string& reason);          // from preparing or captured only
    // From complete only. digest: of the manifest that was found bad, whose packs nobody builds on any more; Errc::busy when no image of the
    // checkpoint has it any more: it was rewritten, and read whole for that. "": all of its images are.
    Result<> bad(RowId checkpoint, const std::string& reason, const std::string& digest = "");
    // Removes the row; its manifests, and packs that no other image refers to, become garbage, all in one transaction. Refused (Errc::denied)
    // for: the newest complete one of a live job or of a step of it, a pinned one, one that is leased or the base of a drain. `now`: for the
    // lease.
    Result<> remove_checkpoint(RowId checkpoint, std::int64_t now);
    // A restore reads it until then, Unix seconds: what it needs is not removed before. 0 ends the lease.
    Result<> lease(RowId checkpoint, std::int64_t until);
    // Errc::no_space, and it stays as it was: all that is pinned of its user would take more than `most` bytes (0: no limit).
    Result<> set_pinned(RowId checkpoint, bool pinned, std::uint64_t most = 0);
    Result<> set_passed(RowId checkpoint, const std::string& reason);      // from complete only; see CheckpointRow::passed
    Result<> set_urgent(RowId checkpoint);
    // A node's part of a checkpoint is all of its images that were dumped there.
    Result<> set_fast_node(RowId checkpoint, const std::string& node);     // its fast tier has its part
    Result<> evicted(RowId checkpoint, const std::string& node);           // no more, or the checkpoint is gone
    Result<> forget_fast_node(const std::string& node);                    // its memory was lost: all its parts
    Result<std::optional<CheckpointRow>> checkpoint(RowId id) const;
    Result<std::optional<CheckpointRow>> checkpoint(RowId job, std::uint32_t number) const;
    Result<std::vector<CheckpointRow>> checkpoints(RowId job) const;       // oldest first
    Result<std::vector<CheckpointRow>> checkpoints_in(CheckpointState state) const;
    // The newest complete one of the whole job that was not passed, with a number below `below` (0: any).
    Result<std::optional<CheckpointRow>> newest_complete(RowId job, std::uint32_t below = 0) const;
    Result<std::optional<CheckpointRow>> newest_complete_step(RowId job, const std::string& step) const;  // of this step alone
    // All of them, sorted by task. A checkpoint may have ten thousand, and each of them files.
    Result<std::vector<ImageRow>> images(RowId checkpoint, bool with_files = false) const;
    Result<std::optional<ImageRow>> image(RowId checkpoint, const std::string& task) const;  // with its files
    Result<std::vector<EndedTask>> ended_tasks(RowId checkpoint) const;    // sorted by task
    Result<std::optional<std::int32_t>> ended_task(RowId checkpoint, const std::string& task) const;  // its wait status

    // the store's files
    struct Garbage {
        std::string path;
        std::uint64_t bytes = 0;
    };
    Result<std::vector<Garbage>> garbage(std::size_t limit) const;         // in the order in which they must be removed: manifests first
    Result<> garbage_removed(const std::vector<std::string>& paths);
    // Garbage that no row ever named (daemon/store_keeper_orphans.cpp); refused when a row names one of them.
    Result<> add_garbage(const std::vector<Garbage>& files);
    Result<std::vector<PackRow>> packs(RowId job) const;
    Result<std::vector<RowId>> jobs_with_dead_space(double share, std::uint64_t at_least) const;  // of a pack's bytes; ended and idle jobs too
    // After Store::compact: new manifests and packs take the place of the old, which become garbage; one transaction. Refused (Errc::busy) when one
    // of the checkpoints is leased, a base, or no longer as it was (old_digest).
    struct Compacted {
        RowId checkpoint = 0;
        std::string task, old_digest;
        StoredImage image;
    };
    Result<> compacted(const std::vector<Compacted>& images, std::int64_t now);
    // What a file of the store is to the catalogue.
    enum class FileUse { named, under_way, garbage, unknown };             // under_way: of a checkpoint that is preparing or captured
    Result<std::vector<FileUse>> uses(const std::vector<std::string>& paths) const;
    Result<std::vector<std::string>> named_files() const;                  // manifests and packs, sorted

    // retention and reports
    Result<std::vector<KeptCheckpoint>> kept(std::int64_t now) const;      // every checkpoint that is complete, bad or failed
    Result<std::vector<JobRow>> forgettable_jobs(std::int64_t ended_before) const;  // ended, and no checkpoint left
    Result<> forget_job(RowId job);                                        // the row, with events and restarts

    // A checkpoint found in the store that no row names, by all of its images (check_whole): its job, the checkpoint, images, ended tasks and
    // packs, as one transaction. What is there already under the same rows, or is garbage, is left alone; false then. Errc::exists: the
    // rows are another job's or number's.
    Result<bool> import(const std::vector<FoundImage>& images);

    // What a rebuild could not read takes the place of what the one before could not. A job that has such files may have a checkpoint that
    // nobody knows: nothing (std::nullopt) is to be told of others.
    Result<> set_unreadable(const std::vector<Store::Unreadable>& files);
    Result<std::optional<Store::Unreadable>> unreadable_of(std::uint32_t job_id) const;

    // A copy of the whole database at `path` (a new file, 0600), made beside running calls by SQLite's backup API. The copy has needs_rebuild.
    Result<> backup(const std::string& path) const;

    // restarts and events
    Result<> add_restart(RowId job, const RestartRow& restart);
    Result<std::vector<RestartRow>> restarts(RowId job) const;
    Result<> add_event(RowId job, std::int64_t now, const std::string& text);
    Result<std::vector<EventRow>> events(RowId job) const;

   private:
    struct Impl;
    explicit Catalogue(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace sckpt
