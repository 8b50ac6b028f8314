// SPDX-License-Identifier: GPL-3.0-or-later
//
// The catalogue on SQLite. Each call is one transaction under one mutex; what a checkpoint may become is decided inside of it,
// from the state that the database has, never from what a caller remembers.
#include "image_store/catalogue.h"

#include <algorithm>
#include <array>
#include <format>
#include <initializer_list>
#include <mutex>

#include "image_store/catalogue_sql.h"
#include "image_store/sqlite.h"

namespace sckpt {
namespace {

constexpr std::int32_t kApplicationId = 0x53434b50;  // "SCKP"
constexpr int kEventsKept = 200;                     // of each job
static_assert(std::size(sql::kMigrations) == Catalogue::kSchemaVersion);

constexpr const char* state_name(CheckpointState state) {
    switch (state) {
        case CheckpointState::preparing: return "preparing";
        case CheckpointState::captured: return "captured";
        case CheckpointState::complete: return "complete";
        case CheckpointState::failed: return "failed";
        case CheckpointState::bad: return "bad";
        case CheckpointState::deleting: return "deleting";
    }
    return "unknown";
}

// The columns in the order of the SELECTs in catalogue_sql.h.
JobRow read_job(const Statement& row) {
    return {.id = row.get<RowId>(0),
            .job_id = row.get<std::uint32_t>(1),
            .uid = row.get<std::uint32_t>(2),
            .submit_time = row.get<std::int64_t>(3),
            .interval_seconds = row.get<std::int64_t>(4),
            .max_restarts = row.get<std::int64_t>(5),
            .restarts = row.get<std::uint32_t>(6),
            .slurm_restart_count = row.get<std::uint32_t>(7),
            .ended = row.get<bool>(8),
            .held_reason = row.get<std::string>(9),
            .last_error = row.get<std::string>(10)};
}

CheckpointRow read_checkpoint(const Statement& row) {
    return {.id = row.get<RowId>(0),
            .job = row.get<RowId>(1),
            .number = row.get<std::uint32_t>(2),
            .state = static_cast<CheckpointState>(row.get<int>(3)),
            .created = row.get<std::int64_t>(4),
            .completed = row.get<std::int64_t>(5),
            .bytes = row.get<std::uint64_t>(6),
            .frozen_ms = row.get<std::uint32_t>(7),
            .reason = row.get<std::string>(8)};
}

FileRow read_file_row(const Statement& row) {
    return {.path = row.get<std::string>(0),
            .inode = row.get<std::uint64_t>(1),
            .size = row.get<std::uint64_t>(2),
            .append = row.get<bool>(3),
            .stdio = row.get<bool>(4)};
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

// All rows of a query; the first row; the number in the only column of the only row.
template <class F>
auto all_rows(Result<Statement> query, F read) -> Result<std::vector<decltype(read(*query))>> {
    if (!query) return std::unexpected(std::move(query).error());
    std::vector<decltype(read(*query))> rows;
    for (;;) {
        SCKPT_ASSIGN(const Step step, query->step());
        if (step == Step::done) return rows;
        rows.push_back(read(*query));
    }
}

template <class F>
auto first_row(Result<Statement> query, F read) -> Result<std::optional<decltype(read(*query))>> {
    SCKPT_ASSIGN(auto rows, all_rows(std::move(query), read));
    if (rows.empty()) return std::nullopt;
    return std::move(rows.front());
}

Result<std::optional<std::int64_t>> number(Result<Statement> query) {
    return first_row(std::move(query), [](const Statement& row) { return row.get<std::int64_t>(0); });
}

std::unexpected<Error> no_job(RowId job) {
    return fail(Errc::not_found, std::format("the catalogue has no job in row {}", job));
}

Result<> migrate(Database& database, const std::string& path) {
    SCKPT_ASSIGN(int version, database.user_version());
    if (version > Catalogue::kSchemaVersion)
        return fail(Errc::unsupported,
                    std::format("{}: its schema has version {}, this sckptctld knows {}: run the newer sckptctld that wrote it",
                                path, version, Catalogue::kSchemaVersion));
    for (; version < Catalogue::kSchemaVersion; ++version) {
        SCKPT_ASSIGN(Transaction transaction, Transaction::begin(database));
        SCKPT_TRY(database.script(sql::kMigrations[version]));
        SCKPT_TRY(database.set_user_version(version + 1));
        SCKPT_TRY(transaction.commit());
    }
    return {};
}

}  // namespace

struct Catalogue::Impl {
    explicit Impl(Database opened) : database(std::move(opened)) {}

    // Runs `body` as one transaction: all of it is on disk when this succeeds, nothing of it otherwise.
    template <class F>
    auto write(F body) -> decltype(body()) {
        const std::scoped_lock lock(mutex);
        SCKPT_ASSIGN(Transaction transaction, Transaction::begin(database));
        auto result = body();
        if (result) SCKPT_TRY(transaction.commit());
        return result;
    }

    // A change of one job's row.
    template <class... A>
    Result<> update_job(const char* sql_text, RowId job, const A&... values) {
        return write([&]() -> Result<> {
            SCKPT_TRY(database.execute(sql_text, job, values...));
            if (database.changes() == 0) return no_job(job);
            return {};
        });
    }

    // These run inside a transaction.
    Result<CheckpointRow> find(RowId checkpoint) {
        SCKPT_ASSIGN(auto row, first_row(database.query(sql::kCheckpoint, checkpoint), read_checkpoint));
        if (!row) return fail(Errc::not_found, std::format("the catalogue has no checkpoint in row {}", checkpoint));
        return std::move(*row);
    }
    Result<CheckpointRow> move(RowId checkpoint, std::initializer_list<CheckpointState> from, CheckpointState to);
    Result<> refuse_newest_complete(const CheckpointRow& row);
    Result<> add_files(RowId image, const std::vector<FileRow>& files);

    mutable std::mutex mutex;
    Database database;
};

Result<CheckpointRow> Catalogue::Impl::move(RowId checkpoint, std::initializer_list<CheckpointState> from, CheckpointState to) {
    SCKPT_ASSIGN(CheckpointRow row, find(checkpoint));
    if (std::ranges::find(from, row.state) == from.end())
        return fail(Errc::invalid,
                    std::format("checkpoint {} is {}: it cannot become {}", row.number, state_name(row.state), state_name(to)));
    SCKPT_TRY(database.execute(sql::kSetState, checkpoint, static_cast<int>(to)));
    return row;
}

// As long as the job has not ended, there is always something to restart it from once there was.
Result<> Catalogue::Impl::refuse_newest_complete(const CheckpointRow& row) {
    if (row.state != CheckpointState::complete) return {};
    SCKPT_ASSIGN(const auto ended, number(database.query(sql::kJobEnded, row.job)));
    if (ended.value_or(0) != 0) return {};
    SCKPT_ASSIGN(const auto newest, first_row(database.query(sql::kNewestComplete, row.job, 0), read_checkpoint));
    if (newest && newest->id == row.id)
        return fail(Errc::denied,
                    std::format("checkpoint {} is the newest complete one of a job that has not ended: it is kept", row.number));
    return {};
}

Result<> Catalogue::Impl::add_files(RowId image, const std::vector<FileRow>& files) {
    for (const FileRow& file : files)
        SCKPT_TRY(database.execute(sql::kAddFile, image, file.path, file.inode, file.size, file.append, file.stdio));
    return {};
}

Catalogue::Catalogue(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Catalogue::Catalogue(Catalogue&&) noexcept = default;
Catalogue& Catalogue::operator=(Catalogue&&) noexcept = default;
Catalogue::~Catalogue() = default;

Result<Catalogue> Catalogue::open(const std::string& path) {
    SCKPT_ASSIGN(Database database, Database::open(path, kApplicationId));
    SCKPT_TRY(migrate(database, path));
    return Catalogue(std::make_unique<Impl>(std::move(database)));
}

// ---- jobs ----

Result<RowId> Catalogue::add_job(const JobRow& job) {
    return impl_->write([&]() -> Result<RowId> {
        SCKPT_TRY(impl_->database.execute(sql::kAddJob, job.job_id, job.uid, job.submit_time, job.interval_seconds,
                                          job.max_restarts, job.restarts, job.slurm_restart_count, job.ended,
                                          job.held_reason, job.last_error));
        return impl_->database.last_insert_id();
    });
}

Result<std::optional<JobRow>> Catalogue::newest_job(std::uint32_t job_id) const {
    const std::scoped_lock lock(impl_->mutex);
    return first_row(impl_->database.query(sql::kNewestJob, job_id), read_job);
}

Result<std::vector<JobRow>> Catalogue::jobs(bool with_ended) const {
    const std::scoped_lock lock(impl_->mutex);
    return all_rows(impl_->database.query(sql::kJobs, with_ended), read_job);
}

Result<> Catalogue::set_job_run(RowId job, std::uint32_t slurm_restart_count, std::int64_t submit_time) {
    return impl_->update_job(sql::kSetJobRun, job, slurm_restart_count, submit_time);
}
Result<> Catalogue::set_job_ended(RowId job, bool ended) { return impl_->update_job(sql::kSetJobEnded, job, ended); }
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

Result<CheckpointRow> Catalogue::begin_checkpoint(RowId job, const ImageRow& image, std::int64_t now) {
    return impl_->write([&]() -> Result<CheckpointRow> {
        Database& database = impl_->database;
        CheckpointRow row{.job = job, .state = CheckpointState::preparing, .created = now};
        SCKPT_ASSIGN(const auto taken, number(database.query(sql::kTakeNumber, job)));
        if (!taken) return no_job(job);
        row.number = static_cast<std::uint32_t>(*taken);
        SCKPT_TRY(database.execute(sql::kAddCheckpoint, job, row.number, static_cast<int>(row.state), now));
        row.id = database.last_insert_id();
        const std::string path = std::format("{}/ckpt-{}/{}", image.path, row.number, image.task);
        SCKPT_ASSIGN(const auto added, number(database.query(sql::kAddImage, row.id, image.task, image.node, path)));
        SCKPT_TRY(impl_->add_files(added.value_or(0), image.files));
        return row;
    });
}

Result<> Catalogue::captured(RowId checkpoint, std::uint64_t bytes, std::uint32_t frozen_ms, const std::vector<FileRow>& files) {
    return impl_->write([&]() -> Result<> {
        Database& database = impl_->database;
        SCKPT_TRY(impl_->move(checkpoint, {CheckpointState::preparing}, CheckpointState::captured));
        SCKPT_TRY(database.execute(sql::kSetCaptured, checkpoint, bytes, frozen_ms));
        SCKPT_ASSIGN(const auto image, number(database.query(sql::kSetImageBytes, checkpoint, bytes)));
        SCKPT_TRY(database.execute(sql::kRemoveFiles, image.value_or(0)));
        return impl_->add_files(image.value_or(0), files);
    });
}

Result<> Catalogue::complete(RowId checkpoint, const std::string& digest, std::uint64_t bytes, std::int64_t now) {
    if (digest.empty()) return fail(Errc::invalid, "a checkpoint cannot be complete without the digest of its image");
    return impl_->write([&]() -> Result<> {
        SCKPT_TRY(impl_->move(checkpoint, {CheckpointState::captured}, CheckpointState::complete));
        SCKPT_TRY(impl_->database.execute(sql::kSetImageStored, checkpoint, digest, bytes));
        return impl_->database.execute(sql::kSetComplete, checkpoint, bytes, now);
    });
}

Result<> Catalogue::failed(RowId checkpoint, const std::string& reason) {
    return impl_->write([&]() -> Result<> {
        SCKPT_TRY(impl_->move(checkpoint, {CheckpointState::preparing, CheckpointState::captured}, CheckpointState::failed));
        return impl_->database.execute(sql::kSetReason, checkpoint, reason);
    });
}

Result<> Catalogue::bad(RowId checkpoint, const std::string& reason) {
    return impl_->write([&]() -> Result<> {
        SCKPT_TRY(impl_->move(checkpoint, {CheckpointState::complete}, CheckpointState::bad));
        return impl_->database.execute(sql::kSetReason, checkpoint, reason);
    });
}

Result<> Catalogue::begin_delete(RowId checkpoint) {
    return impl_->write([&]() -> Result<> {
        SCKPT_ASSIGN(const CheckpointRow row, impl_->find(checkpoint));
        SCKPT_TRY(impl_->refuse_newest_complete(row));
        return impl_->database.execute(sql::kSetState, checkpoint, static_cast<int>(CheckpointState::deleting));
    });
}

Result<> Catalogue::deleted(RowId checkpoint) {
    return impl_->write([&]() -> Result<> {
        SCKPT_ASSIGN(const CheckpointRow row, impl_->find(checkpoint));
        if (row.state != CheckpointState::deleting)
            return fail(Errc::invalid, std::format("checkpoint {} is {}: only one that is deleting can be removed", row.number,
                                                   state_name(row.state)));
        return impl_->database.execute(sql::kRemoveCheckpoint, checkpoint);
    });
}

Result<std::optional<CheckpointRow>> Catalogue::checkpoint(RowId id) const {
    const std::scoped_lock lock(impl_->mutex);
    return first_row(impl_->database.query(sql::kCheckpoint, id), read_checkpoint);
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
    const std::scoped_lock lock(impl_->mutex);
    return first_row(impl_->database.query(sql::kNewestComplete, job, below), read_checkpoint);
}

Result<std::optional<ImageRow>> Catalogue::image(RowId checkpoint) const {
    const std::scoped_lock lock(impl_->mutex);
    RowId id = 0;
    SCKPT_ASSIGN(auto found, first_row(impl_->database.query(sql::kImage, checkpoint), [&](const Statement& row) {
        id = row.get<RowId>(0);
        return ImageRow{.task = row.get<std::string>(1),
                        .node = row.get<std::string>(2),
                        .path = row.get<std::string>(3),
                        .digest = row.get<std::string>(4),
                        .bytes = row.get<std::uint64_t>(5),
                        .files = {}};
    }));
    if (!found) return std::nullopt;
    SCKPT_ASSIGN(found->files, all_rows(impl_->database.query(sql::kFiles, id), read_file_row));
    return found;
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
