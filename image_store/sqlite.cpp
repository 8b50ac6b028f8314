// SPDX-License-Identifier: GPL-3.0-or-later
//
// The room of SQLite's C interface: result codes become Errors, handles become owners.
#include "image_store/sqlite.h"

#include <algorithm>
#include <format>
#include <iterator>
#include <vector>

#include <fcntl.h>

#include "common/fd.h"

namespace sckpt {
namespace {

constexpr int kBusyTimeoutMs = 5000;

Errc errc_of(int extended_code) {
    if (extended_code == SQLITE_CONSTRAINT_FOREIGNKEY) return Errc::not_found;  // the row that was named does not exist
    switch (extended_code & 0xff) {
        case SQLITE_BUSY:
        case SQLITE_LOCKED: return Errc::busy;
        case SQLITE_FULL: return Errc::no_space;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB: return Errc::corrupt;
        case SQLITE_PERM:
        case SQLITE_AUTH:
        case SQLITE_READONLY: return Errc::denied;
        case SQLITE_CONSTRAINT:
        case SQLITE_TOOBIG: return Errc::invalid;
        case SQLITE_IOERR:
        case SQLITE_CANTOPEN: return Errc::io;
        default: return Errc::internal;
    }
}

std::unexpected<Error> sqlite_error(sqlite3* database, std::string_view doing) {
    const char* file = sqlite3_db_filename(database, "main");
    const std::string name = file != nullptr && *file != '\0' ? file : "the database";
    return fail(errc_of(sqlite3_extended_errcode(database)), name + ": " + std::string(doing) + ": " + sqlite3_errmsg(database));
}

// SQLite would make the file readable by all. Errc::exists: nothing is done to a file that exists, for closing a second
// descriptor of a database that is open in this process would drop its locks.
Result<> make_private_file(const std::string& path) {
    SCKPT_TRY(open_file(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
    return {};
}

Result<sqlite3*> open_handle(const std::string& path, int flags) {
    sqlite3* handle = nullptr;
    const int rc = sqlite3_open_v2(path.c_str(), &handle, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, nullptr);
    if (handle == nullptr) return fail(Errc::internal, path + ": open: out of memory");
    if (rc == SQLITE_OK) return handle;
    auto failed = fail(errc_of(rc), path + ": open: " + sqlite3_errmsg(handle));
    sqlite3_close_v2(handle);
    return failed;
}

}  // namespace

StatementCache::~StatementCache() {
    for (const auto& [sql, statement] : idle_) sqlite3_finalize(statement);
}

sqlite3_stmt* StatementCache::take(const char* sql) {
    const auto found = idle_.find(sql);
    if (found == idle_.end()) return nullptr;
    return std::exchange(found->second, nullptr);
}

void StatementCache::give_back(const char* sql, sqlite3_stmt* statement) {
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
    sqlite3_stmt*& place = idle_[sql];
    if (place == nullptr) place = statement;
    else sqlite3_finalize(statement);  // two of them were under way at once
}

void Statement::Release::operator()(sqlite3_stmt* handle) const {
    if (cache != nullptr) cache->give_back(sql, handle);
    else sqlite3_finalize(handle);
}

Result<Step> Statement::step() {
    switch (sqlite3_step(handle_.get())) {
        case SQLITE_ROW: return Step::row;
        case SQLITE_DONE: return Step::done;
        default: return sqlite_error(sqlite3_db_handle(handle_.get()), "run a statement");
    }
}

std::string Statement::text(int column) const {
    const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(handle_.get(), column));
    if (bytes == nullptr) return {};
    return {bytes, static_cast<std::size_t>(sqlite3_column_bytes(handle_.get(), column))};
}

int Statement::bind(int index, std::string_view value) {
    const char* bytes = value.data() != nullptr ? value.data() : "";  // a null pointer would be bound as NULL
    return sqlite3_bind_text64(handle_.get(), index, bytes, value.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
}

Result<Database> Database::open(const std::string& path, std::int32_t application_id) {
    if (path != ":memory:")
        if (auto made = make_private_file(path); !made && made.error().code != Errc::exists) return std::unexpected(made.error());
    SCKPT_ASSIGN(sqlite3* const handle, open_handle(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE));
    Database database(handle);
    sqlite3_busy_timeout(handle, kBusyTimeoutMs);
    SCKPT_TRY(database.claim(application_id));
    SCKPT_TRY(database.configure());
    return database;
}

// Before anything else writes to the file: it is ours, or it is empty and becomes ours.
Result<> Database::claim(std::int32_t application_id) {
    SCKPT_ASSIGN(const std::string found, pragma("application_id"));
    if (found == std::to_string(application_id)) return {};
    SCKPT_ASSIGN(Statement tables, query("SELECT count(*) FROM sqlite_schema"));
    SCKPT_ASSIGN(const Step step, tables.step());
    if (found != "0" || (step == Step::row && tables.get<int>(0) != 0))
        return fail(Errc::invalid,
                    std::string(sqlite3_db_filename(handle_.get(), "main")) + " is another program's database: not touched");
    return script("PRAGMA application_id = " + std::to_string(application_id));
}

// Foreign keys come first and outside of a transaction, where the setting would have no effect.
Result<> Database::configure() {
    SCKPT_TRY(script("PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL; PRAGMA cache_size = -65536"));
    SCKPT_ASSIGN(const std::string mode, pragma("journal_mode = WAL"));
    if (mode != "wal" && mode != "memory")
        return fail(Errc::unsupported, std::string(sqlite3_db_filename(handle_.get(), "main")) +
                                           ": no write-ahead log can be kept there; put it on a local file system");
    return {};
}

// Of a page that it cannot read, SQLite's check says the same as of one that is damaged. So all of it is read, and then it is checked again:
// what was in the way for a moment is no damage either.
Result<> Database::check() {
    std::string found;
    for (int tries = 0; tries < 2; ++tries) {
        SCKPT_ASSIGN(found, pragma("quick_check(1)"));
        if (found == "ok") return {};
        SCKPT_TRY(read_all());
    }
    return fail(Errc::corrupt, std::string(sqlite3_db_filename(handle_.get(), "main")) + " is damaged: " + found);
}

Result<> Database::read_all() {
    std::vector<char> buffer(1u << 20);
    for (const int which : {SQLITE_FCNTL_FILE_POINTER, SQLITE_FCNTL_JOURNAL_POINTER}) {  // in WAL mode the second one is the log
        sqlite3_file* file = nullptr;
        sqlite3_int64 size = 0;
        int rc = sqlite3_file_control(handle_.get(), "main", which, &file);
        if (file == nullptr || file->pMethods == nullptr) continue;  // not open
        if (rc == SQLITE_OK) rc = file->pMethods->xFileSize(file, &size);
        for (sqlite3_int64 at = 0; rc == SQLITE_OK && at < size; at += std::ssize(buffer))
            rc = file->pMethods->xRead(file, buffer.data(), static_cast<int>(std::min<sqlite3_int64>(size - at, std::ssize(buffer))), at);
        if (rc != SQLITE_OK)
            return fail(errc_of(rc), std::format("{} cannot be read: {}", sqlite3_db_filename(handle_.get(), "main"), sqlite3_errstr(rc)));
    }
    return {};
}

Result<Statement> Database::prepare(const char* sql, StatementCache* cache) {
    sqlite3_stmt* handle = cache != nullptr ? cache->take(sql) : nullptr;
    const unsigned flags = cache != nullptr ? SQLITE_PREPARE_PERSISTENT : 0;
    if (handle == nullptr && sqlite3_prepare_v3(handle_.get(), sql, -1, flags, &handle, nullptr) != SQLITE_OK)
        return error("prepare a statement");
    return Statement(handle, {cache, sql});
}

Result<> Database::finish(Statement& statement) {
    for (;;) {
        SCKPT_ASSIGN(const Step step, statement.step());
        if (step == Step::done) return {};
    }
}

Result<> Database::script(const std::string& sql) {
    if (sqlite3_exec(handle_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) return error("run a script");
    return {};
}

Result<std::string> Database::pragma(const std::string& text) {
    SCKPT_ASSIGN(Statement statement, prepare(("PRAGMA " + text).c_str(), nullptr));
    SCKPT_ASSIGN(const Step step, statement.step());
    return step == Step::row ? statement.text(0) : std::string();
}

Result<int> Database::user_version() {
    SCKPT_ASSIGN(Statement statement, prepare("PRAGMA user_version", nullptr));
    SCKPT_ASSIGN(const Step step, statement.step());
    return step == Step::row ? statement.get<int>(0) : 0;
}

Result<> Database::set_user_version(int version) { return script("PRAGMA user_version = " + std::to_string(version)); }

std::unexpected<Error> Database::error(std::string_view doing) const { return sqlite_error(handle_.get(), doing); }

Result<Backup> Backup::begin(Database& source, const std::string& path) {
    SCKPT_TRY(make_private_file(path));
    SCKPT_ASSIGN(sqlite3* const target, open_handle(path, SQLITE_OPEN_READWRITE));
    Database owned(target);
    SCKPT_TRY(owned.script("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF"));  // worth nothing before it is whole
    sqlite3_backup* const handle = sqlite3_backup_init(target, "main", source.handle_.get(), "main");
    if (handle == nullptr) return owned.error("begin a backup");
    return Backup(std::move(owned), handle);
}

Result<bool> Backup::step(int pages) {
    const int rc = sqlite3_backup_step(handle_.get(), pages);
    if (rc == SQLITE_DONE) return true;
    if (rc == SQLITE_OK) return false;
    const char* file = sqlite3_db_filename(target_.handle_.get(), "main");
    return fail(errc_of(rc), std::string(file != nullptr ? file : "a backup") + ": copy the database: " + sqlite3_errstr(rc));
}

Result<Transaction> Transaction::begin(Database& database) {
    SCKPT_TRY(database.script("BEGIN IMMEDIATE"));
    return Transaction(database);
}

Result<> Transaction::commit() {
    SCKPT_TRY(database_->script("COMMIT"));
    database_ = nullptr;
    return {};
}

// SQLite has rolled back by itself after some errors (a full disk); when a roll-back fails, the next open() does it.
Transaction::~Transaction() {
    if (database_ != nullptr && database_->in_transaction()) static_cast<void>(database_->script("ROLLBACK"));
}

}  // namespace sckpt
