// SPDX-License-Identifier: GPL-3.0-or-later
//
// Every SQL text of the catalogue: the schema as a list of migrations, and the statements.
// The numbers of the states are those of CheckpointState. Times are Unix seconds. Sizes are bytes.
#pragma once

namespace sckpt::sql {

// What takes the schema from version i to i + 1. A released entry never changes; a new version is a new entry.
// AUTOINCREMENT: nodes name checkpoints by row id, so the id of a removed row must not come back.
inline constexpr const char* kMigrations[] = {R"sql(
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL CHECK (job_id > 0),
    uid INTEGER NOT NULL CHECK (uid >= 0),
    submit_time INTEGER NOT NULL,
    interval_seconds INTEGER NOT NULL CHECK (interval_seconds >= 0),
    max_restarts INTEGER NOT NULL CHECK (max_restarts >= 0),
    restarts INTEGER NOT NULL CHECK (restarts >= 0),
    slurm_restart_count INTEGER NOT NULL CHECK (slurm_restart_count >= 0),
    ended INTEGER NOT NULL CHECK (ended IN (0, 1)),
    held_reason TEXT NOT NULL,
    last_error TEXT NOT NULL,
    next_number INTEGER NOT NULL DEFAULT 1 CHECK (next_number > 0)
) STRICT;
CREATE INDEX jobs_by_job_id ON jobs (job_id, id);

CREATE TABLE checkpoints (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL REFERENCES jobs (id),
    number INTEGER NOT NULL CHECK (number > 0),
    state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 6),
    created INTEGER NOT NULL,
    completed INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    frozen_ms INTEGER NOT NULL DEFAULT 0 CHECK (frozen_ms >= 0),
    reason TEXT NOT NULL DEFAULT '',
    UNIQUE (job, number)
) STRICT;
CREATE INDEX checkpoints_complete ON checkpoints (job, number) WHERE state = 3;
CREATE INDEX checkpoints_by_state ON checkpoints (state);

CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    checkpoint INTEGER NOT NULL REFERENCES checkpoints (id) ON DELETE CASCADE,
    task TEXT NOT NULL CHECK (task <> ''),
    node TEXT NOT NULL,
    path TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    UNIQUE (checkpoint, task)
) STRICT;
CREATE UNIQUE INDEX images_by_path ON images (path);

CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    inode INTEGER NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0),
    append INTEGER NOT NULL CHECK (append IN (0, 1)),
    stdio INTEGER NOT NULL CHECK (stdio IN (0, 1))
) STRICT;
CREATE INDEX files_by_image ON files (image);

CREATE TABLE restarts (
    id INTEGER PRIMARY KEY,
    job INTEGER NOT NULL REFERENCES jobs (id),
    time INTEGER NOT NULL,
    slurm_restart_count INTEGER NOT NULL CHECK (slurm_restart_count >= 0),
    checkpoint INTEGER NOT NULL CHECK (checkpoint >= 0),
    node TEXT NOT NULL,
    outcome TEXT NOT NULL,
    restore_ms INTEGER NOT NULL CHECK (restore_ms >= 0)
) STRICT;
CREATE INDEX restarts_by_job ON restarts (job);

CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL REFERENCES jobs (id),
    time INTEGER NOT NULL,
    text TEXT NOT NULL
) STRICT;
CREATE INDEX events_by_job ON events (job, id);
)sql"};

// jobs
inline constexpr const char* kAddJob =
    "INSERT INTO jobs (job_id, uid, submit_time, interval_seconds, max_restarts, restarts, slurm_restart_count, ended, "
    "held_reason, last_error) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
#define SCKPT_JOB_COLUMNS \
    "SELECT id, job_id, uid, submit_time, interval_seconds, max_restarts, restarts, slurm_restart_count, ended, held_reason, " \
    "last_error FROM jobs "
inline constexpr const char* kNewestJob = SCKPT_JOB_COLUMNS "WHERE job_id = ?1 ORDER BY id DESC LIMIT 1";
inline constexpr const char* kJobs = SCKPT_JOB_COLUMNS "WHERE ended = 0 OR ?1 ORDER BY id DESC";
#undef SCKPT_JOB_COLUMNS
inline constexpr const char* kSetJobRun = "UPDATE jobs SET slurm_restart_count = ?2, submit_time = ?3 WHERE id = ?1";
inline constexpr const char* kSetJobEnded = "UPDATE jobs SET ended = ?2 WHERE id = ?1";
inline constexpr const char* kSetJobHeld = "UPDATE jobs SET held_reason = ?2 WHERE id = ?1";
inline constexpr const char* kSetJobError = "UPDATE jobs SET last_error = ?2 WHERE id = ?1";
inline constexpr const char* kCountRestart = "UPDATE jobs SET restarts = restarts + 1 WHERE id = ?1 RETURNING restarts";
inline constexpr const char* kTakeNumber =
    "UPDATE jobs SET next_number = next_number + 1 WHERE id = ?1 RETURNING next_number - 1";
inline constexpr const char* kJobEnded = "SELECT ended FROM jobs WHERE id = ?1";

// checkpoints
inline constexpr const char* kAddCheckpoint =
    "INSERT INTO checkpoints (job, number, state, created) VALUES (?1, ?2, ?3, ?4)";
#define SCKPT_CHECKPOINT_COLUMNS \
    "SELECT id, job, number, state, created, completed, bytes, frozen_ms, reason FROM checkpoints "
inline constexpr const char* kCheckpoint = SCKPT_CHECKPOINT_COLUMNS "WHERE id = ?1";
inline constexpr const char* kCheckpoints = SCKPT_CHECKPOINT_COLUMNS "WHERE job = ?1 ORDER BY number";
inline constexpr const char* kCheckpointsIn = SCKPT_CHECKPOINT_COLUMNS "WHERE state = ?1 ORDER BY id";
inline constexpr const char* kNewestComplete =
    SCKPT_CHECKPOINT_COLUMNS "WHERE job = ?1 AND state = 3 AND (?2 = 0 OR number < ?2) ORDER BY number DESC LIMIT 1";
#undef SCKPT_CHECKPOINT_COLUMNS
inline constexpr const char* kSetState = "UPDATE checkpoints SET state = ?2 WHERE id = ?1";
inline constexpr const char* kSetReason = "UPDATE checkpoints SET reason = ?2 WHERE id = ?1";
inline constexpr const char* kSetCaptured = "UPDATE checkpoints SET bytes = ?2, frozen_ms = ?3 WHERE id = ?1";
inline constexpr const char* kSetComplete = "UPDATE checkpoints SET bytes = ?2, completed = ?3 WHERE id = ?1";
inline constexpr const char* kRemoveCheckpoint = "DELETE FROM checkpoints WHERE id = ?1";

// images and files
inline constexpr const char* kAddImage =
    "INSERT INTO images (checkpoint, task, node, path, digest, bytes) VALUES (?1, ?2, ?3, ?4, '', 0) RETURNING id";
inline constexpr const char* kSetImageBytes = "UPDATE images SET bytes = ?2 WHERE checkpoint = ?1 RETURNING id";
inline constexpr const char* kSetImageStored = "UPDATE images SET digest = ?2, bytes = ?3 WHERE checkpoint = ?1";
inline constexpr const char* kImage = "SELECT id, task, node, path, digest, bytes FROM images WHERE checkpoint = ?1";
inline constexpr const char* kAddFile =
    "INSERT INTO files (image, path, inode, size, append, stdio) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
inline constexpr const char* kRemoveFiles = "DELETE FROM files WHERE image = ?1";
inline constexpr const char* kFiles = "SELECT path, inode, size, append, stdio FROM files WHERE image = ?1 ORDER BY id";

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
