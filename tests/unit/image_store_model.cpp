// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/unit/image_store_model.h"

#include <algorithm>
#include <array>
#include <format>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "image_store/names.h"
#include "tests/unit/image_store_file_systems.h"

namespace sckpt::test {
namespace {

using enum CheckpointState;

const SealKeys& keys() {
    static const SealKeys made = *SealKeys::parse("01234567 " + std::string(64, '7'));
    return made;
}

Result<Seal> seal(std::string_view head, const Digest& rest) { return keys().seal({digest_of(head), rest}); }

// Making a catalogue takes several milliseconds; one that is done with is emptied and used again.
std::vector<Catalogue>& used_catalogues() {
    static std::vector<Catalogue> used;
    return used;
}

Catalogue empty_catalogue() {
    if (used_catalogues().empty()) {
        auto made = Catalogue::open(":memory:");
        REQUIRE(made);
        REQUIRE(made->set_rebuilt());
        return std::move(*made);
    }
    Catalogue catalogue = std::move(used_catalogues().back());
    used_catalogues().pop_back();
    return catalogue;
}

void empty_for_next_use(Catalogue catalogue) {
    constexpr std::int64_t kAnyTime = std::int64_t{1} << 40;
    const auto jobs = catalogue.jobs(true);
    for (const JobRow& job : *jobs) {
        REQUIRE(catalogue.set_job_ended(job.id, JobOutcome::succeeded, 1));
        const auto rows = catalogue.checkpoints(job.id);
        for (const CheckpointRow& row : *rows)
            if (row.state == preparing || row.state == captured) REQUIRE(catalogue.failed(row.id, "the test ends"));
        for (const CheckpointRow& row : *rows) REQUIRE(catalogue.remove_checkpoint(row.id, kAnyTime));
        REQUIRE(catalogue.forget_job(job.id));
    }
    std::vector<std::string> garbage;
    const auto files = catalogue.garbage(1000);
    for (const Catalogue::Garbage& file : *files) garbage.push_back(file.path);
    REQUIRE(catalogue.garbage_removed(garbage));
    used_catalogues().push_back(std::move(catalogue));
}

// Image N: parts that never change, that change each time, each second and each third time, and zeros.
FileSystem& image(std::uint32_t number) {
    static std::map<std::uint32_t, std::unique_ptr<MemoryFileSystem>> made;
    std::unique_ptr<MemoryFileSystem>& files = made[number];
    if (files) return *files;
    files = std::make_unique<MemoryFileSystem>();
    REQUIRE(files->make_directory("files"));
    put_file(*files, "files/slurm_script", "#!/bin/sh\n");
    put_file(*files, "empty.img", "");
    for (std::uint32_t every : {1, 2, 3})
        put_file(*files, std::format("core-{}.img", every), noise(3000, 10 * every + number / every));
    put_file(*files, "pages-1.img", noise(70'000, 1) + std::string(70'000, '\0') + noise(5000, 100 + number));
    return *files;
}
constexpr std::array kImageFiles{"files/slurm_script", "empty.img", "core-1.img", "core-2.img", "core-3.img", "pages-1.img"};

struct OpenedManifest {
    Manifest manifest;
    StoredImage stored;
};

// As a root daemon does it: nothing is parsed before the seal has been verified. digest: "" for any.
Result<OpenedManifest> open_manifest(FileSystem& files, const std::string& path, const std::string& digest = "") {
    SCKPT_ASSIGN(std::unique_ptr<File> file, files.open(path));
    SCKPT_ASSIGN(const Manifest::Hashes hashes, Manifest::hash(*file));
    if (!digest.empty() && hashes.digest != digest) return fail(Errc::corrupt, path + " is another one");
    SCKPT_TRY(keys().verify(hashes.parts, hashes.seal));
    SCKPT_ASSIGN(const std::uint64_t bytes, file->size());
    SCKPT_ASSIGN(Manifest manifest, Manifest::open(std::move(file)));
    StoredImage stored{path, hashes.digest, manifest.plain_bytes, bytes, manifest.packs};
    return OpenedManifest{std::move(manifest), std::move(stored)};
}

Result<OpenedManifest> open_manifest(FileSystem& files, const Catalogue& catalogue, RowId checkpoint) {
    SCKPT_ASSIGN(const std::optional<ImageRow> row, catalogue.image(checkpoint, "batch"));
    REQUIRE(row);
    return open_manifest(files, row->manifest, row->digest);
}

std::vector<CheckpointRow> rows_in(const Catalogue& catalogue, CheckpointState state) {
    auto rows = catalogue.checkpoints_in(state);
    REQUIRE(rows);
    return std::move(*rows);
}

using Sizes = std::map<std::string, std::uint64_t>;

Result<Sizes> list(FileSystem& files) {
    SCKPT_ASSIGN(const Store::Listing listing, Store(files).list());
    if (!listing.unreadable.empty()) return fail(Errc::io, listing.unreadable.front().why);  // tried again
    Sizes sizes;
    for (const Store::Listed& file : listing.files) sizes[file.path] = file.bytes;
    return sizes;
}

// The manifests among these files that verify, those with all of their packs.
Result<std::vector<OpenedManifest>> whole_images(FileSystem& files, const Sizes& sizes) {
    std::vector<OpenedManifest> images;
    for (const auto& [path, bytes] : sizes) {
        if (!path.ends_with(kManifestSuffix)) continue;
        auto opened = open_manifest(files, path);
        if (!opened && opened.error().code == Errc::corrupt) continue;
        if (!opened) return std::unexpected(opened.error());  // it may be whole all the same
        const bool whole = std::ranges::all_of(opened->manifest.packs, [&](const PackUse& pack) {
            const auto found = sizes.find(pack.path);
            return found != sizes.end() && found->second == pack.bytes;
        });
        if (whole) images.push_back(std::move(*opened));
    }
    std::ranges::stable_sort(images, {}, [](const OpenedManifest& image) { return image.manifest.identity.checkpoint_row; });
    return images;
}

// Reads the image back, and compares each byte of it.
Result<> read_back(FileSystem& files, const Manifest& manifest, std::uint32_t number) {
    MemoryFileSystem target;
    SCKPT_TRY(Store(files).get(manifest, target, {}));
    CHECK(manifest.files.size() == kImageFiles.size());
    for (const char* name : kImageFiles)
        if (contents(target, name) != contents(image(number), name))
            return fail(Errc::corrupt, std::format("{} of {}", name, number));
    return {};
}

}  // namespace

StoreModel::StoreModel() : catalogue_(empty_catalogue()) {
    job = *catalogue_.add_job({.job_id = 4711, .uid = 1000, .user = "carol", .submit_time = kNow, .interval_seconds = 60});
}

StoreModel::~StoreModel() { empty_for_next_use(std::move(catalogue_)); }

void StoreModel::kill_before(std::uint64_t change) {
    changes_ = 0;
    kill_at_ = change;
}

Result<CheckpointRow> StoreModel::row(std::uint32_t number) const {
    SCKPT_ASSIGN(const auto found, catalogue_.checkpoint(job, number));
    if (!found) return fail(Errc::not_found, std::format("there is no checkpoint {}", number));
    return *found;
}

// ---- checkpoints ----

Result<CheckpointRow> StoreModel::capture() {
    SCKPT_ASSIGN(const CheckpointRow begun, change([&] {
        return catalogue_.begin_checkpoint(job, false, kNow);
    }));
    SCKPT_TRY(change([&] { return catalogue_.captured(begun.id, {{"batch", "n1", 1, {}}}, {}); }));
    return begun;
}

Result<> StoreModel::drain(RowId checkpoint, FileSystem& by) {
    const CheckpointRow row = **catalogue_.checkpoint(checkpoint);
    std::optional<OpenedManifest> base;
    if (row.base != 0) {
        SCKPT_ASSIGN(base, open_manifest(by, catalogue_, row.base));
    }
    PutRequest request;
    request.identity = {.cluster = "c", .user = "carol", .account = "a", .node = "n1", .task = "batch", .job_id = 4711,
                        .uid = 1000, .submit_time = kNow, .job_row = job, .checkpoint_row = row.id, .checkpoint = row.number, .created = kNow, .leader = "batch", .ended = {}};
    request.directory = std::format("job-4711-{}", job);
    request.name = std::format("ckpt-{}-batch", row.number);
    request.pages["pages-1.img"] = {{0, 145'000, 0x10000}};
    request.base = base ? &base->manifest : nullptr;
    request.seal = seal;
    SCKPT_ASSIGN(const StoredImage stored, Store(by).put(image(row.number), request, {}));
    SCKPT_TRY(change([&] { return catalogue_.complete(row.id, {{"batch", stored, 1}}, kNow); }));
    promised.insert(row.number);
    return {};
}

Result<> StoreModel::restore(std::uint32_t number, FileSystem& by) {
    SCKPT_ASSIGN(const CheckpointRow checkpoint, row(number));
    SCKPT_TRY(change([&] { return catalogue_.lease(checkpoint.id, now_ + 60); }));
    SCKPT_ASSIGN(const OpenedManifest opened, open_manifest(by, catalogue_, checkpoint.id));
    SCKPT_TRY(read_back(by, opened.manifest, number));
    return change([&] { return catalogue_.lease(checkpoint.id, 0); });
}

// ---- the keeper ----

Result<> StoreModel::remove_but(const Numbers& kept) {
    SCKPT_ASSIGN(const auto rows, catalogue_.checkpoints(job));
    for (const CheckpointRow& row : rows) {
        if (kept.contains(row.number) || row.state == preparing || row.state == captured) continue;
        const auto removed = change([&] { return catalogue_.remove_checkpoint(row.id, now_); });
        if (!removed && removed.error().code == Errc::denied) continue;
        SCKPT_TRY(removed);
        promised.erase(row.number);
    }
    return {};
}

Result<> StoreModel::collect(FileSystem& by) {
    for (;;) {
        SCKPT_ASSIGN(const auto garbage, catalogue_.garbage(3));  // few, so that there are several rounds
        if (garbage.empty()) return {};
        std::vector<std::string> paths;
        for (const Catalogue::Garbage& file : garbage) paths.push_back(file.path);
        SCKPT_ASSIGN(const auto unremoved, Store(by).remove(paths));
        for (const Store::Unremoved& file : unremoved) std::erase(paths, file.path);
        SCKPT_TRY(change([&] { return catalogue_.garbage_removed(paths); }));
        if (!unremoved.empty()) return fail(Errc::io, unremoved.front().why);
    }
}

Result<> StoreModel::compact(FileSystem& by) {
    constexpr double kDead = 0.05;
    SCKPT_ASSIGN(const auto jobs, catalogue_.jobs_with_dead_space(kDead, 1));
    if (jobs.empty()) return {};
    SCKPT_ASSIGN(const auto rows, catalogue_.checkpoints(job));
    std::vector<OpenedManifest> opened;
    std::vector<Catalogue::Compacted> changed;
    for (const CheckpointRow& row : rows) {
        if (row.state == failed) continue;
        if (row.state != complete) return {};
        SCKPT_ASSIGN(OpenedManifest one, open_manifest(by, catalogue_, row.id));
        changed.push_back({row.id, "batch", one.stored.digest, {}});
        opened.push_back(std::move(one));
    }
    std::vector<const Manifest*> images;
    for (const OpenedManifest& one : opened) images.push_back(&one.manifest);
    std::vector<std::string> rewrite;
    SCKPT_ASSIGN(const auto packs, catalogue_.packs(job));
    for (const PackRow& pack : packs)
        if (static_cast<double>(pack.bytes - pack.used) >= kDead * static_cast<double>(pack.bytes)) rewrite.push_back(pack.path);
    SCKPT_ASSIGN(const auto stored, Store(by).compact(images, rewrite, seal, {}));
    for (std::size_t i = 0; i < stored.size(); ++i) changed[i].image = stored[i];
    const auto done = change([&] { return catalogue_.compacted(changed, now_); });
    return !done && done.error().code == Errc::busy ? Result<>() : done;  // one is in use: what was made is swept away
}

// The store is listed before the catalogue is asked.
Result<> StoreModel::sweep(FileSystem& by) {
    SCKPT_ASSIGN(const Sizes sizes, list(by));
    std::vector<std::string> paths;
    for (const auto& [path, bytes] : sizes) paths.push_back(path);
    SCKPT_ASSIGN(const auto uses, catalogue_.uses(paths));
    Sizes unknown;
    for (std::size_t i = 0; i < paths.size(); ++i)
        if (uses[i] == Catalogue::FileUse::unknown) unknown[paths[i]] = sizes.at(paths[i]);
    SCKPT_ASSIGN(const auto images, whole_images(by, sizes));
    for (const OpenedManifest& image : images) {
        SCKPT_ASSIGN(const auto known, catalogue_.checkpoint(image.manifest.identity.checkpoint_row));
        if (known || !unknown.contains(image.stored.manifest)) continue;
        unknown.erase(image.stored.manifest);  // whole, and the catalogue may have lost it
        for (const PackUse& pack : image.manifest.packs) unknown.erase(pack.path);
    }
    std::vector<Catalogue::Garbage> garbage;
    for (const auto& [path, bytes] : unknown) garbage.push_back({path, bytes});
    if (garbage.empty()) return {};
    return change([&] { return catalogue_.add_garbage(garbage); });
}

Result<> StoreModel::put_bad_aside(FileSystem& by) {
    std::vector<std::string> paths;
    for (const CheckpointRow& row : rows_in(catalogue_, bad)) paths.push_back((**catalogue_.image(row.id, "batch")).manifest);
    return Store(by).quarantine(paths);
}

Result<> StoreModel::import_images(Catalogue& into, FileSystem& from) {
    SCKPT_ASSIGN(const Sizes sizes, list(from));
    SCKPT_ASSIGN(const auto images, whole_images(from, sizes));
    for (const OpenedManifest& image : images)
        SCKPT_TRY(into.import({{image.manifest.identity, image.manifest.user_files, image.stored}}));
    return {};
}

Result<> StoreModel::rebuild(FileSystem& by) {
    SCKPT_TRY(change([&] { return import_images(catalogue_, by); }));
    lost_ = false;
    return {};
}

// ---- a whole life ----

Result<> StoreModel::step(const std::function<Result<>()>& body) {
    const Result<> done = body();
    if (done || files.crashed() || killed()) return done;
    CHECK(done.error().code != Errc::corrupt);  // a call that failed is no reason to give up an image
    return body();
}

Result<> StoreModel::take_checkpoint() {
    SCKPT_ASSIGN(const CheckpointRow row, capture());
    return step([&] { return drain(row.id, files); });
}

// The disk has changed a byte of what this checkpoint alone has; a check finds it.
Result<> StoreModel::find_damage(std::uint32_t number) {
    SCKPT_ASSIGN(const CheckpointRow checkpoint, row(number));
    SCKPT_ASSIGN(const OpenedManifest opened, open_manifest(files, catalogue_, checkpoint.id));
    const auto own = std::ranges::find_if(opened.manifest.packs, [&](const PackUse& pack) {
        return pack.path.contains(std::format("/ckpt-{}-", number));
    });
    REQUIRE(own != opened.manifest.packs.end());
    if (damaged.insert(number).second) REQUIRE(disk.damage(own->path, own->bytes / 4));
    SCKPT_ASSIGN(const auto faults, Store(files).check(opened.manifest, {}));
    REQUIRE(faults.size() == 1);
    CHECK(faults.front().pack == own->path);
    SCKPT_TRY(change([&] { return catalogue_.bad(checkpoint.id, faults.front().what); }));
    promised.erase(number);
    return {};
}

Result<> StoreModel::live() {
    for (int i = 0; i < 3; ++i) SCKPT_TRY(take_checkpoint());
    SCKPT_TRY(remove_but({2, 3}));
    SCKPT_TRY(step([&] { return collect(files); }));
    SCKPT_TRY(remove_but({3}));
    SCKPT_TRY(step([&] { return compact(files); }));
    SCKPT_TRY(step([&] { return collect(files); }));
    SCKPT_TRY(take_checkpoint());
    SCKPT_TRY(step([&] { return restore(3, files); }));
    SCKPT_TRY(step([&] { return find_damage(4); }));
    SCKPT_TRY(step([&] { return put_bad_aside(files); }));
    SCKPT_TRY(take_checkpoint());
    SCKPT_TRY(remove_but({3, 5}));
    SCKPT_TRY(step([&] { return sweep(files); }));
    SCKPT_TRY(step([&] { return collect(files); }));
    empty_for_next_use(std::exchange(catalogue_, empty_catalogue()));
    lost_ = true;
    SCKPT_TRY(step([&] { return rebuild(files); }));
    SCKPT_TRY(take_checkpoint());
    SCKPT_TRY(remove_but({5, 6}));
    return step([&] { return collect(files); });
}

// ---- what must hold ----

// The numbers of what the catalogue calls complete; each is read back, unless its manifest is among those that were.
StoreModel::Numbers StoreModel::whole_in(const Catalogue& catalogue, std::set<std::string>& manifests) {
    Numbers numbers;
    for (const CheckpointRow& row : rows_in(catalogue, complete)) {
        numbers.insert(row.number);
        const auto opened = open_manifest(disk, catalogue, row.id);
        if (!opened) FAIL_CHECK("checkpoint " << row.number << ": " << opened.error().text);
        if (!opened || damaged.contains(row.number) || !manifests.insert(opened->stored.manifest).second) continue;
        if (auto whole = read_back(disk, opened->manifest, row.number); !whole)
            FAIL_CHECK("checkpoint " << row.number << ": " << whole.error().text);
    }
    return numbers;
}

void StoreModel::expect_nothing_lost() {
    std::set<std::string> manifests;
    const Numbers numbers = whole_in(catalogue_, manifests);
    if (!lost_) CHECK(numbers == promised);
    Catalogue rebuilt = empty_catalogue();
    if (auto imported = import_images(rebuilt, disk); !imported) FAIL(imported.error().text);
    CHECK(std::ranges::includes(whole_in(rebuilt, manifests), promised));
    empty_for_next_use(std::move(rebuilt));
}

Result<> StoreModel::recover(bool node_lost) {
    files.set({});
    kill_before(0);
    now_ += 3600;  // leases of who was killed have ended
    if (lost_) SCKPT_TRY(rebuild(files));
    for (const CheckpointRow& row : rows_in(catalogue_, preparing)) SCKPT_TRY(catalogue_.failed(row.id, "lost"));
    for (const CheckpointRow& row : rows_in(catalogue_, captured)) {
        if (node_lost) SCKPT_TRY(catalogue_.failed(row.id, "its node was lost"));
        else SCKPT_TRY(drain(row.id, files));
    }
    SCKPT_TRY(put_bad_aside(files));
    SCKPT_TRY(sweep(files));  // before the rows of failed ones go: they tell that nobody is to have what their drains have left
    SCKPT_TRY(remove_but(promised));
    SCKPT_TRY(collect(files));
    SCKPT_TRY(compact(files));
    return collect(files);
}

void StoreModel::expect_no_file_but_named() {
    const auto there = list(disk);
    REQUIRE(there);
    std::vector<std::string> paths;
    for (const auto& [path, bytes] : *there) paths.push_back(path);
    CHECK(paths == *catalogue_.named_files());
    CHECK(catalogue_.garbage(10)->empty());
}

void StoreModel::expect_space_given_back() {
    REQUIRE(take_checkpoint());
    std::set<std::string> manifests;
    CHECK(whole_in(catalogue_, manifests) == promised);
    REQUIRE(catalogue_.set_job_ended(job, JobOutcome::succeeded, kNow));
    REQUIRE(remove_but({}));
    REQUIRE(collect(files));
    CHECK(promised.empty());
    const auto left = disk.list("");
    for (const DirectoryEntry& entry : *left) CHECK(entry.name == kQuarantine);
}

}  // namespace sckpt::test
