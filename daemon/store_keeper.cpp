// SPDX-License-Identifier: GPL-3.0-or-later
#include "daemon/store_keeper.h"

#include <algorithm>
#include <ctime>
#include <format>

#include "common/log.h"
#include "image_store/names.h"

namespace sckpt {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr int kNodesTried = 3;
constexpr seconds kRetry{10};  // after a round that failed
constexpr seconds kNoNode{5};  // or none that sees the store
constexpr std::int64_t kDay = 86400;

// A round at a wake may take this part of the keeper's time: reading what a million checkpoints are takes seconds.
constexpr int kIdleShare = 50;
constexpr seconds kBetweenRounds{1};

}  // namespace

std::int64_t unix_now() { return static_cast<std::int64_t>(time(nullptr)); }

std::string job_directory(std::uint32_t job_id, RowId job) { return std::format("job-{}-{}", job_id, job); }

RetentionRules retention_rules(const Config::Retention& config, const rpc::RetentionRules& over) {
    RetentionRules rules;
    rules.keep = over.has_keep() ? over.keep() : config.keep;
    rules.keep_success_seconds = over.has_keep_success_seconds() ? over.keep_success_seconds() : config.keep_success_seconds;
    rules.keep_failed_seconds = over.has_keep_failed_seconds() ? over.keep_failed_seconds() : config.keep_failed_seconds;
    rules.max_age_seconds = over.has_max_age_seconds() ? over.max_age_seconds() : config.max_age_seconds;
    rules.max_bytes = over.has_max_bytes() ? over.max_bytes() : config.max_size;
    rules.user_bytes = over.has_user_bytes() ? over.user_bytes() : config.user_quota;
    rules.account_bytes = over.has_account_bytes() ? over.account_bytes() : config.account_quota;
    return rules;
}

StoreKeeper::StoreKeeper(const Config& config, Catalogue& catalogue, StoreAccess& store, SlurmJobs slurm_jobs, const KeeperLimits& limits)
    : config_(config), catalogue_(catalogue), store_(store), slurm_jobs_(std::move(slurm_jobs)), limits_(limits) {}

void StoreKeeper::start() {
    thread_ = std::jthread([this](const std::stop_token& stop) { serve(stop); });
    doubter_ = std::jthread([this](const std::stop_token& stop) {
        while (!stop.stop_requested()) {
            {
                std::unique_lock lock(mutex_);
                if (!woken_.wait(lock, stop, [&] { return !doubts_.empty(); })) return;
            }
            settle_doubts(unix_now());
        }
    });
}

void StoreKeeper::stop() {
    stopping_ = true;
    for (std::jthread* thread : {&thread_, &doubter_}) {
        thread->request_stop();
        if (thread->joinable()) thread->join();
    }
}

void StoreKeeper::wake() {
    const std::lock_guard lock(mutex_);
    wake_ = true;
    woken_.notify_all();
}

std::string StoreKeeper::trouble() const {
    const std::lock_guard lock(mutex_);
    return trouble_;
}

std::string StoreKeeper::unremoved_files() const {
    const std::lock_guard lock(mutex_);
    return unremoved_text_;
}

void StoreKeeper::serve(const std::stop_token& stop) {
    const seconds interval(config_.retention.interval_seconds);
    auto due = steady_clock::now();
    auto not_before = due;
    while (!stop.stop_requested()) {
        {
            std::unique_lock lock(mutex_);
            woken_.wait_until(lock, stop, due, [&] { return wake_; });
            woken_.wait_until(lock, stop, not_before, [] { return false; });
            wake_ = false;
        }
        if (stop.stop_requested()) return;
        const auto begun = steady_clock::now();
        if (!store_.any_node() || catalogue_.store_id().empty()) {
            due = begun + kNoNode;
            continue;
        }
        const bool whole = begun >= due;
        const Result<> done = round(whole, unix_now());
        const auto ended = steady_clock::now();
        not_before = ended + std::max<steady_clock::duration>(kBetweenRounds, (ended - begun) * kIdleShare);
        not_before = std::min(not_before, ended + interval);
        if (whole) due = begun + interval;
        if (!done) due = std::min(due, ended + kRetry);

        const std::string trouble = done ? "" : done.error().text;
        const std::lock_guard lock(mutex_);
        if (trouble != trouble_ && !stop.stop_requested()) {
            if (trouble.empty()) log_info("the collector goes on");
            else log_warning("the collector: {}", trouble);
        }
        trouble_ = trouble;
    }
}

Result<> StoreKeeper::round(bool whole, std::int64_t now) {
    const Cancelled cancelled = [this] { return stopped(); };
    if (catalogue_.needs_rebuild()) SCKPT_TRY(rebuild({}, cancelled));  // nothing is removed before it is known what there is

    Result<> first;
    const auto step = [&](Result<> done) {
        if (!done && first) first = std::move(done);
    };
    const auto own = [&](auto&& body) {  // each step lets a command in between
        const Result<Work> work = begin_work(work_, cancelled);
        step(work ? body() : Result<>(std::unexpected(work.error())));
    };
    rpc::CleanProgress progress;
    own([&] { return put_bad_aside(); });
    own([&] { return remove_kept(retention_rules(config_.retention, {}), now, progress, {}, cancelled); });
    own([&] { return collect(now, progress, {}, cancelled); });
    if (!whole) return first;

    own([&] { return forget_jobs(now); });
    own([&] { return compact(now, cancelled); });
    own([&] { return collect(now, progress, {}, cancelled); });
    if (now - orphans_looked_ >= kDay) {
        const auto found = orphans(Orphans::sweep, now, cancelled);
        step(found ? Result<>() : Result<>(std::unexpected(found.error())));
        if (found) orphans_looked_ = now;
        own([&] { return collect(now, progress, {}, cancelled); });
    }
    if (now - backed_up_ >= config_.retention.backup_interval_seconds) own([&] { return backup(now); });
    return first;
}

Result<StoreKeeper::Work> StoreKeeper::begin_work(std::timed_mutex& mutex, const Cancelled& cancelled) const {
    Work work(mutex, std::defer_lock);
    while (!work.try_lock_for(std::chrono::milliseconds(200)))
        if (stopped() || (cancelled && cancelled())) return fail(Errc::busy, "the collector was at work until the request was given up");
    return work;
}

seconds StoreKeeper::short_silence() const { return seconds(2 * config_.store.timeout_seconds + 60); }

// A node that is lost meanwhile, or does not reach the store, is no failure of the store's: another one is asked.
Result<rpc::StoreReply> StoreKeeper::order(rpc::StoreOrder order, seconds silence, const Cancelled& cancelled) const {
    order.set_store_id(catalogue_.store_id());
    const Cancelled either = [&] { return stopped() || (cancelled && cancelled()); };
    for (int tried = 1;; ++tried) {
        auto reply = store_.run(order, silence, either);
        if (reply || reply.error().code != Errc::unavailable || tried == kNodesTried) return reply;
    }
}

Result<> StoreKeeper::remove_kept(const RetentionRules& rules, std::int64_t now, rpc::CleanProgress& progress,
                                  const Tell<rpc::CleanProgress>& tell, const Cancelled& cancelled) {
    SCKPT_ASSIGN(const std::vector<KeptCheckpoint> kept, catalogue_.kept(now));
    const RetentionPlan plan = plan_retention(kept, rules, now);
    for (const Removal& removal : plan.removals) {
        if (cancelled()) return fail(Errc::busy, "the removal was ended before it was done");
        const auto done = catalogue_.remove_checkpoint(removal.checkpoint, now);
        if (!done && done.error().code != Errc::denied && done.error().code != Errc::not_found) return done;
        if (!done) continue;  // a restore or a drain has begun to need it since
        log_info("checkpoint row {} removed: {}", removal.checkpoint, removal.why);
        progress.set_checkpoints_removed(progress.checkpoints_removed() + 1);
        progress.set_doing(removal.why);
        if (tell) tell(progress);
    }
    return {};
}

std::vector<Catalogue::Garbage> StoreKeeper::removable(const std::vector<Catalogue::Garbage>& garbage, std::int64_t now) const {
    std::vector<Catalogue::Garbage> files;
    for (const Catalogue::Garbage& file : garbage)
        if (files.size() < limits_.files_in_order && !unremoved_.is_put_off(file.path, now)) files.push_back(file);
    return files;
}

// Files go first and their rows afterwards; a file that is gone already is as good as removed. One that stays is put off, with its row.
Result<> StoreKeeper::collect(std::int64_t now, rpc::CleanProgress& progress, const Tell<rpc::CleanProgress>& tell, const Cancelled& cancelled) {
    for (;;) {
        SCKPT_ASSIGN(const std::vector<Catalogue::Garbage> garbage, catalogue_.garbage(limits_.files_in_order + unremoved_.size()));
        const std::vector<Catalogue::Garbage> files = removable(garbage, now);
        if (files.empty()) return {};
        rpc::StoreOrder remove;
        for (const Catalogue::Garbage& file : files) remove.mutable_remove()->add_paths(file.path);
        SCKPT_ASSIGN(const rpc::StoreReply reply, order(remove, short_silence(), cancelled));
        std::set<std::string_view> stay;
        for (const rpc::UnremovedFile& file : reply.unremoved()) {
            stay.insert(file.path());
            unremoved_.failed(file.path(), file.why(), now);
        }
        std::vector<std::string> gone;
        std::uint64_t bytes = 0;
        for (const Catalogue::Garbage& file : files) {
            if (stay.contains(file.path)) continue;
            unremoved_.removed(file.path);
            gone.push_back(file.path);
            bytes += file.bytes;
        }
        note_unremoved();
        SCKPT_TRY(catalogue_.garbage_removed(gone));
        log_debug("removed {} files of the store", gone.size());
        progress.set_files_removed(progress.files_removed() + gone.size());
        progress.set_bytes_freed(progress.bytes_freed() + bytes);
        progress.set_doing(std::format("removing files that nothing refers to, {} so far", progress.files_removed()));
        if (tell) tell(progress);
        if (unremoved_.too_many()) return fail(Errc::io, unremoved_.text());
    }
}

// In the log once for each change.
void StoreKeeper::note_unremoved() {
    const std::string text = unremoved_.text();
    const std::lock_guard lock(mutex_);
    if (text == unremoved_text_) return;
    if (text.empty()) log_info("the files of the store that could not be removed are gone");
    else log_warning("the collector: {}", text);
    unremoved_text_ = text;
}

// What remains of an ended job without checkpoints is its history, for whoever asks what has happened.
Result<> StoreKeeper::forget_jobs(std::int64_t now) {
    SCKPT_ASSIGN(const std::vector<JobRow> jobs, catalogue_.forgettable_jobs(now - std::max(config_.retention.keep_failed_seconds, kDay)));
    for (const JobRow& job : jobs) SCKPT_TRY(catalogue_.forget_job(job.id));
    return {};
}

Result<rpc::ReportReply> StoreKeeper::report(const rpc::RetentionRules& rules, std::int64_t now, const Cancelled& cancelled) {
    SCKPT_ASSIGN(const std::vector<KeptCheckpoint> kept, catalogue_.kept(now));
    const RetentionPlan plan = plan_retention(kept, retention_rules(config_.retention, rules), now);
    rpc::ReportReply reply;
    const auto write = [](const std::string& name, const Usage& usage, rpc::Usage* out) {
        out->set_name(name);
        out->set_checkpoints(usage.checkpoints);
        out->set_bytes(usage.bytes);
    };
    for (const auto& [name, usage] : plan.users) write(name, usage, reply.add_users());
    for (const auto& [name, usage] : plan.accounts) write(name, usage, reply.add_accounts());
    write("", plan.total, reply.mutable_total());
    std::map<RowId, const KeptCheckpoint*> by_id;
    for (const KeptCheckpoint& checkpoint : kept) by_id[checkpoint.row.id] = &checkpoint;
    for (const Removal& removal : plan.removals) {
        const KeptCheckpoint& checkpoint = *by_id.at(removal.checkpoint);
        rpc::Removal& out = *reply.add_removals();
        out.set_job_id(checkpoint.job.job_id);
        out.set_checkpoint(checkpoint.row.number);
        out.set_user(checkpoint.job.user);
        out.set_why(removal.why);
        out.set_bytes(removal.freed);
    }
    for (const std::string& text : plan.over) reply.add_over(text);
    SCKPT_ASSIGN(const std::vector<Catalogue::Garbage> garbage, catalogue_.garbage(INT64_MAX));
    for (const Catalogue::Garbage& file : garbage) reply.set_garbage_bytes(reply.garbage_bytes() + file.bytes);

    // A store that is large or hangs does not keep the report: what it held when it was last listed is told then.
    constexpr seconds kReportWait{20};
    const auto late = [&, end = steady_clock::now() + kReportWait] { return steady_clock::now() >= end || cancelled(); };
    if (const auto listing = scan(false, kReportWait, late); !listing) log_info("report: {}", listing.error().text);
    const std::lock_guard lock(mutex_);
    reply.set_store_total(store_total_);
    reply.set_store_free(store_free_);
    return reply;
}

Result<> StoreKeeper::clean(const rpc::RetentionRules& rules, std::int64_t now, const Tell<rpc::CleanProgress>& tell,
                            const Cancelled& cancelled) {
    SCKPT_ASSIGN(const Work work, begin_work(work_, cancelled));
    if (catalogue_.needs_rebuild()) return fail(Errc::busy, "the catalogue is not rebuilt from the store yet: nothing is removed before");
    rpc::CleanProgress progress;
    SCKPT_TRY(remove_kept(retention_rules(config_.retention, rules), now, progress, tell, cancelled));
    unremoved_.try_all_again();
    SCKPT_TRY(collect(now, progress, tell, cancelled));
    progress.set_doing("rewriting packs with much dead space");
    if (tell) tell(progress);
    SCKPT_TRY(compact(now, cancelled));
    SCKPT_TRY(collect(now, progress, tell, cancelled));
    if (unremoved_.size() != 0) return fail(Errc::io, unremoved_.text());
    progress.set_doing("");
    progress.set_done(true);
    if (tell) tell(progress);
    return {};
}

}  // namespace sckpt
