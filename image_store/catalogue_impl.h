// SPDX-License-Identifier: GPL-3.0-or-later
//
// What catalogue*.cpp share: the database under its mutex, transactions, and rows read from queries. For these files alone.
#pragma once

#include <atomic>
#include <chrono>
#include <format>
#include <initializer_list>
#include <iterator>
#include <mutex>
#include <set>
#include <thread>

#include "image_store/catalogue.h"
#include "image_store/catalogue_sql.h"
#include "image_store/sqlite.h"

namespace sckpt {

inline constexpr std::int32_t kApplicationId = 0x53434b50;  // "SCKP"

// Each row of a query; all of them; the first one; the number in the only column of the only row.
template <class F>
Result<> each_row(Result<Statement>&& query, F visit) {
    if (!query) return std::unexpected(std::move(query).error());
    for (;;) {
        SCKPT_ASSIGN(const Step step, query->step());
        if (step == Step::done) return {};
        visit(*query);
    }
}

template <class F>
auto all_rows(Result<Statement>&& query, F read) -> Result<std::vector<decltype(read(*query))>> {
    std::vector<decltype(read(*query))> rows;
    SCKPT_TRY(each_row(std::move(query), [&](const Statement& row) { rows.push_back(read(row)); }));
    return rows;
}

template <class F>
auto first_row(Result<Statement>&& query, F read) -> Result<std::optional<decltype(read(*query))>> {
    SCKPT_ASSIGN(auto rows, all_rows(std::move(query), read));
    if (rows.empty()) return std::nullopt;
    return std::move(rows.front());
}

Result<std::optional<std::int64_t>> number(Result<Statement>&& query);

// The columns SCKPT_JOB and SCKPT_CHECKPOINT of catalogue_sql.h, from column `first` on.
inline constexpr int kCheckpointColumns = 16, kJobColumns = 12;
JobRow read_job(const Statement& row, int first);
CheckpointRow read_checkpoint(const Statement& row);

std::unexpected<Error> no_job(RowId job);

// "job-4711-8" and "job-4711-8/…" are of job 4711; what else there may be is of job 0.
std::uint32_t job_id_in_name(std::string_view path);

struct Catalogue::Impl {
    Impl(Database opened, bool incomplete, std::string of) : database(std::move(opened)), needs_rebuild(incomplete), store(std::move(of)) {}

    // Runs `body` as one transaction: all of it is on disk when this succeeds, nothing of it otherwise.
    template <class F>
    auto write(F body) -> decltype(body()) {
        const std::scoped_lock lock(mutex);
        SCKPT_ASSIGN(Transaction transaction, Transaction::begin(database));
        auto result = body();
        if (result) SCKPT_TRY(transaction.commit());
        return result;
    }

    // Calls `visit` with each portion of a table, as the rows after the first number up to the second; others have their turn
    // between.
    template <class F>
    Result<> in_portions(const char* portion, F visit) {
        std::unique_lock lock(mutex);
        SCKPT_ASSIGN(std::optional<RowId> end, number(database.query(portion, RowId{0})));
        for (RowId after = 0; end.value_or(0) != 0;) {
            SCKPT_TRY(visit(after, *end));
            after = *end;
            SCKPT_ASSIGN(end, number(database.query(portion, after)));
            if (end.value_or(0) == 0) break;  // without a pause: small tables are looked through often
            lock.unlock();
            let_others();
            lock.lock();
        }
        return {};
    }
    // A mutex is not fair: who takes it again at once mostly gets it before those who wait.
    static void let_others() { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }
    // Appends all rows of such a query.
    template <class T, class F, class... A>
    Result<> append_portions(std::vector<T>& to, const char* portion, const char* sql_text, F read, const A&... values) {
        return in_portions(portion, [&](RowId after, RowId end) -> Result<> {
            SCKPT_ASSIGN(auto rows, all_rows(database.query(sql_text, after, end, values...), read));
            to.insert(to.end(), std::make_move_iterator(rows.begin()), std::make_move_iterator(rows.end()));
            return {};
        });
    }

    // A change of one job's row; of one checkpoint's.
    template <class... A>
    Result<> update_job(const char* sql_text, RowId job, const A&... values) {
        return write([&]() -> Result<> {
            SCKPT_TRY(database.execute(sql_text, job, values...));
            if (database.changes() == 0) return no_job(job);
            return {};
        });
    }
    template <class... A>
    Result<> update_checkpoint(const char* sql_text, RowId checkpoint, const A&... values) {
        return write([&]() -> Result<> {
            SCKPT_TRY(find(checkpoint));
            return database.execute(sql_text, checkpoint, values...);
        });
    }

    // These run inside a transaction.
    Result<CheckpointRow> find(RowId checkpoint);
    // The row, which must be in one of these states; what it is wanted to become is for the message.
    Result<CheckpointRow> find_in(RowId checkpoint, std::initializer_list<CheckpointState> from, CheckpointState to);
    Result<> set_state(RowId checkpoint, CheckpointState state);
    Result<bool> in_use(RowId checkpoint, std::int64_t now);  // leased, or the base of a drain
    Result<> refuse_needed(const CheckpointRow& row, std::int64_t now);  // see remove_checkpoint
    Result<> add_files(RowId image, const std::vector<UserFile>& files);
    Result<RowId> add_image(RowId checkpoint, const CapturedImage& image, const std::string& fast_node);
    Result<> add_ended(RowId checkpoint, const std::vector<EndedTask>& ended);
    // Exactly the images that the checkpoint has, each once.
    Result<> check_all_given(const CheckpointRow& row, const std::vector<StoredTask>& images);
    Result<std::set<RowId>> packs_of(RowId checkpoint, const std::string& task);
    // The image's manifest and references. It may refer to new packs, which are added to `known`, and to those in `known`.
    Result<> store_image(RowId job, RowId image, const StoredImage& stored, std::set<RowId>& known);
    Result<> add_garbage(const Garbage& file);
    // Packs of the job that no image refers to any more become garbage.
    Result<> drop_unused_packs(RowId job);
    // The new image takes the old one's place; the job's row is answered. made: new packs of this compaction, so far.
    Result<RowId> change_over(const Compacted& image, std::set<RowId>& made, std::int64_t now);
    Result<FileUse> use(const std::string& path);
    Result<bool> may_import(const std::vector<FoundImage>& images);
    Result<> import_job(const ImageIdentity& who);
    Result<> import_checkpoint(const ImageIdentity& who);
    Result<StoredTask> import_image(const FoundImage& image, std::set<RowId>& known);
    Result<> set_stored(RowId checkpoint, const std::vector<StoredTask>& images, std::int64_t now);

    // Takes the lock itself, again and again.
    Result<> copy_to(const std::string& path);

    mutable std::mutex mutex;
    Database database;
    std::atomic<bool> needs_rebuild;  // as the database has it: asked for each message of a node
    std::string store;                // so is this: it goes with each order
};

}  // namespace sckpt
