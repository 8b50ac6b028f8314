// SPDX-License-Identifier: GPL-3.0-or-later
//
// The statements of the catalogue; catalogue_schema.h tells what the tables and numbers mean.
#pragma once

namespace sckpt::sql {

// the whole
inline constexpr const char* kNeedsRebuild = "SELECT value FROM meta WHERE name = 'needs_rebuild'";
inline constexpr const char* kSetNeedsRebuild = "UPDATE meta SET value = ?1 WHERE name = 'needs_rebuild'";
inline constexpr const char* kForgetUnfinished = "DELETE FROM checkpoints WHERE state IN (1, 2)";
inline constexpr const char* kMakeSequence =
    "INSERT INTO sqlite_sequence (name, seq) SELECT ?1, 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = ?1)";
inline constexpr const char* kRaiseSequence = "UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1";
inline constexpr const char* kSetFirstNumber = "UPDATE meta SET value = ?1 WHERE name = 'first_number'";
inline constexpr const char* kGaveNumber =
    "SELECT EXISTS (SELECT 1 FROM meta, sqlite_sequence s WHERE meta.name = 'first_number' AND s.name = 'checkpoints' "
    "AND ?1 > meta.value AND ?1 <= s.seq)";

inline constexpr const char* kStore = "SELECT value FROM texts WHERE name = 'store'";
inline constexpr const char* kSetStore = "UPDATE texts SET value = ?1 WHERE name = 'store' AND value IN ('', ?1)";

// The columns of a job and of a checkpoint, in the order in which catalogue.cpp reads them.
#define SCKPT_JOB \
    "j.id, j.job_id, j.uid, j.user, j.account, j.submit_time, j.interval_seconds, j.max_restarts, j.restarts, " \
    "j.slurm_restart_count, j.outcome, j.ended"
#define SCKPT_SELECT_JOB "SELECT " SCKPT_JOB ", j.held_reason, j.last_error FROM jobs j "
#define SCKPT_CHECKPOINT \
    "c.id, c.job, c.number, c.state, c.created, c.completed, c.bytes, c.new_bytes, c.frozen_ms, c.urgent, c.pinned, c.base, " \
    "c.reason, c.step, c.images, c.passed"
#define SCKPT_SELECT_CHECKPOINT "SELECT " SCKPT_CHECKPOINT " FROM checkpoints c "

// jobs
inline constexpr const char* kAddJob =
    "INSERT INTO jobs (job_id, uid, user, account, submit_time, interval_seconds, max_restarts, restarts, slurm_restart_count, "
    "outcome, ended, held_reason, last_error) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
inline constexpr const char* kJob = SCKPT_SELECT_JOB "WHERE j.id = ?1";
inline constexpr const char* kNewestJob = SCKPT_SELECT_JOB "WHERE j.job_id = ?1 ORDER BY j.id DESC LIMIT 1";
inline constexpr const char* kLiveJobs = SCKPT_SELECT_JOB "WHERE j.outcome = 0 ORDER BY j.id DESC";
inline constexpr const char* kAllJobs = SCKPT_SELECT_JOB "ORDER BY j.id DESC";
inline constexpr const char* kForgettableJobs =
    SCKPT_SELECT_JOB
    "WHERE j.outcome <> 0 AND j.ended < ?1 AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE job = j.id) ORDER BY j.id";
inline constexpr const char* kForgetJob =
    "DELETE FROM jobs WHERE id = ?1 AND outcome <> 0 AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE job = jobs.id)";
inline constexpr const char* kJobEnded = "SELECT outcome FROM jobs WHERE id = ?1";
inline constexpr const char* kSetJobRun = "UPDATE jobs SET slurm_restart_count = ?2, submit_time = ?3 WHERE id = ?1";
inline constexpr const char* kSetJobEnded =  // the time of the end is that of the first call
    "UPDATE jobs SET outcome = ?2, ended = iif(?2 = 0, 0, iif(outcome = 0, ?3, ended)) WHERE id = ?1";
inline constexpr const char* kSetJobHeld = "UPDATE jobs SET held_reason = ?2 WHERE id = ?1";
inline constexpr const char* kSetJobError = "UPDATE jobs SET last_error = ?2 WHERE id = ?1";
inline constexpr const char* kCountRestart = "UPDATE jobs SET restarts = restarts + 1 WHERE id = ?1 RETURNING restarts";
inline constexpr const char* kTakeNumber =
    "UPDATE jobs SET next_number = next_number + 1 WHERE id = ?1 RETURNING next_number - 1";

// checkpoints
inline constexpr const char* kAddCheckpoint =
    "INSERT INTO checkpoints (job, number, state, created, urgent, base, step) "
    "VALUES (?1, ?2, 1, ?3, ?4, nullif(?5, 0), nullif(?6, ''))";
inline constexpr const char* kCheckpoint = SCKPT_SELECT_CHECKPOINT "WHERE c.id = ?1";
inline constexpr const char* kCheckpointByNumber = SCKPT_SELECT_CHECKPOINT "WHERE c.job = ?1 AND c.number = ?2";
inline constexpr const char* kCheckpoints = SCKPT_SELECT_CHECKPOINT "WHERE c.job = ?1 ORDER BY c.number";
inline constexpr const char* kCheckpointsIn = SCKPT_SELECT_CHECKPOINT "WHERE c.state = ?1 ORDER BY c.id";
inline constexpr const char* kNewestComplete = SCKPT_SELECT_CHECKPOINT
    "WHERE c.job = ?1 AND c.step IS NULL AND c.state = 3 AND c.passed = 0 AND c.number < ?2 ORDER BY c.number DESC LIMIT 1";
inline constexpr const char* kNewestCompleteStep =
    SCKPT_SELECT_CHECKPOINT "WHERE c.job = ?1 AND c.step = ?2 AND c.state = 3 AND c.passed = 0 ORDER BY c.number DESC LIMIT 1";
inline constexpr const char* kNewestCompleteNumber =
    "SELECT max(number) FROM checkpoints WHERE job = ?1 AND step IS nullif(?2, '') AND state = 3 AND passed = 0";
inline constexpr const char* kBase =  // of one of the step ?2, or the job's
    "SELECT c.id FROM checkpoints c WHERE c.job = ?1 AND (c.step IS NULL OR c.step = ?2) AND c.state = 3 AND c.passed = 0 AND NOT EXISTS "
    "(SELECT 1 FROM packs p CROSS JOIN pack_refs r ON r.pack = p.id CROSS JOIN images i ON i.id = r.image "
    "WHERE p.job = ?1 AND p.suspect = 1 AND i.checkpoint = c.id) "
    "ORDER BY c.number DESC LIMIT 1";
inline constexpr const char* kIsBase = "SELECT EXISTS (SELECT 1 FROM checkpoints WHERE base = ?1)";
inline constexpr const char* kLease = "SELECT lease FROM checkpoints WHERE id = ?1";
inline constexpr const char* kSetState = "UPDATE checkpoints SET state = ?2, base = iif(?2 IN (1, 2), base, NULL) WHERE id = ?1";
inline constexpr const char* kSetReason = "UPDATE checkpoints SET reason = ?2 WHERE id = ?1";
inline constexpr const char* kSetCaptured = "UPDATE checkpoints SET images = ?2, bytes = ?3 WHERE id = ?1";
inline constexpr const char* kSetStored =
    "UPDATE checkpoints SET bytes = ?2, new_bytes = ?3, frozen_ms = ?4, completed = ?5 WHERE id = ?1";
inline constexpr const char* kSetLease = "UPDATE checkpoints SET lease = ?2 WHERE id = ?1";
inline constexpr const char* kSetPinned = "UPDATE checkpoints SET pinned = ?2 WHERE id = ?1";
inline constexpr const char* kSetPassed = "UPDATE checkpoints SET passed = 1, reason = ?2 WHERE id = ?1";
inline constexpr const char* kPinnedBytes =  // of the user whose checkpoint it is: each pack once, and the manifests
    "WITH pinned AS (SELECT i.id AS image, i.manifest_bytes AS bytes FROM checkpoints c JOIN jobs j ON j.id = c.job "
    "JOIN images i ON i.checkpoint = c.id WHERE c.pinned = 1 AND j.uid = "
    "(SELECT j.uid FROM jobs j JOIN checkpoints c ON c.job = j.id WHERE c.id = ?1)) "
    "SELECT (SELECT total(bytes) FROM pinned) + (SELECT total(p.bytes) FROM packs p WHERE p.id IN "
    "(SELECT r.pack FROM pinned JOIN pack_refs r ON r.image = pinned.image))";
inline constexpr const char* kSetUrgent = "UPDATE checkpoints SET urgent = 1 WHERE id = ?1";
inline constexpr const char* kRemoveCheckpoint = "DELETE FROM checkpoints WHERE id = ?1";
inline constexpr const char* kSuspectPacks =
    "UPDATE packs SET suspect = 1 WHERE id IN "
    "(SELECT r.pack FROM images i JOIN pack_refs r ON r.image = i.id WHERE i.checkpoint = ?1 AND ?2 IN ('', i.digest))";

// images and files
inline constexpr const char* kAddImage =
    "INSERT INTO images (checkpoint, task, node, fast_node, bytes) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING id";
#define SCKPT_SELECT_IMAGE "SELECT id, task, node, fast_node, manifest, digest, bytes FROM images "
inline constexpr const char* kImage = SCKPT_SELECT_IMAGE "WHERE checkpoint = ?1 AND task = ?2";
inline constexpr const char* kImages = SCKPT_SELECT_IMAGE "WHERE checkpoint = ?1 ORDER BY task";
#undef SCKPT_SELECT_IMAGE
inline constexpr const char* kImageOfTask = "SELECT id FROM images WHERE checkpoint = ?1 AND task = ?2";
inline constexpr const char* kHasDigest = "SELECT 1 FROM images WHERE checkpoint = ?1 AND digest = ?2 LIMIT 1";
inline constexpr const char* kImageOfDigest = "SELECT id FROM images WHERE checkpoint = ?1 AND task = ?2 AND digest = ?3";
inline constexpr const char* kSetImageStored =
    "UPDATE images SET manifest = ?2, digest = ?3, bytes = ?4, manifest_bytes = ?5 WHERE id = ?1";
inline constexpr const char* kSetFastNode = "UPDATE images SET fast_node = node WHERE node = ?2 AND checkpoint = ?1";
inline constexpr const char* kEvicted = "UPDATE images SET fast_node = '' WHERE node = ?2 AND checkpoint = ?1";
inline constexpr const char* kForgetFastNode = "UPDATE images SET fast_node = '' WHERE node = ?1 AND fast_node <> ''";
inline constexpr const char* kForgetFastImages = "UPDATE images SET fast_node = '' WHERE checkpoint = ?1";
inline constexpr const char* kAddFile =
    "INSERT INTO files (image, path, inode, size, append, stdio) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
inline constexpr const char* kFiles = "SELECT path, inode, size, append, stdio FROM files WHERE image = ?1 ORDER BY id";
inline constexpr const char* kAddEnded = "INSERT INTO ended_tasks (checkpoint, task, wait_status) VALUES (?1, ?2, ?3)";
inline constexpr const char* kEndedTasks = "SELECT task, wait_status FROM ended_tasks WHERE checkpoint = ?1 ORDER BY task";
inline constexpr const char* kEndedTask = "SELECT wait_status FROM ended_tasks WHERE checkpoint = ?1 AND task = ?2";

// packs and garbage
inline constexpr const char* kPackByPath = "SELECT id FROM packs WHERE path = ?1";
inline constexpr const char* kPacksOfJob = "SELECT id FROM packs WHERE job = ?1";
inline constexpr const char* kPacksOfImage =
    "SELECT r.pack FROM images i JOIN pack_refs r ON r.image = i.id WHERE i.checkpoint = ?1 AND i.task = ?2";
inline constexpr const char* kRefersToSuspect =
    "SELECT EXISTS (SELECT 1 FROM pack_refs r JOIN packs p ON p.id = r.pack WHERE r.image = ?1 AND p.suspect)";
inline constexpr const char* kAddPack = "INSERT INTO packs (job, path, bytes) VALUES (?1, ?2, ?3) RETURNING id";
inline constexpr const char* kAddRef = "INSERT INTO pack_refs (image, pack, used) VALUES (?1, ?2, ?3)";
inline constexpr const char* kRemoveRefs = "DELETE FROM pack_refs WHERE image = ?1";
inline constexpr const char* kManifests =
    "SELECT manifest, manifest_bytes FROM images WHERE checkpoint = ?1 AND manifest IS NOT NULL";
inline constexpr const char* kManifest = "SELECT manifest, manifest_bytes FROM images WHERE id = ?1";
inline constexpr const char* kRemoveUnusedPacks =
    "DELETE FROM packs WHERE job = ?1 AND NOT EXISTS (SELECT 1 FROM pack_refs WHERE pack = packs.id) RETURNING path, bytes";
inline constexpr const char* kAddGarbage =
    "INSERT INTO garbage (path, bytes, turn) VALUES (?1, ?2, ?3) ON CONFLICT (path) DO NOTHING";
inline constexpr const char* kGarbage = "SELECT path, bytes FROM garbage ORDER BY turn, path LIMIT ?1";
inline constexpr const char* kRemoveGarbage = "DELETE FROM garbage WHERE path = ?1";
inline constexpr const char* kPacks =
    "SELECT p.path, p.bytes, max(r.used), count(*), min(i.task) FROM packs p CROSS JOIN pack_refs r ON r.pack = p.id "
    "CROSS JOIN images i ON i.id = r.image WHERE p.job = ?1 GROUP BY p.id ORDER BY p.path";
inline constexpr const char* kIsNamed =
    "SELECT EXISTS (SELECT 1 FROM images WHERE manifest = ?1) OR EXISTS (SELECT 1 FROM packs WHERE path = ?1)";
inline constexpr const char* kIsGarbage = "SELECT EXISTS (SELECT 1 FROM garbage WHERE path = ?1)";

// Looking through everything. It is done in portions, in the order in which rows lie, so that nobody else waits long: rows after
// ?1, up to ?2.
inline constexpr const char* kCheckpointPortion =
    "SELECT max(id) FROM (SELECT id FROM checkpoints WHERE id > ?1 ORDER BY id LIMIT 1000)";
inline constexpr const char* kPackPortion = "SELECT max(id) FROM (SELECT id FROM packs WHERE id > ?1 ORDER BY id LIMIT 1000)";
inline constexpr const char* kImagePortion = "SELECT max(id) FROM (SELECT id FROM images WHERE id > ?1 ORDER BY id LIMIT 1000)";
inline constexpr const char* kKept =
    "SELECT " SCKPT_CHECKPOINT ", " SCKPT_JOB ", c.lease > ?3 OR EXISTS (SELECT 1 FROM checkpoints d WHERE d.base = c.id) "
    "FROM checkpoints c CROSS JOIN jobs j ON j.id = c.job WHERE c.id > ?1 AND c.id <= ?2 AND +c.state IN (3, 4, 5) ORDER BY c.id";
inline constexpr const char* kManifestBytes = "SELECT checkpoint, manifest_bytes FROM images WHERE id > ?1 AND id <= ?2";
// Each pack, with the newest checkpoint that refers to it.
inline constexpr const char* kHeldBytes =
    "SELECT max(i.checkpoint), p.bytes FROM packs p CROSS JOIN pack_refs r ON r.pack = p.id "
    "CROSS JOIN images i ON i.id = r.image WHERE p.id > ?1 AND p.id <= ?2 GROUP BY p.id";
inline constexpr const char* kDeadSpace =
    "SELECT job FROM (SELECT p.job AS job, p.bytes AS bytes, p.bytes - max(r.used) AS dead FROM packs p "
    "CROSS JOIN pack_refs r ON r.pack = p.id WHERE p.id > ?1 AND p.id <= ?2 AND NOT p.suspect GROUP BY p.id) "
    "WHERE dead >= ?3 * bytes AND dead >= ?4";
inline constexpr const char* kNamedManifests = "SELECT manifest FROM images WHERE id > ?1 AND id <= ?2 AND manifest IS NOT NULL";
inline constexpr const char* kNamedPacks = "SELECT path FROM packs WHERE id > ?1 AND id <= ?2";
#undef SCKPT_JOB
#undef SCKPT_SELECT_JOB
#undef SCKPT_CHECKPOINT
#undef SCKPT_SELECT_CHECKPOINT

// import
inline constexpr const char* kImportJob =
    "INSERT INTO jobs (id, job_id, uid, user, account, submit_time, interval_seconds, max_restarts, restarts, "
    "slurm_restart_count, outcome, ended, held_reason, last_error) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, 0, 0, '', '') ON CONFLICT (id) DO NOTHING";
inline constexpr const char* kImportRun =
    "UPDATE jobs SET submit_time = max(submit_time, ?2), slurm_restart_count = max(slurm_restart_count, ?3), "
    "next_number = max(next_number, ?4 + 1) WHERE id = ?1";
inline constexpr const char* kImportCheckpoint =
    "INSERT INTO checkpoints (id, job, number, state, created, step, images) VALUES (?1, ?2, ?3, 2, ?4, nullif(?5, ''), ?6)";

inline constexpr const char* kForgetUnreadable = "DELETE FROM unreadable";
inline constexpr const char* kAddUnreadable = "INSERT INTO unreadable (path, job_id, why) VALUES (?1, ?2, ?3)";
inline constexpr const char* kUnreadableOf = "SELECT path, why FROM unreadable WHERE job_id = ?1 ORDER BY path LIMIT 1";

// restarts and events
inline constexpr const char* kAddRestart =
    "INSERT INTO restarts (job, time, slurm_restart_count, checkpoint, node, outcome, restore_ms) "
    "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
inline constexpr const char* kRestarts =
    "SELECT time, slurm_restart_count, checkpoint, node, outcome, restore_ms FROM restarts WHERE job = ?1 ORDER BY id";
inline constexpr const char* kAddEvent = "INSERT INTO events (job, time, text) VALUES (?1, ?2, ?3)";
inline constexpr const char* kTrimEvents =
    "DELETE FROM events WHERE job = ?1 AND id <= (SELECT id FROM events WHERE job = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)";
inline constexpr const char* kEvents = "SELECT time, text FROM events WHERE job = ?1 ORDER BY id";

}  // namespace sckpt::sql
