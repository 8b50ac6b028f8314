// SPDX-License-Identifier: GPL-3.0-or-later
//
// SQLite, as owners: a database, a statement with bound parameters, a transaction that rolls back unless it was committed.
// A Database and what it made belong to one thread at a time. No SQL text but the settings of the connection is in here.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <sqlite3.h>

#include "common/result.h"

namespace sckpt {

enum class Step { row, done };  // an error is the Result's

// Statements that were prepared once and wait to be run again, by the address of their text.
class StatementCache {
   public:
    StatementCache() = default;
    StatementCache(const StatementCache&) = delete;
    StatementCache& operator=(const StatementCache&) = delete;
    ~StatementCache();
    sqlite3_stmt* take(const char* sql);  // null: none is idle
    void give_back(const char* sql, sqlite3_stmt* statement);

   private:
    std::unordered_map<const char*, sqlite3_stmt*> idle_;
};

class Statement {
   public:
    // A finished statement holds no lock: read it to `done`, or let it go out of scope, before a commit.
    Result<Step> step();

    // Columns of the current row, from 0. NULL is 0 or "".
    template <class T>
    T get(int column) const {
        if constexpr (std::same_as<T, std::string>) return text(column);
        else return static_cast<T>(sqlite3_column_int64(handle_.get(), column));
    }

   private:
    friend class Database;
    struct Release {
        StatementCache* cache = nullptr;  // null: finalized after use
        const char* sql = nullptr;
        void operator()(sqlite3_stmt* handle) const;
    };
    Statement(sqlite3_stmt* handle, Release release) : handle_(handle, release) {}

    std::string text(int column) const;
    int bind(int index, std::string_view value);
    int bind(int index, double value) { return sqlite3_bind_double(handle_.get(), index, value); }
    template <std::integral T>
    int bind(int index, T value) { return sqlite3_bind_int64(handle_.get(), index, static_cast<sqlite3_int64>(value)); }

    std::unique_ptr<sqlite3_stmt, Release> handle_;
};

class Database {
   public:
    // Opens or creates, 0600: foreign keys checked, WAL, synchronous=FULL, 64 MiB of cache, 5 s of patience with a lock.
    // A file that carries another application's id, or none and yet has tables, is refused and left alone.
    static Result<Database> open(const std::string& path, std::int32_t application_id);

    // Errc::corrupt when the file's structure is damaged; Errc::io when it cannot be read, which says nothing about that. Reads all of it.
    Result<> check();

    // A statement with its parameters ?1, ?2, … bound to numbers or text; the text is copied.
    // `sql` must live for ever: the statement is kept for the next one who asks for the same text.
    template <class... A>
    Result<Statement> query(const char* sql, const A&... values) {
        SCKPT_ASSIGN(Statement statement, prepare(sql, cache_.get()));
        int index = 0;
        int rc = SQLITE_OK;
        ((rc = rc == SQLITE_OK ? statement.bind(++index, values) : rc), ...);
        if (rc != SQLITE_OK) return error("bind a parameter");
        return statement;
    }
    // The same, run to its end; rows are dropped.
    template <class... A>
    Result<> execute(const char* sql, const A&... values) {
        SCKPT_ASSIGN(Statement statement, query(sql, values...));
        return finish(statement);
    }
    Result<> script(const std::string& sql);  // several statements, no parameters

    Result<int> user_version();
    Result<> set_user_version(int version);
    std::int64_t last_insert_id() const { return sqlite3_last_insert_rowid(handle_.get()); }
    std::int64_t changes() const { return sqlite3_changes64(handle_.get()); }
    bool in_transaction() const { return sqlite3_get_autocommit(handle_.get()) == 0; }

   private:
    friend class Backup;
    struct Close {
        void operator()(sqlite3* handle) const { sqlite3_close_v2(handle); }
    };
    explicit Database(sqlite3* handle) : handle_(handle), cache_(std::make_unique<StatementCache>()) {}
    Result<> configure();
    Result<> read_all();
    Result<> claim(std::int32_t application_id);
    Result<Statement> prepare(const char* sql, StatementCache* cache);
    Result<> finish(Statement& statement);
    Result<std::string> pragma(const std::string& text);
    std::unexpected<Error> error(std::string_view doing) const;

    std::unique_ptr<sqlite3, Close> handle_;
    std::unique_ptr<StatementCache> cache_;  // its statements end before the database is closed
};

// A copy of a whole database, made in steps: between them the source may be used and changed.
class Backup {
   public:
    static Result<Backup> begin(Database& source, const std::string& path);  // a new file, 0600
    Result<bool> step(int pages);                                            // true: done, not yet durable

   private:
    struct Finish {
        void operator()(sqlite3_backup* handle) const { sqlite3_backup_finish(handle); }
    };
    Backup(Database target, sqlite3_backup* handle) : target_(std::move(target)), handle_(handle) {}
    Database target_;
    std::unique_ptr<sqlite3_backup, Finish> handle_;
};

class Transaction {
   public:
    // Takes the write lock at once, so that no later statement finds it taken.
    static Result<Transaction> begin(Database& database);
    Transaction(Transaction&& other) noexcept : database_(std::exchange(other.database_, nullptr)) {}
    Transaction& operator=(Transaction&&) = delete;
    ~Transaction();
    Result<> commit();

   private:
    explicit Transaction(Database& database) : database_(&database) {}
    Database* database_;
};

}  // namespace sckpt
