// SPDX-License-Identifier: GPL-3.0-or-later
//
// The catalogue on SQLite. Each call is one transaction under one mutex; what a checkpoint may become is decided inside of it,
// from the state that the database has, never from what a caller remembers.
#include "image_store/catalogue.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <limits>

#include "common/bytes.h"
#include "image_store/catalogue_impl.h"
#include "image_store/catalogue_schema.h"

namespace sckpt {
namespace {

constexpr int kEventsKept = 200;  // of each job
static_assert(std::size(sql::kMigrations) == Catalogue::kSchemaVersion);

constexpr const char* state_name(CheckpointState state) {
    switch (state) {
        case CheckpointState::preparing: return "preparing";
        case CheckpointState::captured: return "captured";
        case CheckpointState::complete: return "complete";
        case CheckpointState::failed: return "failed";
        case CheckpointState::bad: return "bad";
    }
    return "unknown";
}

JobRow read_whole_job(const Statement& row) {
    JobRow job = read_job(row, 0);
    job.held_reason = row.get<std::string>(kJobColumns);
    job.last_error = row.get<std::string>(kJobColumns + 1);
    return job;
}

UserFile read_file_row(const Statement& row) {
    return {.path = row.get<std::string>(0),
            .inode = row.get<std::uint64_t>(1),
            .size = row.get<std::uint64_t>(2),
            .append = row.get<bool>(3),
            .stdio = row.get<bool>(4)};
}

struct NumberedImage {
    RowId id = 0;
    ImageRow row;
};

NumberedImage read_image(const Statement& row) {
    return {.id = row.get<RowId>(0),
            .row = {.task = row.get<std::string>(1),
                    .node = row.get<std::string>(2),
                    .fast_node = row.get<std::string>(3),
                    .manifest = row.get<std::string>(4),
                    .digest = row.get<std::string>(5),
                    .bytes = row.get<std::uint64_t>(6),
                    .files = {}}};
}

EndedTask read_ended(const Statement& row) {
    return {.task = row.get<std::string>(0), .wait_status = row.get<std::int32_t>(1)};
}

// What a checkpoint consists of: each task once, with an image or ended.
Result<> check_captured(const std::vector<CapturedImage>& images, const std::vector<EndedTask>& ended) {
    if (images.empty()) return fail(Errc::invalid, "a checkpoint without an image is none");
    std::set<std::string_view> tasks;
    const auto add = [&](const std::string& task) -> Result<> {
        if (tasks.insert(task).second) return {};
        return fail(Errc::invalid, std::format("task {} comes twice in one checkpoint", task));
    };
    for (const CapturedImage& image : images) SCKPT_TRY(add(image.task));
    for (const EndedTask& task : ended) SCKPT_TRY(add(task.task));
    return {};
}

RestartRow read_restart(const Statement& row) {
    return {.time = row.get<std::int64_t>(0),
            .slurm_restart_count = row.get<std::uint32_t>(1),
            .checkpoint = row.get<std::uint32_t>(2),
            .node = row.get<std::string>(3),
            .outcome = row.get<std::string>(4),
            .restore_ms = row.get<std::uint32_t>(5)};
}

EventRow read_event(const Statement& row) { return {.time = row.get<std::int64_t>(0), .text = row.get<std::string>(1)}; }

// All steps in one transaction: a new database cannot be taken for a migrated one after a crash.
Result<> migrate(Database& database, const std::string& path) {
    SCKPT_ASSIGN(const int version, database.user_version());
    if (version > Catalogue::kSchemaVersion)
        return fail(Errc::unsupported,
                    std::format("{}: its schema has version {}, this sckptctld knows {}: run the newer sckptctld that wrote it",
                                path, version, Catalogue::kSchemaVersion));
    if (version == Catalogue::kSchemaVersion) return {};
    SCKPT_ASSIGN(Transaction transaction, Transaction::begin(database));
    for (int step = version; step < Catalogue::kSchemaVersion; ++step) SCKPT_TRY(database.script(sql::kMigrations[step]));
    if (version == 0) SCKPT_TRY(database.execute(sql::kSetNeedsRebuild, true));
    SCKPT_TRY(database.set_user_version(Catalogue::kSchemaVersion));
    return transaction.commit();
}

// A catalogue that may have forgotten rows must not give their numbers to new ones: images in the store and in fast tiers carry
// them. Milliseconds since 1970 run ahead of any count of jobs or checkpoints.
Result<> skip_numbers_given_before(Database& database) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    const std::int64_t floor = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
    SCKPT_ASSIGN(Transaction transaction, Transaction::begin(database));
    for (const char* table : {"jobs", "checkpoints"}) {
        SCKPT_TRY(database.execute(sql::kMakeSequence, std::string_view(table)));
        SCKPT_TRY(database.execute(sql::kRaiseSequence, std::string_view(table), floor));
    }
    SCKPT_TRY(database.execute(sql::kSetFirstNumber, floor));
    return transaction.commit();
}

}  // namespace

JobRow read_job(const Statement& row, int first) {
    return {.id = row.get<RowId>(first),
            .job_id = row.get<std::uint32_t>(first + 1),
            .uid = row.get<std::uint32_t>(first + 2),
            .user = row.get<std::string>(first + 3),
            .account = row.get<std::string>(first + 4),
            .submit_time = row.get<std::int64_t>(first + 5),
            .interval_seconds = row.get<std::int64_t>(first + 6),
            .max_restarts = row.get<std::int64_t>(first + 7),
            .restarts = row.get<std::uint32_t>(first + 8),
            .slurm_restart_count = row.get<std::uint32_t>(first + 9),
            .outcome = static_cast<JobOutcome>(row.get<int>(first + 10)),
            .ended = row.get<std::int64_t>(first + 11),
            .held_reason = {},
            .last_error = {}};
}

CheckpointRow read_checkpoint(const Statement& row) {
    return {.id = row.get<RowId>(0),
            .job = row.get<RowId>(1),
            .number = row.get<std::uint32_t>(2),
            .state = static_cast<CheckpointState>(row.get<int>(3)),
            .created = row.get<std::int64_t>(4),
            .completed = row.get<std::int64_t>(5),
            .bytes = row.get<std::uint64_t>(6),
            .new_bytes = row.get<std::uint64_t>(7),
            .frozen_ms = row.get<std::uint32_t>(8),
            .urgent = row.get<bool>(9),
            .pinned = row.get<bool>(10),
            .base = row.get<RowId>(11),
            .reason = row.get<std::string>(12),
            .step = row.get<std::string>(13),
            .images = row.get<std::uint32_t>(14),
            .passed = row.get<bool>(15)};
}

Result<std::optional<std::int64_t>> number(Result<Statement>&& query) {
    return first_row(std::move(query), [](const Statement& row) { return row.get<std::int64_t>(0); });
}

std::unexpected<Error> no_job(RowId job) {
    return fail(Errc::not_found, std::format("the catalogue has no job in row {}", job));
}

Result<CheckpointRow> Catalogue::Impl::find(RowId checkpoint) {
    SCKPT_ASSIGN(auto row, first_row(database.query(sql::kCheckpoint, checkpoint), read_checkpoint));
    if (!row) return fail(Errc::not_found, std::format("the catalogue has no checkpoint in row {}", checkpoint));
    return std::move(*row);
}

Result<CheckpointRow> Catalogue::Impl::find_in(RowId checkpoint, std::initializer_list<CheckpointState> from,
                                               CheckpointState to) {
    SCKPT_ASSIGN(CheckpointRow row, find(checkpoint));
    if (std::ranges::find(from, row.state) == from.end())
        return fail(Errc::invalid,
                    std::format("checkpoint {} is {}: it cannot become {}", row.number, state_name(row.state), state_name(to)));
    return row;
}

Result<> Catalogue::Impl::set_state(RowId checkpoint, CheckpointState state) {
    return database.execute(sql::kSetState, checkpoint, static_cast<int>(state));
}

Result<> Catalogue::Impl::add_files(RowId image, const std::vector<UserFile>& files) {
    for (const UserFile& file : files)
        SCKPT_TRY(database.execute(sql::kAddFile, image, file.path, file.inode, file.size, file.append, file.stdio));
    return {};
}

Result<RowId> Catalogue::Impl::add_image(RowId checkpoint, const CapturedImage& image, const std::string& fast_node) {
    SCKPT_ASSIGN(const auto id, number(database.query(sql::kAddImage, checkpoint, image.task, image.node, fast_node, image.bytes)));
    SCKPT_TRY(add_files(id.value_or(0), image.files));
    return id.value_or(0);
}

Result<> Catalogue::Impl::add_ended(RowId checkpoint, const std::vector<EndedTask>& ended) {
    for (const EndedTask& task : ended) SCKPT_TRY(database.execute(sql::kAddEnded, checkpoint, task.task, task.wait_status));
    return {};
}

Catalogue::Catalogue(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Catalogue::Catalogue(Catalogue&&) noexcept = default;
Catalogue& Catalogue::operator=(Catalogue&&) noexcept = default;
Catalogue::~Catalogue() = default;

Result<Catalogue> Catalogue::open(const std::string& path) {
    SCKPT_ASSIGN(Database database, Database::open(path, kApplicationId));
    SCKPT_TRY(database.check());
    SCKPT_TRY(migrate(database, path));
    SCKPT_ASSIGN(const auto needs_rebuild, number(database.query(sql::kNeedsRebuild)));
    const bool incomplete = needs_rebuild.value_or(1) != 0;
    if (incomplete) SCKPT_TRY(skip_numbers_given_before(database));
    SCKPT_ASSIGN(const auto store, first_row(database.query(sql::kStore), [](const Statement& row) { return row.get<std::string>(0); }));
    return Catalogue(std::make_unique<Impl>(std::move(database), incomplete, store.value_or("")));
}

bool Catalogue::needs_rebuild() const { return impl_->needs_rebuild; }

Result<> Catalogue::set_rebuilt() {
    SCKPT_TRY(impl_->write([&] { return impl_->database.execute(sql::kSetNeedsRebuild, false); }));
    impl_->needs_rebuild = false;
    return {};
}

Result<bool> Catalogue::gave_number(RowId checkpoint) const {
    const std::scoped_lock lock(impl_->mutex);
    SCKPT_ASSIGN(const auto gave, number(impl_->database.query(sql::kGaveNumber, checkpoint)));
    return gave.value_or(0) != 0;
}

std::string Catalogue::store_id() const {
    const std::scoped_lock lock(impl_->mutex);
    return impl_->store;
}

Result<> Catalogue::set_store_id(const std::string& id) {
    return impl_->write([&]() -> Result<> {
        SCKPT_TRY(impl_->database.execute(sql::kSetStore, id));
        if (impl_->database.changes() == 0) return fail(Errc::exists, std::format("the catalogue is that of store {}", impl_->store));
        impl_->store = id;
        return {};
    });
}

// ---- jobs ----

Result<RowId> Catalogue::add_job(const JobRow& job) {
    return impl_->write([&]() -> Result<RowId> {
        SCKPT_TRY(impl_->database.execute(sql::kAddJob, job.job_id, job.uid, job.user, job.account, job.submit_time,
                                          job.interval_seconds, job.max_restarts, job.restarts, job.slurm_restart_count,
                                          static_cast<int>(job.outcome), job.ended, job.held_reason, job.last_error));
        return impl_->database.last_insert_id();
    });
}

Result<std::optional<JobRow>> Catalogue::job(RowId id) const {
    const std::scoped_lock lock(impl_->mutex);
    return first_row(impl_->database.query(sql::kJob, id), read_whole_job);
}

Result<std::optional<JobRow>> Catalogue::newest_job(std::uint32_t job_id) const {
    const std::scoped_lock lock(impl_->mutex);
    return first_row(impl_->database.query(sql::kNewestJob, job_id), read_whole_job);
}

Result<std::vector<JobRow>> Catalogue::jobs(bool with_ended) const {
    const std::scoped_lock lock(impl_->mutex);
    return all_rows(impl_->database.query(with_ended ? sql::kAllJobs : sql::kLiveJobs), read_whole_job);
}

Result<> Catalogue::set_job_run(RowId job, std::uint32_t slurm_restart_count, std::int64_t submit_time) {
    return impl_->update_job(sql::kSetJobRun, job, slurm_restart_count, submit_time);
}
Result<> Catalogue::set_job_ended(RowId job, JobOutcome outcome, std::int64_t now) {
    return impl_->update_job(sql::kSetJobEnded, job, static_cast<int>(outcome), outcome == JobOutcome::live ? 0 : now);
}
Result<> Catalogue::set_job_held(RowId job, const std::string& reason) {
    return impl_->update_job(sql::kSetJobHeld, job, reason);
}
Result<> Catalogue::set_job_error(RowId job, const std::string& text) {
    return impl_->update_job(sql::kSetJobError, job, text);
}

Result<std::uint32_t> Catalogue::count_restart(RowId job) {
    return impl_->write([&]() -> Result<std::uint32_t> {
        SCKPT_ASSIGN(const auto counted, number(impl_->database.query(sql::kCountRestart, job)));
        if (!counted) return no_job(job);
        return static_cast<std::uint32_t>(*counted);
    });
}

// ---- checkpoints ----

Result<CheckpointRow> Catalogue::begin_checkpoint(RowId job, bool urgent, std::int64_t now, const std::string& step) {
    return impl_->write([&]() -> Result<CheckpointRow> {
        Database& database = impl_->database;
        SCKPT_ASSIGN(const auto taken, number(database.query(sql::kTakeNumber, job)));
        if (!taken) return no_job(job);
        SCKPT_ASSIGN(const auto base, number(database.query(sql::kBase, job, step)));
        SCKPT_TRY(database.execute(sql::kAddCheckpoint, job, *taken, now, urgent, base.value_or(0), step));
        return impl_->find(database.last_insert_id());
    });
}

Result<> Catalogue::captured(RowId checkpoint, const std::vector<CapturedImage>& images, const std::vector<EndedTask>& ended) {
    SCKPT_TRY(check_captured(images, ended));
    return impl_->write([&]() -> Result<> {
        SCKPT_TRY(impl_->find_in(checkpoint, {CheckpointState::preparing}, CheckpointState::captured));
        std::uint64_t bytes = 0;
        for (const CapturedImage& image : images) {
            SCKPT_TRY(impl_->add_image(checkpoint, image, image.node));
            bytes += image.bytes;
        }
        SCKPT_TRY(impl_->add_ended(checkpoint, ended));
        SCKPT_TRY(impl_->database.execute(sql::kSetCaptured, checkpoint, images.size(), bytes));
        return impl_->set_state(checkpoint, CheckpointState::captured);
    });
}

Result<> Catalogue::failed(RowId checkpoint, const std::string& reason) {
    return impl_->write([&]() -> Result<> {
        SCKPT_TRY(impl_->find_in(checkpoint, {CheckpointState::preparing, CheckpointState::captured}, CheckpointState::failed));
        SCKPT_TRY(impl_->set_state(checkpoint, CheckpointState::failed));
        SCKPT_TRY(impl_->database.execute(sql::kForgetFastImages, checkpoint));
        return impl_->database.execute(sql::kSetReason, checkpoint, reason);
    });
}

// Which of the image's chunks are damaged is not known here, so no new one may refer to any pack of it.
Result<> Catalogue::bad(RowId checkpoint, const std::string& reason, const std::string& digest) {
    return impl_->write([&]() -> Result<> {
        SCKPT_TRY(impl_->find_in(checkpoint, {CheckpointState::complete}, CheckpointState::bad));
        if (!digest.empty()) {
            SCKPT_ASSIGN(const auto image, number(impl_->database.query(sql::kHasDigest, checkpoint, digest)));
            if (!image) return fail(Errc::busy, std::format("the checkpoint in row {} was rewritten since it was found bad", checkpoint));
        }
        SCKPT_TRY(impl_->set_state(checkpoint, CheckpointState::bad));
        SCKPT_TRY(impl_->database.execute(sql::kSuspectPacks, checkpoint, digest));
        return impl_->database.execute(sql::kSetReason, checkpoint, reason);
    });
}

Result<> Catalogue::lease(RowId checkpoint, std::int64_t until) {
    return impl_->update_checkpoint(sql::kSetLease, checkpoint, until);
}
Result<> Catalogue::set_pinned(RowId checkpoint, bool pinned, std::uint64_t most) {
    return impl_->write([&]() -> Result<> {
        SCKPT_TRY(impl_->find(checkpoint));
        SCKPT_TRY(impl_->database.execute(sql::kSetPinned, checkpoint, pinned));
        if (!pinned || most == 0) return {};
        SCKPT_ASSIGN(const auto bytes, number(impl_->database.query(sql::kPinnedBytes, checkpoint)));
        if (std::cmp_less_equal(bytes.value_or(0), most)) return {};
        return fail(Errc::no_space, std::format("what is pinned would take {} of the {} that the user may have (retention.user_quota)",
                                                format_bytes(static_cast<std::uint64_t>(bytes.value_or(0))), format_bytes(most)));
    });
}
Result<> Catalogue::set_passed(RowId checkpoint, const std::string& reason) {
    return impl_->write([&]() -> Result<> {
        SCKPT_TRY(impl_->find_in(checkpoint, {CheckpointState::complete}, CheckpointState::complete));
        return impl_->database.execute(sql::kSetPassed, checkpoint, reason);
    });
}
Result<> Catalogue::set_urgent(RowId checkpoint) { return impl_->update_checkpoint(sql::kSetUrgent, checkpoint); }
Result<> Catalogue::set_fast_node(RowId checkpoint, const std::string& node) {
    return impl_->update_checkpoint(sql::kSetFastNode, checkpoint, node);
}
Result<> Catalogue::evicted(RowId checkpoint, const std::string& node) {
    return impl_->write([&] { return impl_->database.execute(sql::kEvicted, checkpoint, node); });
}
Result<> Catalogue::forget_fast_node(const std::string& node) {
    return impl_->write([&] { return impl_->database.execute(sql::kForgetFastNode, node); });
}

Result<std::optional<CheckpointRow>> Catalogue::checkpoint(RowId id) const {
    const std::scoped_lock lock(impl_->mutex);
    return first_row(impl_->database.query(sql::kCheckpoint, id), read_checkpoint);
}

Result<std::optional<CheckpointRow>> Catalogue::checkpoint(RowId job, std::uint32_t number) const {
    const std::scoped_lock lock(impl_->mutex);
    return first_row(impl_->database.query(sql::kCheckpointByNumber, job, number), read_checkpoint);
}

Result<std::vector<CheckpointRow>> Catalogue::checkpoints(RowId job) const {
    const std::scoped_lock lock(impl_->mutex);
    return all_rows(impl_->database.query(sql::kCheckpoints, job), read_checkpoint);
}

Result<std::vector<CheckpointRow>> Catalogue::checkpoints_in(CheckpointState state) const {
    const std::scoped_lock lock(impl_->mutex);
    return all_rows(impl_->database.query(sql::kCheckpointsIn, static_cast<int>(state)), read_checkpoint);
}

Result<std::optional<CheckpointRow>> Catalogue::newest_complete(RowId job, std::uint32_t below) const {
    const std::int64_t bound = below != 0 ? below : std::numeric_limits<std::int64_t>::max();
    const std::scoped_lock lock(impl_->mutex);
    return first_row(impl_->database.query(sql::kNewestComplete, job, bound), read_checkpoint);
}

Result<std::optional<CheckpointRow>> Catalogue::newest_complete_step(RowId job, const std::string& step) const {
    const std::scoped_lock lock(impl_->mutex);
    return first_row(impl_->database.query(sql::kNewestCompleteStep, job, step), read_checkpoint);
}

Result<std::vector<ImageRow>> Catalogue::images(RowId checkpoint, bool with_files) const {
    const std::scoped_lock lock(impl_->mutex);
    SCKPT_ASSIGN(auto found, all_rows(impl_->database.query(sql::kImages, checkpoint), read_image));
    std::vector<ImageRow> images;
    images.reserve(found.size());
    for (NumberedImage& image : found) {
        if (with_files) {
            SCKPT_ASSIGN(image.row.files, all_rows(impl_->database.query(sql::kFiles, image.id), read_file_row));
        }
        images.push_back(std::move(image.row));
    }
    return images;
}

Result<std::optional<ImageRow>> Catalogue::image(RowId checkpoint, const std::string& task) const {
    const std::scoped_lock lock(impl_->mutex);
    SCKPT_ASSIGN(auto found, first_row(impl_->database.query(sql::kImage, checkpoint, task), read_image));
    if (!found) return std::nullopt;
    SCKPT_ASSIGN(found->row.files, all_rows(impl_->database.query(sql::kFiles, found->id), read_file_row));
    return std::move(found->row);
}

Result<std::vector<EndedTask>> Catalogue::ended_tasks(RowId checkpoint) const {
    const std::scoped_lock lock(impl_->mutex);
    return all_rows(impl_->database.query(sql::kEndedTasks, checkpoint), read_ended);
}

Result<std::optional<std::int32_t>> Catalogue::ended_task(RowId checkpoint, const std::string& task) const {
    const std::scoped_lock lock(impl_->mutex);
    return first_row(impl_->database.query(sql::kEndedTask, checkpoint, task),
                     [](const Statement& row) { return row.get<std::int32_t>(0); });
}

// ---- restarts and events ----

Result<> Catalogue::add_restart(RowId job, const RestartRow& restart) {
    return impl_->write([&] {
        return impl_->database.execute(sql::kAddRestart, job, restart.time, restart.slurm_restart_count, restart.checkpoint,
                                       restart.node, restart.outcome, restart.restore_ms);
    });
}

Result<std::vector<RestartRow>> Catalogue::restarts(RowId job) const {
    const std::scoped_lock lock(impl_->mutex);
    return all_rows(impl_->database.query(sql::kRestarts, job), read_restart);
}

Result<> Catalogue::add_event(RowId job, std::int64_t now, const std::string& text) {
    return impl_->write([&]() -> Result<> {
        SCKPT_TRY(impl_->database.execute(sql::kAddEvent, job, now, text));
        return impl_->database.execute(sql::kTrimEvents, job, kEventsKept);
    });
}

Result<std::vector<EventRow>> Catalogue::events(RowId job) const {
    const std::scoped_lock lock(impl_->mutex);
    return all_rows(impl_->database.query(sql::kEvents, job), read_event);
}

}  // namespace sckpt
