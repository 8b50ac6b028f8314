// SPDX-License-Identifier: GPL-3.0-or-later
//
// The catalogue as a whole: what retention looks through, what is imported into a new one, and the copy that is kept elsewhere.
#include <algorithm>
#include <unordered_map>

#include <unistd.h>

#include "image_store/catalogue_impl.h"
#include "image_store/names.h"

namespace sckpt {
namespace {

constexpr int kBackupPages = 500;  // copied at a time: others wait for some milliseconds at most

RowId read_id(const Statement& row) { return row.get<RowId>(0); }
std::string read_text(const Statement& row) { return row.get<std::string>(0); }

KeptCheckpoint read_kept(const Statement& row) {
    constexpr int kAfter = kCheckpointColumns + kJobColumns;
    return {.row = read_checkpoint(row),
            .job = read_job(row, kCheckpointColumns),
            .in_use = row.get<bool>(kAfter)};
}

void mark_newest_complete(std::vector<KeptCheckpoint>& rows) {
    std::map<std::pair<RowId, std::string_view>, KeptCheckpoint*> newest;  // of a job, or of a step
    for (KeptCheckpoint& kept : rows) {
        if (kept.row.state != CheckpointState::complete || kept.row.passed) continue;
        KeptCheckpoint*& so_far = newest[{kept.row.job, kept.row.step}];
        if (so_far == nullptr || so_far->row.number < kept.row.number) so_far = &kept;
    }
    for (const auto& [of, kept] : newest) kept->newest_complete = true;
}

bool of_same_checkpoint(const ImageIdentity& a, const ImageIdentity& b) {
    const auto what = [](const ImageIdentity& id) {
        return std::tie(id.job_row, id.job_id, id.uid, id.checkpoint_row, id.checkpoint, id.images, id.leader);
    };
    return what(a) == what(b);
}

}  // namespace

Result<> check_whole(const std::vector<FoundImage>& images) {
    if (images.empty()) return fail(Errc::not_found, "no image of the checkpoint is there");
    const ImageIdentity& first = images.front().identity;
    const auto name = [&] { return std::format("checkpoint {} of job {}", first.checkpoint, first.job_id); };
    std::set<std::string_view> tasks;
    for (const FoundImage& image : images) {
        if (!of_same_checkpoint(image.identity, first) || !tasks.insert(image.identity.task).second)
            return fail(Errc::corrupt, std::format("{} and {} cannot both be of {}", images.front().stored.manifest, image.stored.manifest,
                                                   name()));
    }
    if (tasks.size() < first.images)
        return fail(Errc::not_found, std::format("{} of the {} images of {} are there", tasks.size(), first.images, name()));
    if (tasks.size() > first.images || !tasks.contains(first.leader))
        return fail(Errc::corrupt, std::format("{} is to have {} images, led by that of {}: its manifests tell of others", name(),
                                               first.images, first.leader));
    return {};
}

// ---- retention, and whoever looks through everything ----

// Files first: a checkpoint that comes meanwhile is then told with too little rather than too much.
Result<std::vector<KeptCheckpoint>> Catalogue::kept(std::int64_t now) const {
    std::unordered_map<RowId, std::uint64_t> held;
    const auto add_bytes = [&](const char* portion, const char* bytes) {
        return impl_->in_portions(portion, [&](RowId after, RowId end) -> Result<> {
            return each_row(impl_->database.query(bytes, after, end),
                            [&](const Statement& row) { held[row.get<RowId>(0)] += row.get<std::uint64_t>(1); });
        });
    };
    SCKPT_TRY(add_bytes(sql::kPackPortion, sql::kHeldBytes));
    SCKPT_TRY(add_bytes(sql::kImagePortion, sql::kManifestBytes));
    std::vector<KeptCheckpoint> all;
    SCKPT_TRY(impl_->append_portions(all, sql::kCheckpointPortion, sql::kKept, read_kept, now));
    for (KeptCheckpoint& kept : all)
        if (const auto bytes = held.find(kept.row.id); bytes != held.end()) kept.freed = bytes->second;
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

Result<> Catalogue::Impl::import_checkpoint(const ImageIdentity& who) {
    SCKPT_TRY(import_job(who));
    SCKPT_ASSIGN(const auto taken, first_row(database.query(sql::kCheckpointByNumber, who.job_row, who.checkpoint), read_checkpoint));
    if (taken)
        return fail(Errc::exists, std::format("checkpoint {} of job {} is another one in the catalogue", who.checkpoint, who.job_id));
    return database.execute(sql::kImportCheckpoint, who.checkpoint_row, who.job_row, who.checkpoint, who.created, step_of(who.leader),
                            who.images);
}

// known: packs of the job so far; those of the image come to it.
Result<StoredTask> Catalogue::Impl::import_image(const FoundImage& image, std::set<RowId>& known) {
    const ImageIdentity& who = image.identity;
    const CapturedImage row{who.task, who.node, image.stored.plain_bytes, image.user_files};
    SCKPT_ASSIGN(const RowId id, add_image(who.checkpoint_row, row, {}));
    SCKPT_TRY(store_image(who.job_row, id, image.stored, known));
    if (who.task == who.leader) SCKPT_TRY(add_ended(who.checkpoint_row, who.ended));
    return StoredTask{who.task, image.stored, who.frozen_ms};
}

Result<bool> Catalogue::Impl::may_import(const std::vector<FoundImage>& images) {
    for (const FoundImage& image : images) {
        SCKPT_ASSIGN(const FileUse is, use(image.stored.manifest));
        if (is == FileUse::named || is == FileUse::garbage) return false;
    }
    SCKPT_ASSIGN(const auto row, first_row(database.query(sql::kCheckpoint, images.front().identity.checkpoint_row), read_checkpoint));
    return !row;
}

Result<bool> Catalogue::import(const std::vector<FoundImage>& images) {
    SCKPT_TRY(check_whole(images));
    const ImageIdentity& who = images.front().identity;
    if (who.job_row <= 0 || who.checkpoint_row <= 0 || who.checkpoint == 0)
        return fail(Errc::invalid, images.front().stored.manifest + " does not say which checkpoint it is of");
    return impl_->write([&]() -> Result<bool> {
        SCKPT_ASSIGN(const bool may, impl_->may_import(images));
        if (!may) return false;
        SCKPT_TRY(impl_->import_checkpoint(who));
        SCKPT_ASSIGN(const auto packs, all_rows(impl_->database.query(sql::kPacksOfJob, who.job_row), read_id));
        std::set<RowId> known(packs.begin(), packs.end());
        std::vector<StoredTask> stored;
        for (const FoundImage& image : images) {
            SCKPT_ASSIGN(StoredTask task, impl_->import_image(image, known));
            stored.push_back(std::move(task));
        }
        SCKPT_TRY(impl_->set_stored(who.checkpoint_row, stored, who.created));
        return true;
    });
}

Result<> Catalogue::set_unreadable(const std::vector<Store::Unreadable>& files) {
    return impl_->write([&]() -> Result<> {
        SCKPT_TRY(impl_->database.execute(sql::kForgetUnreadable));
        for (const Store::Unreadable& file : files)
            SCKPT_TRY(impl_->database.execute(sql::kAddUnreadable, file.path, job_id_in_name(file.path), file.why));
        return {};
    });
}

Result<std::optional<Store::Unreadable>> Catalogue::unreadable_of(std::uint32_t job_id) const {
    const std::scoped_lock lock(impl_->mutex);
    return first_row(impl_->database.query(sql::kUnreadableOf, job_id), [](const Statement& row) {
        return Store::Unreadable{.path = row.get<std::string>(0), .why = row.get<std::string>(1)};
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
