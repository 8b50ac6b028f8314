// SPDX-License-Identifier: GPL-3.0-or-later
//
// The catalogue under faults of its disk: a call that fails has changed nothing, and one that has succeeded is there after a power
// failure, whichever call of SQLite's it was that failed.
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "image_store/faulty_database.h"
#include "tests/unit/catalogue_tools.h"

using namespace sckpt;
using namespace sckpt::test;
using State = CheckpointState;
using Fault = FaultyDatabase::Fault;
using Survival = FaultyDatabase::Survival;

namespace {

using Call = std::function<Result<>(Catalogue& catalogue)>;

struct Change {
    std::string name;
    std::function<Call(Catalogue& catalogue)> prepare;  // brings an empty catalogue to where the call is made
};

template <class T>
Result<> only_whether(const Result<T>& result) {
    return result ? Result<>() : std::unexpected(result.error());
}

StoredImage rewritten(const CheckpointRow& row) {
    StoredImage image = stored(row);
    image.manifest = std::format("job-12-{}/ckpt-{}-batch-00cc.manifest", row.job, row.number);
    image.digest += "-new";
    image.packs = {{.path = std::format("job-12-{}/ckpt-1-batch-00cc.pack", row.job), .bytes = 800, .used = 700}};
    return image;
}

FoundImage found(const std::string& task) {
    return {.identity = {.cluster = "c", .user = "carol", .account = "physics", .node = "n1", .task = task, .job_id = 77, .uid = 1000,
                         .submit_time = 5, .job_row = 40, .checkpoint_row = 50, .checkpoint = 3, .images = 2, .created = 90,
                         .leader = "batch", .ended = {}},
            .user_files = {{.path = "/home/carol/out", .inode = 7, .size = 8, .append = true, .stdio = true}},
            .stored = {.manifest = "job-77-40/ckpt-3-" + task + "-00bb.manifest",
                       .digest = "d",
                       .plain_bytes = 5000,
                       .new_bytes = 1010,
                       .packs = {{"job-77-40/ckpt-3-" + task + "-00aa.pack", 1000, 1000}}}};
}

std::vector<CapturedImage> two_captured() {
    return {{"batch", "n1", 10, {{.path = "/a", .size = 1}, {.path = "/b", .size = 2}}}, {"0.0", "n2", 20, {{.path = "/c", .size = 3}}}};
}

std::vector<Change> changes() {
    return {
        {"begin_checkpoint",
         [](Catalogue& to) -> Call {
             const RowId job = add_job(to);
             bring_to(to, job, State::complete);
             return [job](Catalogue& c) { return only_whether(c.begin_checkpoint(job, true, 100)); };
         }},
        {"captured",
         [](Catalogue& to) -> Call {
             const RowId row = begin(to, add_job(to)).id;
             return [row](Catalogue& c) { return c.captured(row, two_captured(), {{"0.1", 0}}); };
         }},
        {"complete",
         [](Catalogue& to) -> Call {
             const RowId job = add_job(to);
             const std::string of_base = pack_name(bring_to(to, job, State::complete));
             const CheckpointRow row = begin(to, job);
             REQUIRE(to.captured(row.id, two_captured(), {}));
             return [row, of_base](Catalogue& c) {
                 return c.complete(row.id, {{"batch", stored(row, {of_base}), 2}, {"0.0", stored_as(row, "0.0"), 3}}, 102);
             };
         }},
        {"bad",
         [](Catalogue& to) -> Call {
             const RowId row = bring_to(to, add_job(to), State::complete).id;
             return [row](Catalogue& c) { return c.bad(row, "a flipped bit"); };
         }},
        {"remove_checkpoint",
         [](Catalogue& to) -> Call {
             const RowId job = add_job(to), row = bring_to(to, job, State::complete).id;
             bring_to(to, job, State::complete);
             return [row](Catalogue& c) { return c.remove_checkpoint(row, 200); };
         }},
        {"compacted",
         [](Catalogue& to) -> Call {
             const RowId job = add_job(to);
             const CheckpointRow first = bring_to(to, job, State::complete);
             const CheckpointRow second = bring_to(to, job, State::complete, {pack_name(first)});
             return [first, second](Catalogue& c) {
                 return c.compacted({{first.id, "batch", stored(first).digest, rewritten(first)},
                                     {second.id, "batch", stored(second).digest, rewritten(second)}}, 200);
             };
         }},
        {"garbage_removed",
         [](Catalogue& to) -> Call {
             REQUIRE(to.add_garbage({{"job-1-1/a.pack", 1}, {"job-1-1/b.pack", 2}}));
             return [](Catalogue& c) { return c.garbage_removed({"job-1-1/a.pack", "job-1-1/b.pack"}); };
         }},
        {"import", [](Catalogue&) -> Call {
             return [](Catalogue& c) { return only_whether(c.import({found("batch"), found("0.0")})); };
         }}};
}

// All rows of all tables, by a connection beside the catalogue's.
std::string rows_of(const std::string& path) {
    Sql database(path);
    std::string rows, tables = database.values("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name") + " ";
    for (std::size_t end = 0; (end = tables.find(' ')) != std::string::npos; tables.erase(0, end + 1))
        rows += tables.substr(0, end) + ": " + database.values("SELECT * FROM " + tables.substr(0, end) + " ORDER BY 1, 2") + "\n";
    return rows;
}

// From now on each commit is carried over from the log into the database at once, not after thousands of them.
class EagerCheckpoints {
   public:
    explicit EagerCheckpoints(bool wanted) {
        if (wanted) sqlite3_auto_extension(reinterpret_cast<void (*)()>(set));
    }
    EagerCheckpoints(const EagerCheckpoints&) = delete;
    EagerCheckpoints& operator=(const EagerCheckpoints&) = delete;
    ~EagerCheckpoints() { sqlite3_reset_auto_extension(); }

   private:
    static int set(sqlite3* database, char**, const void*) { return sqlite3_wal_autocheckpoint(database, 1); }
};

// A catalogue on a disk with faults, which is put back to where a change is made as often as it is wanted.
class Scene {
   public:
    explicit Scene(const Change& change) {
        Catalogue made = test::open_catalogue(path_);
        REQUIRE(made.set_rebuilt());
        call = change.prepare(made);
        bytes_ = read_text(path_);
        log_ = read_text(path_ + "-wal");  // what was not carried over from it yet is read again at each open()
        before = rows_of(path_);
        REQUIRE(call(made));
        after = rows_of(path_);
        REQUIRE(before != after);
    }
    Catalogue& begin() {
        put_back();
        auto opened = open();
        if (!opened) FAIL(opened.error().text);
        return catalogue_.emplace(std::move(*opened));
    }
    void put_back() {
        catalogue_.reset();
        faults.set({});
        std::filesystem::remove(path_ + "-shm");
        write_text(path_, bytes_);
        write_text(path_ + "-wal", log_);
    }
    Result<Catalogue> open() const { return Catalogue::open(path_); }
    std::string rows() const { return rows_of(path_); }
    // Of a daemon that was killed, or of its machine; then it starts.
    std::string rows_after(Survival survival, std::uint64_t seed) {
        catalogue_.reset();
        faults.power_failure(survival, seed);
        faults.set({});
        auto opened = open();
        if (!opened) FAIL(opened.error().text);
        catalogue_.emplace(std::move(*opened));
        return rows();
    }

   private:
    const TempDir directory_;
    const std::string path_ = directory_ / "catalogue.sqlite";
    std::string bytes_, log_;

   public:
    FaultyDatabase faults;
    Call call;
    std::string before, after;

   private:
    std::optional<Catalogue> catalogue_;
};

}  // namespace

TEST_CASE("a change of the catalogue that fails has not happened, and can be made then", "[catalogue][faults]") {
    const bool full = GENERATE(false, true), eager = GENERATE(false, true);
    const EagerCheckpoints checkpoints(eager);
    for (const Change& change : changes()) {
        Scene scene(change);
        bool failed = true, any_failed = false;
        for (std::uint64_t at = 1; failed; ++at) {
            INFO(change.name << ", call " << at << (full ? ", disk full" : "") << (eager ? ", eager" : ""));
            Catalogue& catalogue = scene.begin();
            scene.faults.set({.calls = full ? FaultyDatabase::kWrite : FaultyDatabase::kAllCalls, .at = at, .full = full});
            const auto done = scene.call(catalogue);
            failed = scene.faults.count() >= at;
            any_failed = any_failed || !done;
            scene.faults.set({});
            if (!done) {
                CHECK(scene.rows() == scene.before);
                CHECK(done.error().code == (full ? Errc::no_space : Errc::io));
                const auto again = scene.call(catalogue);
                if (!again) FAIL_CHECK(again.error().text);
            }
            CHECK(scene.rows() == scene.after);
            CHECK(scene.rows_after(Survival::none, at) == scene.after);
        }
        CHECK(any_failed);
    }
}

TEST_CASE("a change of the catalogue is there as a whole or not at all after the power has failed", "[catalogue][faults]") {
    const auto survival = GENERATE(Survival::none, Survival::all, Survival::some);
    const bool eager = GENERATE(false, true);
    const EagerCheckpoints checkpoints(eager);
    for (const Change& change : changes()) {
        Scene scene(change);
        bool crashed = true;
        for (std::uint64_t at = 1; crashed; ++at) {
            INFO(change.name << ", call " << at << ", survival " << static_cast<int>(survival) << (eager ? ", eager" : ""));
            Catalogue& catalogue = scene.begin();
            scene.faults.set({.at = at, .crash = true});
            const auto done = scene.call(catalogue);
            crashed = scene.faults.crashed();
            const std::string rows = scene.rows_after(survival, at);
            if (done) CHECK(rows == scene.after);
            else if (survival == Survival::none) CHECK(rows == scene.before);
            else CHECK((rows == scene.before || rows == scene.after));  // the disk may have got all of it before the answer was lost
        }
    }
}

TEST_CASE("a copy of the catalogue is whole and durable, or there is none", "[catalogue][faults]") {
    const bool crash = GENERATE(false, true);
    Scene scene(changes()[2]);
    const TempDir directory;
    const std::string path = directory / "copy.sqlite";
    REQUIRE(scene.begin().backup(path));
    const std::string whole = rows_of(path);
    bool failed = true;
    for (std::uint64_t at = 1; failed; ++at) {
        INFO("call " << at << (crash ? ", crash" : ""));
        std::filesystem::remove(path);
        Catalogue& catalogue = scene.begin();
        scene.faults.set({.calls = crash ? FaultyDatabase::kChanges : FaultyDatabase::kAllCalls, .at = at, .crash = crash});
        auto done = catalogue.backup(path);
        failed = scene.faults.count() >= at;
        CHECK((failed || done));
        if (!crash) scene.faults.set({});
        if (!done && !crash) {
            CHECK_FALSE(std::filesystem::exists(path));
            done = catalogue.backup(path);
            REQUIRE(done);
        }
        CHECK(scene.rows_after(Survival::none, at) == scene.before);
        if (done) CHECK(rows_of(path) == whole);
    }
}

TEST_CASE("a fault of the disk while the catalogue is opened is no damage of the catalogue", "[catalogue][faults]") {
    const bool crash = GENERATE(false, true);
    Scene scene(changes()[2]);
    bool failed = true;
    for (std::uint64_t at = 1; failed; ++at) {
        INFO("call " << at << (crash ? ", crash" : ""));
        scene.put_back();
        scene.faults.set({.calls = FaultyDatabase::kAllCalls, .at = at, .crash = crash});
        const auto opened = scene.open();
        failed = scene.faults.count() >= at;
        CHECK((failed || opened));
        if (!opened) CHECK(opened.error().code == Errc::io);  // sckptctld would put a damaged one aside
        CHECK(scene.rows_after(Survival::none, at) == scene.before);
    }
}

TEST_CASE("a catalogue whose making is cut off is made at the next start", "[catalogue][faults]") {
    const auto survival = GENERATE(Survival::none, Survival::all, Survival::some);
    bool crashed = true;
    for (std::uint64_t at = 1; crashed; ++at) {
        INFO("call " << at << ", survival " << static_cast<int>(survival));
        const TempDir directory;
        const std::string path = directory / "catalogue.sqlite";
        FaultyDatabase faults;
        faults.set({.at = at, .crash = true});
        std::ignore = Catalogue::open(path);
        crashed = faults.crashed();
        faults.power_failure(survival, at);
        faults.set({});
        auto opened = Catalogue::open(path);
        if (!opened) FAIL(opened.error().text);
        CHECK(opened->needs_rebuild());
        CHECK(add_job(*opened) > 1'000'000'000'000);
    }
}
