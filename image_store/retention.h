// SPDX-License-Identifier: GPL-3.0-or-later
//
// Which checkpoints go: a pure function of what there is, the rules and the time. sckptctld's collector and `sckpt-clean report`
// share it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "image_store/catalogue.h"

namespace sckpt {

struct RetentionRules {                   // 0: no such limit; for the keep… ones: nothing is kept but what is never removed
    std::int64_t keep = 2;                // complete checkpoints of a live job
    std::int64_t keep_success_seconds = 0;             // those of a job that has succeeded or was cancelled, after its end
    std::int64_t keep_failed_seconds = 7 * 86400;      // of a job that has failed or was forgotten by Slurm, after its end
    std::int64_t max_age_seconds = 0;     // of a complete checkpoint
    std::uint64_t max_bytes = 0;          // of all images in the store
    std::uint64_t user_bytes = 0, account_bytes = 0;   // quotas, each user's and each account's
};

struct Removal {
    RowId checkpoint = 0;
    std::string why;                      // "job 12 succeeded 2 h ago (retention.keep_success)"
    std::uint64_t freed = 0;              // bytes, as far as can be told before: see KeptCheckpoint
};

struct Usage {
    std::uint64_t checkpoints = 0, bytes = 0;   // complete and bad ones; bytes: what they hold in the store
};

struct RetentionPlan {
    std::vector<Removal> removals;        // in the order in which they are to be done
    std::map<std::string, Usage> users, accounts;      // as of now, before the removals
    Usage total;
    std::vector<std::string> over;        // "user carol: 12.0 GiB of 10.0 GiB even then: the rest is pinned, …"
};

// Never removes what Catalogue::remove_checkpoint would refuse. A live job's failed and bad ones go when a newer one is complete. Limits
// of space take the oldest first, those of ended jobs before those of live ones.
RetentionPlan plan_retention(const std::vector<KeptCheckpoint>& kept, const RetentionRules& rules, std::int64_t now);

}  // namespace sckpt
