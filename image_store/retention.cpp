// SPDX-License-Identifier: GPL-3.0-or-later
//
// Retention in two passes: what time and numbers say goes, whatever space there is; then, where a limit of space is still
// exceeded, the oldest that may go, one after the other. A checkpoint's `freed` is exact as long as the older ones of its job go
// before it; where one of them stays (pinned), less is freed than was reckoned, and the next run, which sees what there is then,
// takes more.
#include "image_store/retention.h"

#include <algorithm>
#include <format>
#include <tuple>
#include <unordered_set>

#include "common/bytes.h"
#include "common/interval.h"

namespace sckpt {
namespace {

// Of a live job: what is said about them stays to be read, but a job whose every attempt fails does not fill the catalogue.
constexpr std::int64_t kFailuresKept = 10;

bool counts(const KeptCheckpoint& kept) { return kept.row.state == CheckpointState::complete && !kept.row.passed; }
bool is_live(const KeptCheckpoint& kept) { return kept.job.outcome == JobOutcome::live; }

// As Catalogue::remove_checkpoint has it.
bool may_go(const KeptCheckpoint& kept) { return !kept.row.pinned && !kept.in_use && !(kept.newest_complete && is_live(kept)); }

std::int64_t time_of(const KeptCheckpoint& kept) { return kept.row.completed != 0 ? kept.row.completed : kept.row.created; }

std::string user_of(const JobRow& job) { return job.user.empty() ? std::format("uid {}", job.uid) : job.user; }
std::string account_of(const JobRow& job) { return job.account.empty() ? "(none)" : job.account; }

const char* outcome_text(JobOutcome outcome) {
    switch (outcome) {
        case JobOutcome::live: return "runs";
        case JobOutcome::succeeded: return "succeeded";
        case JobOutcome::failed: return "failed";
        case JobOutcome::cancelled: return "was cancelled";
        case JobOutcome::unknown: return "is no longer known to Slurm, ended";
    }
    return "ended";
}

class Planner {
   public:
    Planner(const std::vector<KeptCheckpoint>& kept, const RetentionRules& rules, std::int64_t now) : rules_(rules), now_(now) {
        for (const KeptCheckpoint& each : kept) sorted_.push_back(&each);
        std::ranges::sort(sorted_, {}, [](const KeptCheckpoint* each) { return std::tie(each->row.job, each->row.step, each->row.number); });
    }

    RetentionPlan plan() {
        measure();
        left_ = plan_;
        for (auto first = sorted_.begin(); first != sorted_.end();) {
            const auto end = std::find_if(first, sorted_.end(), [&](const auto* each) {
                return each->row.job != (*first)->row.job || each->row.step != (*first)->row.step;
            });
            plan_job({first, end});
            first = end;
        }
        plan_space();
        return std::move(plan_);
    }

   private:
    using Rows = std::vector<const KeptCheckpoint*>;

    void measure();
    void plan_job(const Rows& rows);  // those of the whole job, or of one of its steps: they do not count for each other
    std::string why_by_time(const KeptCheckpoint& kept) const;
    std::string why_by_number(const KeptCheckpoint& kept, std::int64_t complete_after, std::int64_t failed_after) const;
    void plan_space();
    void plan_quotas(const std::string& kind, std::uint64_t limit, const std::map<std::string, Usage>& left,
                     std::string (*owner)(const JobRow&));
    void plan_limit(const std::string& whose, const std::string& key, std::uint64_t limit, const Usage& left,
                    const Rows& candidates);
    void remove(const KeptCheckpoint& kept, std::string why);

    const RetentionRules& rules_;
    const std::int64_t now_;
    Rows sorted_;      // by job, step and number
    Rows candidates_;  // for limits of space: that may go, and no rule of time or number takes
    std::unordered_set<RowId> gone_;
    RetentionPlan plan_;
    RetentionPlan left_;  // its usage: after the removals so far
};

void Planner::measure() {
    for (const KeptCheckpoint* each : sorted_) {
        const std::uint64_t counted = each->row.state == CheckpointState::failed ? 0 : 1;
        for (Usage* usage : {&plan_.total, &plan_.users[user_of(each->job)], &plan_.accounts[account_of(each->job)]}) {
            usage->checkpoints += counted;
            usage->bytes += each->freed;
        }
    }
}

void Planner::remove(const KeptCheckpoint& kept, std::string why) {
    plan_.removals.push_back({.checkpoint = kept.row.id, .why = std::move(why), .freed = kept.freed});
    for (Usage* usage : {&left_.total, &left_.users[user_of(kept.job)], &left_.accounts[account_of(kept.job)]})
        usage->bytes -= kept.freed;
}

// Oldest first, as they are to be removed; so what is newer has to be counted before.
void Planner::plan_job(const Rows& rows) {
    std::int64_t complete = 0, failed = 0;  // of this one and those after it
    for (const KeptCheckpoint* each : rows) {
        complete += counts(*each);
        failed += each->row.state == CheckpointState::failed;
    }
    for (const KeptCheckpoint* each : rows) {
        complete -= counts(*each);
        failed -= each->row.state == CheckpointState::failed;
        if (!may_go(*each)) continue;
        std::string why = each->row.passed ? each->row.reason : why_by_time(*each);
        if (why.empty() && is_live(*each)) why = why_by_number(*each, complete, failed);
        if (why.empty()) candidates_.push_back(each);
        else remove(*each, std::move(why));
    }
}

std::string Planner::why_by_time(const KeptCheckpoint& kept) const {
    const JobRow& job = kept.job;
    if (!is_live(kept)) {
        const bool well = job.outcome == JobOutcome::succeeded || job.outcome == JobOutcome::cancelled;
        const std::int64_t since = now_ - job.ended;
        if (since >= (well ? rules_.keep_success_seconds : rules_.keep_failed_seconds))
            return std::format("job {} {} {} ago (retention.{})", job.job_id, outcome_text(job.outcome),
                               format_seconds(std::max<std::int64_t>(since, 0)), well ? "keep_success" : "keep_failed");
    }
    const std::int64_t age = now_ - time_of(kept);
    if (rules_.max_age_seconds != 0 && age > rules_.max_age_seconds)
        return std::format("it is {} old (retention.max_age)", format_seconds(age));
    return {};
}

std::string Planner::why_by_number(const KeptCheckpoint& kept, std::int64_t complete_after, std::int64_t failed_after) const {
    if (kept.row.state == CheckpointState::complete) {
        if (complete_after < rules_.keep) return {};
        return std::format("job {} has {} newer complete ones (retention.keep)", kept.job.job_id, complete_after);
    }
    const char* const what = kept.row.state == CheckpointState::bad ? "bad" : "failed";
    if (complete_after > 0) return std::format("it is {}, and a newer one of job {} is complete", what, kept.job.job_id);
    if (failed_after >= kFailuresKept) return std::format("{} newer ones of job {} failed too", failed_after, kept.job.job_id);
    return {};
}

void Planner::plan_space() {
    std::ranges::sort(candidates_, {}, [](const KeptCheckpoint* each) {
        return std::tuple(is_live(*each), time_of(*each), each->row.job, each->row.number);
    });
    if (rules_.user_bytes != 0) plan_quotas("user", rules_.user_bytes, left_.users, user_of);
    if (rules_.account_bytes != 0) plan_quotas("account", rules_.account_bytes, left_.accounts, account_of);
    if (rules_.max_bytes != 0) plan_limit("the store", "max_size", rules_.max_bytes, left_.total, candidates_);
}

void Planner::plan_quotas(const std::string& kind, std::uint64_t limit, const std::map<std::string, Usage>& left,
                          std::string (*owner)(const JobRow&)) {
    std::map<std::string, Rows> candidates;
    for (const KeptCheckpoint* each : candidates_) candidates[owner(each->job)].push_back(each);
    for (const auto& [name, usage] : left) plan_limit(kind + " " + name, kind + "_quota", limit, usage, candidates[name]);
}

// `left` falls with each removal.
void Planner::plan_limit(const std::string& whose, const std::string& key, std::uint64_t limit, const Usage& left,
                         const Rows& candidates) {
    for (const KeptCheckpoint* each : candidates) {
        if (left.bytes <= limit) return;
        if (each->freed == 0 || !gone_.insert(each->row.id).second) continue;
        remove(*each, std::format("{} has {} of {} (retention.{})", whose, format_bytes(left.bytes), format_bytes(limit), key));
    }
    if (left.bytes > limit)
        plan_.over.push_back(std::format("{}: {} of {} even then: the rest is pinned, in use, or the newest of live jobs", whose,
                                         format_bytes(left.bytes), format_bytes(limit)));
}

}  // namespace

RetentionPlan plan_retention(const std::vector<KeptCheckpoint>& kept, const RetentionRules& rules, std::int64_t now) {
    return Planner(kept, rules, now).plan();
}

}  // namespace sckpt
