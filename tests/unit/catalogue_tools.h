// SPDX-License-Identifier: GPL-3.0-or-later
//
// What the tests of the catalogue share: jobs and checkpoints made by the calls that lead there.
#pragma once

#include <format>
#include <string>
#include <vector>

#include <sqlite3.h>

#include "image_store/catalogue.h"
#include "tests/unit/image_store_tools.h"

namespace sckpt::test {

inline Catalogue open_catalogue(const std::string& path = ":memory:") {
    auto catalogue = Catalogue::open(path);
    if (!catalogue) FAIL(catalogue.error().text);
    return std::move(*catalogue);
}

inline RowId add_job(Catalogue& catalogue, std::uint32_t job_id = 12, const std::string& user = "carol", std::uint32_t uid = 1000) {
    const auto id = catalogue.add_job({.job_id = job_id, .uid = uid, .user = user, .account = "physics", .submit_time = 5,
                                       .interval_seconds = 60, .max_restarts = 3});
    REQUIRE(id);
    return *id;
}

inline CheckpointRow begin(Catalogue& catalogue, RowId job, bool urgent = false) {
    const auto row = catalogue.begin_checkpoint(job, urgent, 100);
    if (!row) FAIL(row.error().text);
    return *row;
}

inline std::string pack_name(const CheckpointRow& row, const std::string& task = "batch") {
    return std::format("job-12-{}/ckpt-{}-{}-00aa.pack", row.job, row.number, task);
}
inline std::string manifest_name(const CheckpointRow& row, const std::string& task = "batch") {
    return std::format("job-12-{}/ckpt-{}-{}-00bb.manifest", row.job, row.number, task);
}

// As a drain of this task's image would answer: a pack of its own of 1000 bytes, a manifest of 10, and packs of the base.
inline StoredImage stored_as(const CheckpointRow& row, const std::string& task, const std::vector<std::string>& of_base = {}) {
    StoredImage image{.manifest = manifest_name(row, task),
                      .digest = std::format("d{}-{}", row.id, task),
                      .plain_bytes = 5000,
                      .new_bytes = 1010};
    for (const std::string& pack : of_base) image.packs.push_back({.path = pack, .bytes = 1000, .used = 600});
    image.packs.push_back({.path = pack_name(row, task), .bytes = 1000, .used = 1000});
    return image;
}
inline StoredImage stored(const CheckpointRow& row, const std::vector<std::string>& of_base = {}) {
    return stored_as(row, "batch", of_base);
}

// What a checkpoint of the batch script alone consists of, once it is dumped and once it is stored.
inline Result<> capture(Catalogue& catalogue, const CheckpointRow& row, const std::vector<UserFile>& files = {}) {
    return catalogue.captured(row.id, {{"batch", "n1", 10, files}}, {});
}
inline Result<> try_complete(Catalogue& catalogue, const CheckpointRow& row, const StoredImage& image, std::int64_t now = 101) {
    return catalogue.complete(row.id, {{"batch", image, 2}}, now);
}
inline ImageRow image_of(const Catalogue& catalogue, RowId checkpoint, const std::string& task = "batch") {
    const auto image = catalogue.image(checkpoint, task);
    REQUIRE(image);
    REQUIRE(*image);
    return **image;
}

inline void complete(Catalogue& catalogue, const CheckpointRow& row, const StoredImage& image, std::int64_t now = 101) {
    REQUIRE(capture(catalogue, row));
    const auto done = try_complete(catalogue, row, image, now);
    if (!done) FAIL(done.error().text);
}

// A new checkpoint of the job, brought to this state by the calls that lead there.
inline CheckpointRow bring_to(Catalogue& catalogue, RowId job, CheckpointState state,
                              const std::vector<std::string>& of_base = {}) {
    const CheckpointRow row = begin(catalogue, job);
    if (state == CheckpointState::captured) REQUIRE(capture(catalogue, row));
    if (state == CheckpointState::complete || state == CheckpointState::bad) complete(catalogue, row, stored(row, of_base));
    if (state == CheckpointState::failed) REQUIRE(catalogue.failed(row.id, "no"));
    if (state == CheckpointState::bad) REQUIRE(catalogue.bad(row.id, "no"));
    return row;
}

inline CheckpointRow row_of(const Catalogue& catalogue, RowId checkpoint) {
    const auto row = catalogue.checkpoint(checkpoint);
    REQUIRE(row);
    REQUIRE(*row);
    return **row;
}

inline std::vector<std::string> garbage_paths(const Catalogue& catalogue) {
    std::vector<std::string> paths;
    const auto garbage = catalogue.garbage(1000);
    REQUIRE(garbage);
    for (const auto& file : *garbage) paths.push_back(file.path);
    return paths;
}

// A connection beside the catalogue's.
class Sql {
   public:
    explicit Sql(const std::string& path) { REQUIRE(sqlite3_open(path.c_str(), &database_) == SQLITE_OK); }
    Sql(const Sql&) = delete;
    Sql& operator=(const Sql&) = delete;
    ~Sql() { sqlite3_close(database_); }

    std::string try_run(const std::string& sql) {  // "" or the error
        char* message = nullptr;
        sqlite3_exec(database_, sql.c_str(), nullptr, nullptr, &message);
        const std::string text = message != nullptr ? message : "";
        sqlite3_free(message);
        return text;
    }
    void run(const std::string& sql) {
        INFO(sql);
        REQUIRE(try_run(sql) == "");
    }
    // All values of all rows, with spaces between.
    std::string values(const std::string& sql) {
        std::string text;
        const auto add = [](void* to, int columns, char** value, char**) {
            for (int i = 0; i < columns; ++i)
                *static_cast<std::string*>(to) += std::string(value[i] != nullptr ? value[i] : "NULL") + " ";
            return 0;
        };
        REQUIRE(sqlite3_exec(database_, sql.c_str(), add, &text, nullptr) == SQLITE_OK);
        if (!text.empty()) text.pop_back();
        return text;
    }

   private:
    sqlite3* database_ = nullptr;
};

}  // namespace sckpt::test
