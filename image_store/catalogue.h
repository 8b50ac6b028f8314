// SPDX-License-Identifier: GPL-3.0-or-later
//
// The catalogue: what sckptctld knows about jobs, checkpoints, images, files, restarts and events, in one SQLite database.
// Only sckptctld opens it. WAL on local disk, synchronous=FULL: when a call that writes returns, it is on disk.
//
// Rules kept here, whatever the caller does
// - A checkpoint is complete only by complete(), in one transaction with its image's digest, and only from `captured`.
// - The newest complete checkpoint of a live job is never deleted: begin_delete() refuses it.
// - Numbers of a job's checkpoints grow and are never used again.
// One object may be shared by threads: a mutex serialises the calls. A call never waits for anything but the disk.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/result.h"

namespace sckpt {

using RowId = std::int64_t;

struct JobRow {
    RowId id = 0;
    std::uint32_t job_id = 0;               // Slurm's; one job id may have several rows over the years, the newest counts
    std::uint32_t uid = 0;
    std::int64_t submit_time = 0;           // of the last run seen: Slurm sets it anew at each requeue
    std::int64_t interval_seconds = 0;      // 0: manual
    std::int64_t max_restarts = 0;
    std::uint32_t restarts = 0;             // requeues made by sckpt
    std::uint32_t slurm_restart_count = 0;  // the last one seen
    bool ended = false;                     // nothing more to do for it: its checkpoints are removed
    std::string held_reason;
    std::string last_error;
};

enum class CheckpointState { preparing = 1, captured = 2, complete = 3, failed = 4, bad = 5, deleting = 6 };

struct CheckpointRow {
    RowId id = 0;
    RowId job = 0;
    std::uint32_t number = 0;
    CheckpointState state{};
    std::int64_t created = 0, completed = 0;  // Unix seconds
    std::uint64_t bytes = 0;
    std::uint32_t frozen_ms = 0;
    std::string reason;
};

struct FileRow {
    std::string path;
    std::uint64_t inode = 0, size = 0;
    bool append = false, stdio = false;
};

struct ImageRow {
    std::string task;    // "batch"
    std::string node;    // where it was dumped
    std::string path;    // below the store
    std::string digest;  // empty until stored
    std::uint64_t bytes = 0;
    std::vector<FileRow> files;
};

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

class Catalogue {
   public:
    inline static constexpr int kSchemaVersion = 1;

    // Opens or creates; migrates an older schema (each step in one transaction), refuses a newer one.
    // ":memory:" for tests. After a crash the database is as of the last call that returned.
    static Result<Catalogue> open(const std::string& path);
    Catalogue(Catalogue&&) noexcept;
    Catalogue& operator=(Catalogue&&) noexcept;
    ~Catalogue();

    // jobs
    Result<RowId> add_job(const JobRow& job);                              // job.id is ignored
    Result<std::optional<JobRow>> newest_job(std::uint32_t job_id) const;
    Result<std::vector<JobRow>> jobs(bool with_ended) const;               // newest first
    Result<> set_job_run(RowId job, std::uint32_t slurm_restart_count, std::int64_t submit_time);
    Result<> set_job_ended(RowId job, bool ended);
    Result<> set_job_held(RowId job, const std::string& reason);           // "" clears it
    Result<> set_job_error(RowId job, const std::string& text);
    Result<std::uint32_t> count_restart(RowId job);                        // restarts + 1, returned

    // checkpoints
    // The next number, state preparing. image.path is the job's directory in the store; the image's own path becomes PATH/ckpt-NUMBER/TASK.
    Result<CheckpointRow> begin_checkpoint(RowId job, const ImageRow& image, std::int64_t now);
    Result<> captured(RowId checkpoint, std::uint64_t bytes, std::uint32_t frozen_ms, const std::vector<FileRow>& files);
    Result<> complete(RowId checkpoint, const std::string& digest, std::uint64_t bytes, std::int64_t now);
    Result<> failed(RowId checkpoint, const std::string& reason);          // from preparing or captured only
    Result<> bad(RowId checkpoint, const std::string& reason);             // from complete only
    Result<> begin_delete(RowId checkpoint);                               // any state → deleting; see the rules above
    Result<> deleted(RowId checkpoint);                                    // removes the row; only from deleting
    Result<std::optional<CheckpointRow>> checkpoint(RowId id) const;
    Result<std::vector<CheckpointRow>> checkpoints(RowId job) const;       // oldest first
    Result<std::vector<CheckpointRow>> checkpoints_in(CheckpointState state) const;
    // The newest complete one with a number below `below` (0: any).
    Result<std::optional<CheckpointRow>> newest_complete(RowId job, std::uint32_t below = 0) const;
    Result<std::optional<ImageRow>> image(RowId checkpoint) const;         // with its files

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
