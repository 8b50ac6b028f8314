// SPDX-License-Identifier: GPL-3.0-or-later
//
// The catalogue as a whole: what retention looks through, what is imported into a new one, and the copy that is kept elsewhere.
#include <algorithm>
#include <unordered_map>

#include <unistd.h>

#include "image_store/catalogue_impl.h"

namespace sckpt {
namespace {

constexpr int kBackupPages = 500;  // copied at a time: others wait for some milliseconds at most

RowId read_id(const Statement& row) { return row.get<RowId>(0); }
std::string read_text(const Statement& row) { return row.get<std::string>(0); }

KeptCheckpoint read_kept(const Statement& row) {
    constexpr int kAfter = kCheckpointColumns + kJobColumns;
    return {.row = read_checkpoint(row),
            .job = read_job(row, kCheckpointColumns),
            .in_use = row.get<bool>(kAfter),
            .freed = row.get<std::uint64_t>(kAfter + 1)};
}

void mark_newest_complete(std::vector<KeptCheckpoint>& rows) {
    std::unordered_map<RowId, KeptCheckpoint*> newest;
    for (KeptCheckpoint& kept : rows) {
        if (kept.row.state != CheckpointState::complete) continue;
        KeptCheckpoint*& of_job = newest[kept.row.job];
        if (of_job == nullptr || of_job->row.number < kept.row.number) of_job = &kept;
    }
    for (const auto& [job, kept] : newest) kept->newest_complete = true;
}

}  // namespace

// ---- retention, and whoever looks through everything ----

// Packs first: a checkpoint that comes meanwhile is then told with too little rather than too much.
Result<std::vector<KeptCheckpoint>> Catalogue::kept(std::int64_t now) const {
    std::unordered_map<RowId, std::uint64_t> held;
    SCKPT_TRY(impl_->in_portions(sql::kPackPortion, [&](RowId after, RowId end) -> Result<> {
        return each_row(impl_->database.query(sql::kHeldBytes, after, end),
                        [&](const Statement& row) { held[row.get<RowId>(0)] += row.get<std::uint64_t>(1); });
    }));
    std::vector<KeptCheckpoint> all;
    SCKPT_TRY(impl_->append_portions(all, sql::kCheckpointPortion, sql::kKept, read_kept, now));
    for (KeptCheckpoint& kept : all)
        if (const auto packs = held.find(kept.row.id); packs != held.end()) kept.freed += packs->second;
    mark_newest_complete(all);
    return all;
}

Result<std::vector<RowId>> Catalogue::jobs_with_dead_space(double share, std::uint64_t at_least) const {
    std::vector<RowId> jobs;
    SCKPT_TRY(impl_->append_portions(jobs, sql::kPackPortion, sql::kDeadSpace, read_id, share, at_least));
    std::ranges::sort(jobs);
    const auto repeated = std::ranges::unique(jobs);
    jobs.erase(repeated.begin(), repeated.end());
    return jobs;
}

Result<std::vector<std::string>> Catalogue::named_files() const {
    std::vector<std::string> paths;
    SCKPT_TRY(impl_->append_portions(paths, sql::kImagePortion, sql::kNamedManifests, read_text));
    SCKPT_TRY(impl_->append_portions(paths, sql::kPackPortion, sql::kNamedPacks, read_text));
    std::ranges::sort(paths);
    return paths;
}

Result<std::vector<JobRow>> Catalogue::forgettable_jobs(std::int64_t ended_before) const {
    const std::scoped_lock lock(impl_->mutex);
    return all_rows(impl_->database.query(sql::kForgettableJobs, ended_before),
                    [](const Statement& row) { return read_job(row, 0); });
}

Result<> Catalogue::forget_job(RowId job) {
    return impl_->write([&]() -> Result<> {
        Database& database = impl_->database;
        SCKPT_TRY(database.execute(sql::kForgetJob, job));
        if (database.changes() != 0) return {};
        SCKPT_ASSIGN(const auto ended, number(database.query(sql::kJobEnded, job)));
        if (!ended) return no_job(job);
        return fail(Errc::denied, std::format("the job in row {} has not ended or has checkpoints: it is not forgotten", job));
    });
}

// ---- rebuild ----

Result<> Catalogue::Impl::import_job(const ImageIdentity& who) {
    SCKPT_TRY(database.execute(sql::kImportJob, who.job_row, who.job_id, who.uid, who.user, who.account, who.submit_time,
                               who.interval_seconds, who.max_restarts, who.restart_count));
    SCKPT_ASSIGN(const auto job,
                 first_row(database.query(sql::kJob, who.job_row), [](const Statement& row) { return read_job(row, 0); }));
    if (!job || job->job_id != who.job_id || job->uid != who.uid)
        return fail(Errc::exists, std::format("row {} of the catalogue is another job than {} of user id {}", who.job_row,
                                              who.job_id, who.uid));
    return database.execute(sql::kImportRun, who.job_row, who.submit_time, who.restart_count, who.checkpoint);
}

// The image's row; none when all of it is there already.
Result<std::optional<RowId>> Catalogue::Impl::import_rows(const ImageIdentity& who) {
    SCKPT_ASSIGN(const auto row, first_row(database.query(sql::kCheckpoint, who.checkpoint_row), read_checkpoint));
    if (row) {
        SCKPT_ASSIGN(const auto image, number(database.query(sql::kImageOfTask, who.checkpoint_row, who.task)));
        const bool part = who.images > 1 && row->state == CheckpointState::captured && row->job == who.job_row;
        if (image || !part) return std::nullopt;
    } else {
        SCKPT_TRY(import_job(who));
        SCKPT_ASSIGN(const auto taken,
                     first_row(database.query(sql::kCheckpointByNumber, who.job_row, who.checkpoint), read_checkpoint));
        if (taken)
            return fail(Errc::exists,
                        std::format("checkpoint {} of job {} is another one in the catalogue", who.checkpoint, who.job_id));
        SCKPT_TRY(database.execute(sql::kImportCheckpoint, who.checkpoint_row, who.job_row, who.checkpoint, who.created,
                                   who.frozen_ms));
    }
    return number(database.query(sql::kAddImage, who.checkpoint_row, who.task, who.node));
}

Result<bool> Catalogue::import(const Manifest& manifest, const StoredImage& image) {
    const ImageIdentity& who = manifest.identity;
    if (who.job_row <= 0 || who.checkpoint_row <= 0 || who.checkpoint == 0)
        return fail(Errc::invalid, image.manifest + " does not say which checkpoint it is of");
    return impl_->write([&]() -> Result<bool> {
        Database& database = impl_->database;
        SCKPT_ASSIGN(const FileUse use, impl_->use(image.manifest));
        if (use == FileUse::named || use == FileUse::garbage) return false;
        SCKPT_ASSIGN(const auto id, impl_->import_rows(who));
        if (!id) return false;
        SCKPT_TRY(impl_->add_files(*id, manifest.user_files));
        SCKPT_ASSIGN(const auto packs, all_rows(database.query(sql::kPacksOfJob, who.job_row), read_id));
        std::set<RowId> known(packs.begin(), packs.end());
        SCKPT_TRY(impl_->store_image(who.job_row, *id, image, known));
        SCKPT_TRY(database.execute(sql::kAddStoredBytes, who.checkpoint_row, image.plain_bytes, image.new_bytes));
        SCKPT_ASSIGN(const auto images, number(database.query(sql::kCountImages, who.checkpoint_row)));
        if (images != who.images) return true;
        SCKPT_TRY(database.execute(sql::kSetCompleted, who.checkpoint_row));
        SCKPT_TRY(impl_->set_state(who.checkpoint_row, CheckpointState::complete));
        return true;
    });
}

// ---- backup ----

Result<> Catalogue::Impl::copy_to(const std::string& path) {
    std::unique_lock lock(mutex);
    SCKPT_ASSIGN(Backup backup, Backup::begin(database, path));  // ended with the lock held: it is known to the source
    for (;;) {
        SCKPT_ASSIGN(const bool done, backup.step(kBackupPages));
        if (done) return {};
        lock.unlock();
        let_others();
        lock.lock();
    }
}

// Whoever puts the copy in the catalogue's place has checkpoints in the store that are newer: it needs a rebuild.
static Result<> mark_copy(const std::string& path) {
    SCKPT_ASSIGN(Database copy, Database::open(path, kApplicationId));
    SCKPT_TRY(copy.execute(sql::kSetNeedsRebuild, true));
    SCKPT_TRY(copy.execute(sql::kForgetUnfinished));  // they may be complete by then: the store will tell
    return copy.script("PRAGMA journal_mode = DELETE");  // one file, and durable
}

Result<> Catalogue::backup(const std::string& path) const {
    auto done = impl_->copy_to(path);
    if (!done && done.error().code == Errc::exists) return done;
    if (done) done = mark_copy(path);
    if (!done) ::unlink(path.c_str());
    return done;
}

}  // namespace sckpt
