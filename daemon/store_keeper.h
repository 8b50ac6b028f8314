// SPDX-License-Identifier: GPL-3.0-or-later
//
// The keeper of the store: retention, the collector of garbage, compaction, orphans, checks, the rebuilt catalogue and its backups.
//
// A thread of its own, because all of this waits for the store. It decides by the catalogue alone and has nodes do the work; it never holds
// the controller's mutex. It may be killed between any two steps, because each step leaves what the next run finds again:
//   removal     the row goes and the files become garbage (one transaction); files removed; garbage rows removed
//   compaction  new files are made beside the old (orphans until then); rows change over and the old become garbage (one transaction)
//   orphans     the store is listed first and the catalogue asked afterwards; what nobody names becomes garbage
//   a bad image the row first, then the manifest is put aside; rows that are bad are put aside again after a restart
//   store_keeper.cpp          the thread, retention, garbage    store_keeper_compact.cpp  compaction, quarantine, what comes from drops
//   store_keeper_orphans.cpp  files, images and rows that do not belong together
//   store_keeper_check.cpp    verification of images            store_keeper_rebuild.cpp  catalogue: rebuilding and backups
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "common/config.h"
#include "common/fd.h"
#include "daemon/messages.h"
#include "daemon/slurm_api.h"
#include "daemon/store_orders.h"
#include "daemon/unremoved_files.h"
#include "image_store/catalogue.h"
#include "image_store/retention.h"
#include "rpc/sckpt.pb.h"

namespace sckpt {

// How much at a time, and what is worth it: of a store of some size. Tests have small ones.
struct KeeperLimits {
    double dead_share = 0.5;                // of a pack, and
    std::uint64_t dead_bytes = 1u << 20;    // in it, that no image uses: then it is rewritten
    std::size_t files_in_order = 500;       // that one order removes or puts aside
};

class StoreKeeper {
   public:
    using SlurmJobs = std::function<Result<std::vector<SlurmJob>>()>;
    using Cancelled = StoreAccess::Cancelled;
    template <class Message>
    using Tell = std::function<void(const Message&)>;

    StoreKeeper(const Config& config, Catalogue& catalogue, StoreAccess& store, SlurmJobs slurm_jobs, const KeeperLimits& limits = {});
    ~StoreKeeper() { stop(); }
    void start();
    void stop();  // work on a node is not waited for

    // Something was completed, has ended or is bad, or a node came: look soon rather than at the next interval. Never blocks.
    void wake();
    // What the thread does: at a wake, and once every retention.interval (`whole`). The first error is answered; the rest is done
    // all the same.
    Result<> round(bool whole, std::int64_t now);
    std::string trouble() const;          // of the last round; "" when there was none
    std::string unremoved_files() const;  // a sentence about those that cannot be removed; "" when there are none

    // A node could not verify the image: another one is asked before it is marked bad, as a node may have bad memory or a bad way to the
    // store. Until that is known, doubts() says so of its job. Never blocks.
    void doubt(RowId checkpoint, const std::string& task, const std::string& digest, const std::string& node, const std::string& why);
    bool doubts(RowId job) const;
    void settle_doubts(std::int64_t now);  // what a thread of its own does

    // --- the administrator's commands. They block, wait for each other and for a round, and end soon once `cancelled` says so.
    Result<rpc::ReportReply> report(const rpc::RetentionRules& rules, std::int64_t now, const Cancelled& cancelled);
    Result<> clean(const rpc::RetentionRules& rules, std::int64_t now, const Tell<rpc::CleanProgress>& tell, const Cancelled& cancelled);
    // sweep: files that nobody names are removed. remove: rows whose files are missing are marked bad, too.
    enum class Orphans { report, sweep, remove };
    Result<rpc::OrphansReply> orphans(Orphans mode, std::int64_t now, const Cancelled& cancelled);
    Result<> check(const rpc::CheckRequest& request, std::int64_t now, const Tell<rpc::CheckProgress>& tell, const Cancelled& cancelled);
    Result<> rebuild(const Tell<rpc::RebuildProgress>& tell, const Cancelled& cancelled);

    // Files that a node has made and that no row is going to name become garbage. Waits for the disk alone.
    Result<> discard(const std::vector<StoredImage>& images);
    // The copy of the database that a Backup order is about.
    Result<UniqueFd> open_backup() const;

   private:
    // Of a node at work; it ends by itself when the store does not move for store.timeout.
    static constexpr std::chrono::hours kSilence{2};

    using Work = std::unique_lock<std::timed_mutex>;
    Result<Work> begin_work(std::timed_mutex& mutex, const Cancelled& cancelled) const;
    Result<rpc::StoreReply> order(rpc::StoreOrder order, std::chrono::seconds silence, const Cancelled& cancelled) const;
    std::chrono::seconds short_silence() const;  // of work that is not much
    void serve(const std::stop_token& stop);
    bool stopped() const { return stopping_; }

    // What follows is done with work_ held, but for check_each and check_batch.
    Result<> remove_kept(const RetentionRules& rules, std::int64_t now, rpc::CleanProgress& progress, const Tell<rpc::CleanProgress>& tell,
                         const Cancelled& cancelled);
    Result<> collect(std::int64_t now, rpc::CleanProgress& progress, const Tell<rpc::CleanProgress>& tell, const Cancelled& cancelled);
    bool is_worth_it(const PackRow& pack) const;
    std::vector<Catalogue::Garbage> removable(const std::vector<Catalogue::Garbage>& garbage, std::int64_t now) const;
    void note_unremoved();
    Result<> forget_jobs(std::int64_t now);
    Result<> put_bad_aside();
    Result<> compact(std::int64_t now, const Cancelled& cancelled);
    Result<> compact_job(RowId job, std::int64_t now, const Cancelled& cancelled);
    Result<> compact_images(const rpc::Compact& compact, std::int64_t now, const Cancelled& cancelled);
    Result<> backup(std::int64_t now);

    struct ListedFile {
        std::uint64_t bytes = 0;
        std::int64_t modified = 0;
    };
    struct Listing {  // the store, as of a scan
        std::map<std::string, ListedFile> files;
        std::map<std::string, rpc::FoundImage> images;  // by the path of the manifest
        std::vector<std::string> unusable;
        std::map<std::string, std::string> unreadable;  // manifests and directories, with the reason
        bool is_doubtful(const std::string& path) const;  // it may be of an image that could not be read
    };
    Result<Listing> scan_well(const Cancelled& cancelled);
    Result<Listing> scan(bool images, std::chrono::seconds silence, const Cancelled& cancelled);
    using Unknown = std::map<std::string, std::uint64_t>;  // files that no row names, with their sizes
    Result<> find_files(const Listing& listing, Orphans mode, std::int64_t now, rpc::OrphansReply& reply, const Cancelled& cancelled);
    Result<> leave_images(Unknown& unknown, std::int64_t now, rpc::OrphansReply& reply, const Cancelled& cancelled);
    Result<> find_rows(const std::vector<std::string>& named, const Listing& listing, Orphans mode, std::int64_t now,
                       rpc::OrphansReply& reply, const Cancelled& cancelled);
    Result<> find_jobs(std::int64_t now, rpc::OrphansReply& reply);
    Result<bool> is_leftover(const rpc::FoundImage& image, const Listing& listing) const;
    static bool is_whole(const rpc::FoundImage& image, const Listing& listing);
    using FoundImages = std::vector<const rpc::FoundImage*>;  // of one checkpoint
    static std::map<std::uint64_t, FoundImages> by_checkpoint(const Listing& listing);
    // Each task's once: those that are whole. `tell` hears of the others.
    using TellUnusable = std::function<void(const std::string& manifest, const std::string& why)>;
    static Result<std::vector<FoundImage>> usable(const FoundImages& images, const Listing& listing, const TellUnusable& tell);
    Result<bool> may_import(const rpc::FoundImage& image) const;
    Result<> import_checkpoint(const FoundImages& images, const Listing& listing, rpc::RebuildProgress& progress);

    struct Subject {  // one image to verify
        CheckpointRow row;
        std::string task, manifest, digest;
        std::uint64_t bytes = 0;
    };
    Result<std::vector<Subject>> subjects(RowId job) const;  // 0: of all jobs
    // Has all of them verified, some at a time; `found` is told what a node says of each, and which node that is.
    using Found = std::function<Result<>(const Subject&, const rpc::CheckedImage&, const std::string& node)>;
    Result<> check_each(const std::vector<Subject>& all, bool quick, const Cancelled& cancelled, const Found& found) const;
    Result<rpc::StoreReply> check_batch(std::span<const Subject> batch, bool quick, const Cancelled& cancelled) const;
    static rpc::StoreOrder check_order(std::span<const Subject> batch, bool quick);
    struct Doubt {
        RowId job = 0;
        Subject subject;
        std::string node, why;
    };
    Result<> settle(const Doubt& doubt, std::int64_t now);
    // Whether another node than this one, if there is one, finds it bad too; what that one says then.
    Result<std::optional<std::string>> confirmed(const Subject& subject, bool quick, const std::string& node, const Cancelled& cancelled) const;
    Result<> judge(const Subject& subject, const rpc::CheckedImage& checked, const rpc::CheckRequest& request, const std::string& node,
                   std::int64_t now, rpc::CheckProgress& progress, const Cancelled& cancelled);
    Result<bool> still_there(const Subject& subject) const;
    Result<bool> mark_bad(const Subject& subject, const std::string& why, std::int64_t now);

    const Config config_;
    Catalogue& catalogue_;
    StoreAccess& store_;
    const SlurmJobs slurm_jobs_;
    const KeeperLimits limits_;

    std::timed_mutex work_;                        // one at a time changes what is in the store
    std::timed_mutex scanning_;                    // one scan at a time: it reads a directory of each job
    std::timed_mutex checking_;                    // one check at a time; a check runs beside everything else
    std::set<RowId> aside_;                        // bad ones whose manifests have been put aside
    std::map<RowId, std::int64_t> compact_after_;  // jobs whose compaction has failed: not again before
    UnremovedFiles unremoved_;
    std::int64_t backed_up_ = 0, orphans_looked_ = 0;

    mutable std::mutex mutex_;  // of what follows
    std::condition_variable_any woken_;
    bool wake_ = false;
    std::string trouble_, unremoved_text_;
    std::uint64_t store_total_ = 0, store_free_ = 0;  // as of the last scan
    std::deque<Doubt> doubts_;
    std::atomic<bool> stopping_ = false;
    std::jthread thread_, doubter_;
};

// Rules of the configuration, where the command gives no others.
RetentionRules retention_rules(const Config::Retention& config, const rpc::RetentionRules& over);
std::string job_directory(std::uint32_t job_id, RowId job);    // below the store
std::int64_t unix_now();

}  // namespace sckpt
