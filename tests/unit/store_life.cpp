// SPDX-License-Identifier: GPL-3.0-or-later
#include "tests/unit/store_life.h"

#include <algorithm>
#include <filesystem>
#include <format>
#include <map>
#include <utility>

#include "common/log.h"
#include "daemon/store_client.h"
#include "daemon/store_work.h"
#include "image_store/names.h"
#include "tests/unit/store_in_process.h"

namespace sckpt::test {
namespace {

using enum CheckpointState;
namespace fs = std::filesystem;

constexpr std::uint32_t kJobId = 4711, kUid = 1000;
constexpr std::int64_t kDay = 86400;
constexpr std::int64_t kLease = 3 * kDay;  // a round may come while a restore reads; one that was killed keeps nothing for long
const std::string kStoreId = "00000000-0000-4000-8000-000000000001";
constexpr KeeperLimits kLimits{.dead_share = 0.05, .dead_bytes = 1, .files_in_order = 3};  // so that there are several orders

using Image = std::map<std::string, std::string>;  // name → bytes

// Image N: parts that never change, that change each time, each second and each third time, and zeros.
const Image& image(std::uint32_t number) {
    static std::map<std::uint32_t, Image> made;
    Image& image = made[number];
    if (!image.empty()) return image;
    image["files/slurm_script"] = "#!/bin/sh\n";
    image["empty.img"] = "";
    for (std::uint32_t every : {1, 2, 3}) image[std::format("core-{}.img", every)] = noise(3000, 10 * every + number / every);
    image["pages-1.img"] = noise(70'000, 1) + std::string(70'000, '\0') + noise(5000, 100 + number);
    return image;
}

// As it lies in a fast tier; made once.
std::string image_directory(std::uint32_t number) {
    static const TempDir fast_tier;
    const std::string directory = fast_tier / std::to_string(number);
    if (fs::exists(directory)) return directory;
    fs::create_directories(directory + "/files");
    for (const auto& [name, bytes] : image(number)) write_text(directory + "/" + name, bytes);
    return directory;
}

// A catalogue that is as good as new. Making one takes milliseconds, copying it does not.
struct NewCatalogue {
    explicit NewCatalogue(bool rebuilt) {
        auto made = Catalogue::open(directory / "catalogue.sqlite");
        if (!made) FAIL(made.error().text);
        REQUIRE(made->set_store_id(kStoreId));
        if (rebuilt) REQUIRE(made->set_rebuilt());
    }
    void copy_to(const std::string& path) const { fs::copy_file(directory / "catalogue.sqlite", path); }

   private:
    const TempDir directory;
};

// The first of a cluster, or of one whose catalogue was lost. Made before any faults are.
void copy_new_catalogue(bool rebuilt, const std::string& path) {
    static const NewCatalogue first(true), later(false);
    (rebuilt ? first : later).copy_to(path);
}

const std::string& key_file() {
    static const TempDir directory;
    static const std::string path = [] {
        const std::string made = directory / "key";
        REQUIRE(write_key_file(made, false));
        return made;
    }();
    return path;
}

const SealKeys& keys() {
    static const SealKeys loaded = *SealKeys::load(key_file());
    return loaded;
}

// Read past all that is tested here: each byte of the image is compared.
Result<> read_back(FileSystem& files, const ImageRow& row, std::uint32_t number) {
    SCKPT_ASSIGN(std::unique_ptr<File> file, files.open(row.manifest));
    SCKPT_ASSIGN(const Manifest::Hashes hashes, Manifest::hash(*file));
    if (hashes.digest != row.digest) return fail(Errc::corrupt, row.manifest + " is another one");
    SCKPT_TRY(keys().verify(hashes.parts, hashes.seal));
    SCKPT_ASSIGN(const Manifest manifest, Manifest::open(std::move(file)));
    MemoryFileSystem target;
    SCKPT_TRY(Store(files).get(manifest, target, {}));
    CHECK(manifest.files.size() == image(number).size());
    for (const auto& [name, bytes] : image(number)) {
        SCKPT_ASSIGN(const std::string read, read_whole(target, name, 1u << 20));
        if (read != bytes) return fail(Errc::corrupt, std::format("{} of {}", name, number));
    }
    return {};
}

std::vector<CheckpointRow> rows_in(const Catalogue& catalogue, CheckpointState state) {
    auto rows = catalogue.checkpoints_in(state);
    REQUIRE(rows);
    return std::move(*rows);
}

}  // namespace

// ---- who works on the store ----

// Does what a node does at an order; n2 is asked where n1 is not to be.
class StoreLife::Nodes final : public StoreAccess {
   public:
    Nodes(const Config& config, FileSystem& store, std::function<bool()> controller_dead)
        : client_(config, thread_for_store(store)), controller_dead_(std::move(controller_dead)) {}

    bool any_node() const override { return true; }
    Result<rpc::StoreReply> run(rpc::StoreOrder order, std::chrono::seconds, const Cancelled&) override {
        if (controller_dead_()) return fail(Errc::unavailable, "nobody orders anything any more");
        rpc::StoreReply reply;
        StoreAnswer answer(1, [&](rpc::StoreReply&& part) { reply.MergeFrom(part); });
        const StoreWork work(client_, 1, [](const rpc::StoreOrder&, const StoreCall&) { return Result<>(); });
        answer.end(work.carry_out(order, answer, {}));
        reply.set_node(order.avoid() == "n1" ? "n2" : "n1");
        if (!reply.ok()) return fail(reply.away() ? Errc::unavailable : Errc::io, reply.error());
        return reply;
    }

   private:
    const StoreClient client_;
    const std::function<bool()> controller_dead_;
};

struct StoreLife::Controller {
    Controller(const Config& config, Catalogue opened, StoreAccess& store)
        : catalogue(std::move(opened)),
          keeper(config, catalogue, store, [] { return Result<std::vector<SlurmJob>>(std::vector<SlurmJob>()); }, kLimits) {}
    Catalogue catalogue;
    StoreKeeper keeper;
};

StoreLife::StoreLife(std::int64_t keep) {
    set_log_level(LogLevel{0});  // nothing: thousands of lives would tell the same
    config_.controller.state_directory = directory_ / "";
    config_.store.directory = "/store";
    config_.store.user = "nobody";
    config_.store.key = key_file();
    config_.retention.keep = keep;
    config_.retention.backup_interval_seconds = std::int64_t{1} << 40;
    REQUIRE(make_store_id_file(disk, kStoreId));
    nodes_ = std::make_unique<Nodes>(config_, files, [this] { return database.crashed(); });
    REQUIRE(lose_catalogue());
    job_ = *catalogue().add_job({.job_id = kJobId, .uid = kUid, .user = "carol", .submit_time = now_, .interval_seconds = 60});
}

StoreLife::~StoreLife() {
    controller_.reset();  // before the disk of its catalogue
    set_log_level(LogLevel::info);
}

Catalogue& StoreLife::catalogue() const { return controller_->catalogue; }
StoreKeeper& StoreLife::keeper() const { return controller_->keeper; }

Result<> StoreLife::lose_catalogue() {
    controller_.reset();
    const std::string path = directory_ / std::format("catalogue-{}.sqlite", ++catalogues_);  // another one at each try
    copy_new_catalogue(catalogues_ == 1, path);
    SCKPT_ASSIGN(Catalogue opened, Catalogue::open(path));
    controller_ = std::make_unique<Controller>(config_, std::move(opened), *nodes_);
    return {};
}

void StoreLife::restart_controller(Survival survival, std::uint64_t seed) {
    controller_.reset();
    database.power_failure(survival, seed);
    database.set({});
    auto opened = Catalogue::open(directory_ / std::format("catalogue-{}.sqlite", catalogues_));
    if (!opened) FAIL(opened.error().text);
    controller_ = std::make_unique<Controller>(config_, std::move(*opened), *nodes_);
    check_promises();
}

Result<CheckpointRow> StoreLife::row(std::uint32_t number) const {
    SCKPT_ASSIGN(const auto found, catalogue().checkpoint(job_, number));
    if (!found) return fail(Errc::not_found, std::format("there is no checkpoint {}", number));
    return *found;
}

void StoreLife::completed(std::uint32_t number) {
    promised.insert(number);
    while (promised.size() > static_cast<std::size_t>(std::max<std::int64_t>(config_.retention.keep, 1))) promised.erase(promised.begin());
}

// What the catalogue calls complete after a crash may be more than it could say.
void StoreLife::check_promises() {
    if (catalogue().needs_rebuild()) return;
    Numbers numbers;
    for (const CheckpointRow& complete_one : rows_in(catalogue(), complete)) numbers.insert(complete_one.number);
    CHECK(std::ranges::includes(numbers, promised));
    for (const std::uint32_t number : numbers)
        if (!damaged.contains(number)) completed(number);
}

// ---- the parts of a life ----

Result<CheckpointRow> StoreLife::capture() {
    SCKPT_ASSIGN(const CheckpointRow begun, catalogue().begin_checkpoint(job_, false, now_));
    if (auto done = catalogue().captured(begun.id, {{"batch", "n1", 1, {}}}, {}); !done) {
        if (!crashed()) SCKPT_TRY(catalogue().failed(begun.id, done.error().text));
        return std::unexpected(done.error());
    }
    return begun;
}

Result<> StoreLife::drain(const CheckpointRow& row, FileSystem& by) {
    StoreClient::Drain request;
    request.image = image_directory(row.number);
    request.backend = "none";
    request.identity = {.cluster = "c", .user = "carol", .account = "a", .node = "n1", .task = "batch", .job_id = kJobId, .uid = kUid,
                        .submit_time = now_, .job_row = job_, .checkpoint_row = row.id, .checkpoint = row.number, .created = now_,
                        .leader = "batch", .ended = {}};
    request.needs.backend = "none";
    request.directory = job_directory(kJobId, job_);
    request.name = std::format("ckpt-{}-batch", row.number);
    if (row.base != 0) {
        SCKPT_ASSIGN(const auto base, catalogue().image(row.base, "batch"));
        if (base) request.base = {base->manifest, base->digest};
    }
    SCKPT_ASSIGN(const StoredImage stored, StoreClient(config_, thread_for_store(by)).drain(request, {.store = kStoreId}));
    SCKPT_TRY(catalogue().complete(row.id, {{"batch", stored, 1}}, now_));
    completed(row.number);
    return {};
}

Result<> StoreLife::restore(std::uint32_t number, FileSystem& by) {
    SCKPT_ASSIGN(const CheckpointRow checkpoint, row(number));
    SCKPT_TRY(catalogue().lease(checkpoint.id, now_ + kLease));
    SCKPT_ASSIGN(const auto stored, catalogue().image(checkpoint.id, "batch"));
    if (!stored) return fail(Errc::not_found, "it has no image");
    StoreClient::Fetch request{{stored->manifest, stored->digest}, checkpoint.id, kJobId, kUid, directory_ / "restored", {}, 1};
    SCKPT_TRY(StoreClient(config_, thread_for_store(by)).fetch(request, {.store = kStoreId}));
    for (const auto& [name, bytes] : image(number)) CHECK(read_text(request.target + "/" + name) == bytes);
    fs::remove_all(request.target);
    return catalogue().lease(checkpoint.id, 0);
}

Result<> StoreLife::round(bool whole) {
    now_ += 2 * kDay;
    return keeper().round(whole, now_);
}

Result<> StoreLife::find_damage(std::uint32_t number) {
    SCKPT_ASSIGN(const CheckpointRow checkpoint, row(number));
    if (damaged.insert(number).second) {
        SCKPT_ASSIGN(const auto packs, catalogue().packs(job_));
        const auto own = std::ranges::find_if(packs, [&](const PackRow& pack) { return pack.path.contains(std::format("/ckpt-{}-", number)); });
        REQUIRE(own != packs.end());
        REQUIRE(disk.damage(own->path, own->bytes / 4));
        promised.erase(number);
    }
    rpc::CheckRequest request;
    request.set_job_id(kJobId);
    request.set_repair(true);
    std::string trouble;
    const auto tell = [&](const rpc::CheckProgress& progress) { trouble += progress.unreadable() + progress.repaired(); };
    SCKPT_TRY(keeper().check(request, now_, tell, [] { return false; }));
    SCKPT_ASSIGN(const CheckpointRow checked, row(number));
    return checked.state == bad ? Result<>() : fail(Errc::io, "the check has not found it bad: " + trouble);
}

// ---- a whole life ----

Result<> StoreLife::step(const std::function<Result<>()>& body) {
    const Result<> done = body();
    if (crashed()) return fail(Errc::io, "power failure");  // even of a call that need not succeed
    if (done) return {};
    CHECK(done.error().code != Errc::corrupt);  // a call that failed is no reason to give up an image
    return body();
}

Result<> StoreLife::take_checkpoint() {
    std::optional<CheckpointRow> row;
    SCKPT_TRY(step([&]() -> Result<> {
        SCKPT_ASSIGN(row, capture());
        return {};
    }));
    SCKPT_TRY(step([&] { return drain(*row, files); }));
    return step([&] { return round(false); });
}

Result<> StoreLife::live() {
    for (int i = 0; i < 3; ++i) SCKPT_TRY(take_checkpoint());
    SCKPT_TRY(step([&] { return round(true); }));
    SCKPT_TRY(step([&] { return restore(*promised.begin(), files); }));
    SCKPT_TRY(take_checkpoint());
    const std::uint32_t newest = *promised.rbegin();
    SCKPT_TRY(step([&] { return find_damage(newest); }));
    SCKPT_TRY(take_checkpoint());
    SCKPT_TRY(step([&] { return round(true); }));
    SCKPT_TRY(step([&] { return lose_catalogue(); }));
    SCKPT_TRY(step([&] { return round(false); }));
    SCKPT_TRY(take_checkpoint());
    return step([&] { return round(true); });
}

// ---- what must hold ----

// The numbers of what the catalogue calls complete; each is read back, unless its manifest is among those that were.
StoreLife::Numbers StoreLife::whole_in(const Catalogue& catalogue, std::set<std::string>& manifests) {
    Numbers numbers;
    for (const CheckpointRow& row : rows_in(catalogue, complete)) {
        numbers.insert(row.number);
        const auto stored = catalogue.image(row.id, "batch");
        REQUIRE((stored && *stored));
        if (damaged.contains(row.number) || !manifests.insert((*stored)->manifest).second) continue;
        if (auto whole = read_back(disk, **stored, row.number); !whole)
            FAIL_CHECK("checkpoint " << row.number << ": " << whole.error().text);
    }
    return numbers;
}

void StoreLife::expect_nothing_lost() {
    std::set<std::string> manifests;
    const Numbers numbers = whole_in(catalogue(), manifests);
    if (!catalogue().needs_rebuild()) CHECK(std::ranges::includes(numbers, promised));
    const std::string path = directory_ / "of-the-store-alone.sqlite";
    copy_new_catalogue(false, path);
    {
        auto opened = Catalogue::open(path);
        if (!opened) FAIL(opened.error().text);
        Nodes nodes(config_, disk, [] { return false; });
        Controller other(config_, std::move(*opened), nodes);
        if (auto rebuilt = other.keeper.rebuild({}, {}); !rebuilt) FAIL(rebuilt.error().text);
        CHECK(std::ranges::includes(whole_in(other.catalogue, manifests), promised));
    }
    for (const char* suffix : {"", "-wal", "-shm"}) fs::remove(path + suffix);
}

Result<> StoreLife::recover(bool node_lost) {
    files.set({});
    database.set({});
    if (catalogue().needs_rebuild()) SCKPT_TRY(round(false));
    for (const CheckpointRow& row : rows_in(catalogue(), complete))  // the check had not come to an end
        if (damaged.contains(row.number)) SCKPT_TRY(find_damage(row.number));
    for (const CheckpointRow& row : rows_in(catalogue(), preparing)) SCKPT_TRY(catalogue().failed(row.id, "lost"));
    for (const CheckpointRow& row : rows_in(catalogue(), captured)) {
        if (node_lost) SCKPT_TRY(catalogue().failed(row.id, "its node was lost"));
        else SCKPT_TRY(drain(row, files));
    }
    SCKPT_TRY(round(true));
    return round(true);
}

void StoreLife::expect_no_file_but_named() {
    const auto there = Store(disk).list();
    REQUIRE(there);
    std::vector<std::string> paths;
    for (const Store::Listed& file : there->files) paths.push_back(file.path);
    for (const CheckpointRow& row : rows_in(catalogue(), bad)) {
        const auto stored = catalogue().image(row.id, "batch");
        REQUIRE((stored && *stored));
        paths.push_back((*stored)->manifest);  // put aside: named, and not there
    }
    std::ranges::sort(paths);
    CHECK(paths == *catalogue().named_files());
    CHECK(catalogue().garbage(10)->empty());
}

void StoreLife::expect_space_given_back() {
    if (auto taken = take_checkpoint(); !taken) FAIL(taken.error().text);
    std::set<std::string> manifests;
    CHECK(std::ranges::includes(whole_in(catalogue(), manifests), promised));
    REQUIRE(catalogue().set_job_ended(job_, JobOutcome::succeeded, now_));
    if (auto removed = round(true); !removed) FAIL(removed.error().text);
    const auto left = disk.list("");
    for (const DirectoryEntry& entry : *left) CHECK((entry.name == kQuarantine || entry.name == kStoreIdFile));
}

}  // namespace sckpt::test
