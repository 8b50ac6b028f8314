// SPDX-License-Identifier: GPL-3.0-or-later
//
// How fast the catalogue answers when it is large.
//   ./dev build catalogue_bench && ./dev in-root /build/out/catalogue_bench /var/tmp [IMAGES]
// Fills a database in a new directory below the one given (IMAGES: 1000000; 15000 jobs; each image with its pack, that of the one
// before, and 4 files), then measures through the class Catalogue: 20000 look-ups of the newest complete checkpoint of random
// jobs, alone and beside a thread that looks through all checkpoints as the collector does, 200 durable transactions of each
// kind, and one checkpoint of 10000 images. Prints JSON.
#include <algorithm>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <format>
#include <print>
#include <random>
#include <thread>

#include <sqlite3.h>

#include "image_store/catalogue.h"

using namespace sckpt;

namespace {

constexpr std::uint32_t kJobs = 15'000;

[[noreturn]] void give_up(const std::string& what) {
    std::println(stderr, "catalogue_bench: {}", what);
    std::exit(1);
}

template <class T>
T must(Result<T> result) {
    if (!result) give_up(result.error().text);
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

double microseconds_of(auto work) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count();
}

struct Figures {
    double p50 = 0, p99 = 0, max = 0;
};

Figures figures(std::vector<double> times) {
    std::ranges::sort(times);
    return {times[times.size() / 2], times[times.size() * 99 / 100], times.back()};
}

std::string json(const Figures& f) {
    return std::format(R"({{"p50": {:.1f}, "p99": {:.1f}, "max": {:.1f}}})", f.p50, f.p99, f.max);
}

// Rows as a year of work would leave them, by plain SQL: a million durable transactions would take an hour.
void fill(const std::string& path, std::int64_t images) {
    must(Catalogue::open(path));
    sqlite3* database = nullptr;
    const std::string sql = std::format(R"sql(
PRAGMA synchronous = OFF; BEGIN;
CREATE TEMP TABLE n AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {0}) SELECT i FROM n;
INSERT INTO jobs SELECT i, i, 1000 + i % 500, 'user' || i % 500, 'account' || i % 50, 1, 900, 3, 0, 0, 0, 0, '', '', {0} / {1} + 2
    FROM n WHERE i <= {1};
INSERT INTO checkpoints (id, job, number, state, created, completed, bytes, new_bytes, frozen_ms, images)
    SELECT i, 1 + (i - 1) % {1}, 1 + (i - 1) / {1}, 3, i, i, 1 << 30, 1 << 28, 400, 1 FROM n;
INSERT INTO images (id, checkpoint, task, node, manifest, manifest_bytes, digest, bytes)
    SELECT i, i, 'batch', 'n' || i % 1000, 'job-' || (1 + (i - 1) % {1}) || '/ckpt-' || i || '.manifest', 3000000,
           hex(randomblob(32)), 1 << 30
    FROM n;
INSERT INTO packs (id, job, path, bytes)
    SELECT i, 1 + (i - 1) % {1}, 'job-' || (1 + (i - 1) % {1}) || '/ckpt-' || i || '.pack', 1 << 28 FROM n;
INSERT INTO pack_refs SELECT i, i, 1 << 28 FROM n UNION ALL SELECT i, i - {1}, 1 << 27 FROM n WHERE i > {1};
INSERT INTO files (image, path, inode, size, append, stdio)
    SELECT a.i, '/scratch/user/out.' || a.i || '.' || b.i, a.i, 1 << 20, 1, 0
    FROM n a, n b WHERE b.i <= 4;
COMMIT;)sql", images, kJobs);
    char* message = nullptr;
    if (sqlite3_open(path.c_str(), &database) != SQLITE_OK ||
        sqlite3_exec(database, sql.c_str(), nullptr, nullptr, &message) != SQLITE_OK)
        give_up(message != nullptr ? message : "the database cannot be opened");
    sqlite3_close(database);
}

std::vector<double> look_up(const Catalogue& catalogue, int times) {
    std::mt19937 random(1);
    std::vector<double> took;
    for (int i = 0; i < times; ++i) {
        const RowId job = 1 + random() % kJobs;
        took.push_back(microseconds_of([&] {
            if (!must(catalogue.newest_complete(job))) give_up("a checkpoint is missing");
        }));
    }
    return took;
}

struct Writes {
    std::vector<double> begin, captured, complete, remove;
};

Writes write(Catalogue& catalogue) {
    Writes times;
    for (RowId job = 1; job <= 200; ++job) {
        CheckpointRow row;
        times.begin.push_back(
            microseconds_of([&] { row = must(catalogue.begin_checkpoint(job, false, 1)); }));
        times.captured.push_back(microseconds_of([&] {
            must(catalogue.captured(row.id, {{"batch", "n1", 1, {{"/scratch/out", 1, 1, true, false}}}}, {}));
        }));
        const std::string name = std::format("job-{0}-{0}/ckpt-{1}-new", job, row.number);
        const StoredImage image{.manifest = name + ".manifest", .digest = "d", .plain_bytes = 1, .new_bytes = 2,
                                .packs = {{.path = name + ".pack", .bytes = 1, .used = 1}}};
        times.complete.push_back(microseconds_of([&] { must(catalogue.complete(row.id, {{"batch", image, 1}}, 2)); }));
        const auto oldest = must(catalogue.checkpoints(job)).front();
        times.remove.push_back(microseconds_of([&] { must(catalogue.remove_checkpoint(oldest.id, 3)); }));
    }
    return times;
}

constexpr int kWide = 10'000;

struct Wide {
    double captured = 0, complete = 0, images = 0, image = 0, begin = 0, remove = 0;
};

// The second of two checkpoints of as many tasks, each of whose images refers to a pack of the first; then the removal of the first.
Wide write_wide(Catalogue& catalogue) {
    const RowId job = must(catalogue.add_job({.job_id = 900'000, .uid = 1, .user = "u", .account = "a"}));
    Wide times;
    std::vector<std::string> packs(kWide);
    RowId first = 0;
    for (int round = 0; round < 2; ++round) {
        CheckpointRow row;
        times.begin = microseconds_of([&] { row = must(catalogue.begin_checkpoint(job, false, 1)); });
        std::vector<CapturedImage> dumped;
        std::vector<StoredTask> stored;
        for (int rank = 0; rank < kWide; ++rank) {
            const std::string task = std::format("0.{}", rank), name = std::format("job-{}/ckpt-{}-{}", job, row.number, task);
            dumped.push_back({task, std::format("n{}", rank), 1, {{"/scratch/out", 1, 1, true, false}}});
            StoredImage image{.manifest = name + ".manifest", .digest = "d", .plain_bytes = 1, .new_bytes = 2,
                              .packs = {{.path = name + ".pack", .bytes = 1, .used = 1}}};
            if (round > 0) image.packs.push_back({.path = packs[rank], .bytes = 1, .used = 1});
            packs[rank] = name + ".pack";
            stored.push_back({task, std::move(image), 1});
        }
        times.captured = microseconds_of([&] { must(catalogue.captured(row.id, dumped, {})); });
        times.complete = microseconds_of([&] { must(catalogue.complete(row.id, stored, 2)); });
        times.images = microseconds_of([&] { static_cast<void>(must(catalogue.images(row.id))); });
        times.image = microseconds_of([&] { static_cast<void>(must(catalogue.image(row.id, "0.777"))); });
        if (round == 0) first = row.id;
    }
    times.remove = microseconds_of([&] { must(catalogue.remove_checkpoint(first, 3)); });
    return times;
}

void run(const std::string& directory, std::int64_t images) {
    const std::string path = directory + "/catalogue.sqlite";
    const double filled = microseconds_of([&] { fill(path, images); });
    const auto size = std::filesystem::file_size(path);
    std::optional<Catalogue> catalogue;
    const double opened = microseconds_of([&] { catalogue.emplace(must(Catalogue::open(path))); });
    look_up(*catalogue, 1000);
    const Figures alone = figures(look_up(*catalogue, 20'000));
    double live = 0, kept = 0, dead = 0, backup = 0;
    kept = microseconds_of([&] { static_cast<void>(must(catalogue->kept(1))); });
    std::atomic<bool> done = false;
    std::vector<double> beside;
    std::thread looks([&] {
        while (!done) {
            std::ranges::copy(look_up(*catalogue, 20), std::back_inserter(beside));
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
    });
    static_cast<void>(must(catalogue->kept(1)));
    backup = microseconds_of([&] { must(catalogue->backup(directory + "/copy.sqlite")); });
    done = true;
    looks.join();
    live = microseconds_of([&] { static_cast<void>(must(catalogue->jobs(false))); });
    dead = microseconds_of([&] { static_cast<void>(must(catalogue->jobs_with_dead_space(0.5, 1))); });
    const Writes writes = write(*catalogue);
    const Wide wide = write_wide(*catalogue);
    std::println(R"({{
  "images": {}, "jobs": {}, "bytes": {},
  "fill_s": {:.2f}, "open_with_check_s": {:.2f}, "kept_s": {:.2f}, "backup_s": {:.2f},
  "live_jobs_s": {:.3f}, "dead_space_s": {:.2f},
  "newest_complete_us": {},
  "newest_complete_beside_kept_and_backup_us": {},
  "begin_us": {},
  "captured_us": {},
  "complete_us": {},
  "remove_us": {},
  "ten_thousand_images_ms": {{"begin": {:.1f}, "captured": {:.1f}, "complete": {:.1f}, "images": {:.1f}, "image": {:.3f}, "remove": {:.1f}}}
}})",
                 images, kJobs, size, filled / 1e6, opened / 1e6, kept / 1e6, backup / 1e6, live / 1e6, dead / 1e6, json(alone),
                 json(figures(beside)), json(figures(writes.begin)), json(figures(writes.captured)),
                 json(figures(writes.complete)), json(figures(writes.remove)), wide.begin / 1e3, wide.captured / 1e3,
                 wide.complete / 1e3, wide.images / 1e3, wide.image / 1e3, wide.remove / 1e3);
}

}  // namespace

int main(int argc, char** argv) {
    std::int64_t images = 1'000'000;
    const std::string_view count = argc == 3 ? argv[2] : "";
    const bool counted = argc == 2 || std::from_chars(count.data(), count.data() + count.size(), images).ec == std::errc{};
    if (argc < 2 || argc > 3 || !counted || images < kJobs * 2)
        give_up("usage: catalogue_bench DIRECTORY [IMAGES]; 30000 images at least");
    std::string directory = std::string(argv[1]) + "/catalogue-bench-XXXXXX";
    if (::mkdtemp(directory.data()) == nullptr) give_up(directory + " cannot be made");
    run(directory, images);
    std::filesystem::remove_all(directory);
}
