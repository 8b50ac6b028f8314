// SPDX-License-Identifier: GPL-3.0-or-later
//
// The schema of the catalogue as a list of migrations.
// The numbers of the states are those of CheckpointState: 1 preparing, 2 captured, 3 complete, 4 failed, 5 bad (6, in version 1:
// deleting); those of outcomes are JobOutcome's. Times are Unix seconds. Sizes are bytes. The triggers are a second line of
// defence behind what catalogue*.cpp refuses.
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
)sql",
                                                  R"sql(
DROP INDEX jobs_by_job_id;
DROP INDEX checkpoints_complete;
DROP INDEX checkpoints_by_state;
DROP INDEX images_by_path;
DROP INDEX files_by_image;
DROP INDEX restarts_by_job;
DROP INDEX events_by_job;
ALTER TABLE jobs RENAME TO old_jobs;
ALTER TABLE checkpoints RENAME TO old_checkpoints;
ALTER TABLE images RENAME TO old_images;
ALTER TABLE files RENAME TO old_files;
ALTER TABLE restarts RENAME TO old_restarts;
ALTER TABLE events RENAME TO old_events;

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('needs_rebuild', 0), ('first_number', 0);

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id INTEGER NOT NULL CHECK (job_id > 0),
    uid INTEGER NOT NULL CHECK (uid >= 0),
    user TEXT NOT NULL,
    account TEXT NOT NULL,
    submit_time INTEGER NOT NULL,
    interval_seconds INTEGER NOT NULL CHECK (interval_seconds >= 0),
    max_restarts INTEGER NOT NULL CHECK (max_restarts >= 0),
    restarts INTEGER NOT NULL CHECK (restarts >= 0),
    slurm_restart_count INTEGER NOT NULL CHECK (slurm_restart_count >= 0),
    outcome INTEGER NOT NULL CHECK (outcome BETWEEN 0 AND 4),
    ended INTEGER NOT NULL CHECK (ended >= 0),
    held_reason TEXT NOT NULL,
    last_error TEXT NOT NULL,
    next_number INTEGER NOT NULL DEFAULT 1 CHECK (next_number > 0),
    CHECK ((outcome = 0) = (ended = 0))
) STRICT;
INSERT INTO jobs
    SELECT id, job_id, uid, '', '', submit_time, interval_seconds, max_restarts, restarts, slurm_restart_count,
           iif(ended, 4, 0), iif(ended, CAST(strftime('%s', 'now') AS INTEGER), 0), held_reason, last_error, next_number
    FROM old_jobs;

-- base: the checkpoint whose packs the drain of this one may refer to. The reference keeps it from being deleted.
-- lease: a restore reads it until then.
CREATE TABLE checkpoints (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL REFERENCES jobs (id),
    number INTEGER NOT NULL CHECK (number > 0),
    state INTEGER NOT NULL CHECK (state BETWEEN 1 AND 5),
    created INTEGER NOT NULL,
    completed INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    new_bytes INTEGER NOT NULL DEFAULT 0 CHECK (new_bytes >= 0),
    frozen_ms INTEGER NOT NULL DEFAULT 0 CHECK (frozen_ms >= 0),
    urgent INTEGER NOT NULL DEFAULT 0 CHECK (urgent IN (0, 1)),
    pinned INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1)),
    base INTEGER REFERENCES checkpoints (id) CHECK (base IS NULL OR (base < id AND state IN (1, 2))),
    lease INTEGER NOT NULL DEFAULT 0 CHECK (lease >= 0),
    reason TEXT NOT NULL DEFAULT '',
    UNIQUE (job, number)
) STRICT;
INSERT INTO checkpoints (id, job, number, state, created, completed, bytes, frozen_ms, reason)
    SELECT id, job, number, iif(state = 3, 5, state), created, completed, bytes, frozen_ms,
           iif(state = 3, 'made by an earlier version of sckpt whose store format is no longer read', reason)
    FROM old_checkpoints WHERE state <> 6;

-- manifest: NULL until it is stored.
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    checkpoint INTEGER NOT NULL REFERENCES checkpoints (id) ON DELETE CASCADE,
    task TEXT NOT NULL CHECK (task <> ''),
    node TEXT NOT NULL,
    fast_node TEXT NOT NULL DEFAULT '',
    manifest TEXT UNIQUE CHECK (manifest <> ''),
    manifest_bytes INTEGER NOT NULL DEFAULT 0 CHECK (manifest_bytes >= 0),
    digest TEXT NOT NULL DEFAULT '',
    bytes INTEGER NOT NULL DEFAULT 0 CHECK (bytes >= 0),
    UNIQUE (checkpoint, task),
    CHECK ((manifest IS NULL) = (digest = ''))
) STRICT;
INSERT INTO images (id, checkpoint, task, node, bytes)
    SELECT id, checkpoint, task, node, bytes FROM old_images WHERE checkpoint IN (SELECT id FROM checkpoints);

CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    inode INTEGER NOT NULL,
    size INTEGER NOT NULL CHECK (size >= 0),
    append INTEGER NOT NULL CHECK (append IN (0, 1)),
    stdio INTEGER NOT NULL CHECK (stdio IN (0, 1))
) STRICT;
INSERT INTO files SELECT * FROM old_files WHERE image IN (SELECT id FROM images);

-- suspect: an image that refers to it was found bad. No new image may refer to it.
CREATE TABLE packs (
    id INTEGER PRIMARY KEY,
    job INTEGER NOT NULL REFERENCES jobs (id),
    path TEXT NOT NULL UNIQUE CHECK (path <> ''),
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    suspect INTEGER NOT NULL DEFAULT 0 CHECK (suspect IN (0, 1))
) STRICT;
CREATE TABLE pack_refs (
    image INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    pack INTEGER NOT NULL REFERENCES packs (id),
    used INTEGER NOT NULL CHECK (used >= 0),
    PRIMARY KEY (image, pack)
) STRICT, WITHOUT ROWID;

-- Files that no row names any more. turn: 0 manifests, 1 packs; a manifest goes before the packs that it refers to.
CREATE TABLE garbage (
    path TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL CHECK (bytes >= 0),
    turn INTEGER NOT NULL CHECK (turn IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE TABLE restarts (
    id INTEGER PRIMARY KEY,
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    time INTEGER NOT NULL,
    slurm_restart_count INTEGER NOT NULL CHECK (slurm_restart_count >= 0),
    checkpoint INTEGER NOT NULL CHECK (checkpoint >= 0),
    node TEXT NOT NULL,
    outcome TEXT NOT NULL,
    restore_ms INTEGER NOT NULL CHECK (restore_ms >= 0)
) STRICT;
INSERT INTO restarts SELECT * FROM old_restarts;
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    time INTEGER NOT NULL,
    text TEXT NOT NULL
) STRICT;
INSERT INTO events SELECT * FROM old_events;

-- Children first: nothing refers to a table that is dropped. Numbers of removed rows are not given again.
DELETE FROM sqlite_sequence WHERE name IN ('jobs', 'checkpoints', 'events');
INSERT INTO sqlite_sequence (name, seq) SELECT substr(name, 5), seq FROM sqlite_sequence WHERE name GLOB 'old_*';
DROP TABLE old_files;
DROP TABLE old_images;
DROP TABLE old_checkpoints;
DROP TABLE old_restarts;
DROP TABLE old_events;
DROP TABLE old_jobs;

CREATE INDEX jobs_by_job_id ON jobs (job_id, id);
CREATE INDEX jobs_live ON jobs (id) WHERE outcome = 0;
CREATE INDEX checkpoints_complete ON checkpoints (job, number) WHERE state = 3;
CREATE INDEX checkpoints_by_state ON checkpoints (state);
CREATE INDEX checkpoints_by_base ON checkpoints (base) WHERE base IS NOT NULL;
CREATE INDEX images_by_fast_node ON images (fast_node) WHERE fast_node <> '';
CREATE INDEX files_by_image ON files (image);
CREATE INDEX packs_by_job ON packs (job);
CREATE INDEX pack_refs_by_pack ON pack_refs (pack);
CREATE INDEX garbage_in_turn ON garbage (turn, path);
CREATE INDEX restarts_by_job ON restarts (job);
CREATE INDEX events_by_job ON events (job, id);

CREATE TRIGGER numbers_grow BEFORE UPDATE OF next_number ON jobs WHEN NEW.next_number < OLD.next_number
BEGIN SELECT RAISE(ABORT, 'the numbers of checkpoints only grow'); END;
CREATE TRIGGER complete_from_captured BEFORE UPDATE OF state ON checkpoints WHEN NEW.state = 3 AND OLD.state <> 2
BEGIN SELECT RAISE(ABORT, 'only a captured checkpoint becomes complete'); END;
CREATE TRIGGER complete_is_stored BEFORE UPDATE OF state ON checkpoints
    WHEN NEW.state = 3 AND EXISTS (SELECT 1 FROM images WHERE checkpoint = NEW.id AND manifest IS NULL)
BEGIN SELECT RAISE(ABORT, 'an image of the checkpoint is not stored'); END;
CREATE TRIGGER newest_complete_stays BEFORE DELETE ON checkpoints
    WHEN OLD.state = 3 AND (SELECT outcome FROM jobs WHERE id = OLD.job) = 0
     AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE job = OLD.job AND state = 3 AND number > OLD.number)
BEGIN SELECT RAISE(ABORT, 'the newest complete checkpoint of a live job is kept'); END;
CREATE TRIGGER garbage_is_unnamed BEFORE INSERT ON garbage
    WHEN EXISTS (SELECT 1 FROM images WHERE manifest = NEW.path) OR EXISTS (SELECT 1 FROM packs WHERE path = NEW.path)
BEGIN SELECT RAISE(ABORT, 'a file that a row names is not garbage'); END;
CREATE TRIGGER manifest_is_no_garbage BEFORE UPDATE OF manifest ON images
    WHEN EXISTS (SELECT 1 FROM garbage WHERE path = NEW.manifest)
BEGIN SELECT RAISE(ABORT, 'the manifest is about to be removed'); END;
CREATE TRIGGER pack_is_no_garbage BEFORE INSERT ON packs WHEN EXISTS (SELECT 1 FROM garbage WHERE path = NEW.path)
BEGIN SELECT RAISE(ABORT, 'the pack is about to be removed'); END;
)sql",
                                                  R"sql(
-- store: the id of the store that all of this is about; '' until it was seen.
CREATE TABLE texts (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO texts VALUES ('store', '');

-- Manifests and directories that could not be read when the catalogue was rebuilt: of which checkpoints they are is not known.
CREATE TABLE unreadable (
    path TEXT PRIMARY KEY,
    job_id INTEGER NOT NULL,
    why TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- passed: the job has gone on from an older one, so no restart and no drain goes on from this one.
ALTER TABLE checkpoints ADD COLUMN passed INTEGER NOT NULL DEFAULT 0 CHECK (passed IN (0, 1));
CREATE INDEX checkpoints_pinned ON checkpoints (job) WHERE pinned = 1;
DROP TRIGGER newest_complete_stays;
CREATE TRIGGER newest_complete_stays BEFORE DELETE ON checkpoints
    WHEN OLD.state = 3 AND OLD.passed = 0 AND (SELECT outcome FROM jobs WHERE id = OLD.job) = 0
     AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE job = OLD.job AND state = 3 AND passed = 0 AND number > OLD.number)
BEGIN SELECT RAISE(ABORT, 'the newest complete checkpoint of a live job is kept'); END;
)sql",
                                                  R"sql(
-- step: NULL for a job's checkpoint; else it is one of this step's tasks alone. images: how many it has, once it is captured.
ALTER TABLE checkpoints ADD COLUMN step TEXT CHECK (step <> '');
ALTER TABLE checkpoints ADD COLUMN images INTEGER NOT NULL DEFAULT 0 CHECK (images >= 0);

-- What a checkpoint that is being dumped will have is known when it is captured.
DELETE FROM images WHERE checkpoint IN (SELECT id FROM checkpoints WHERE state = 1);
UPDATE checkpoints SET images = (SELECT count(*) FROM images WHERE checkpoint = checkpoints.id);

-- Tasks that had ended when the checkpoint was made, and so have no image.
CREATE TABLE ended_tasks (
    checkpoint INTEGER NOT NULL REFERENCES checkpoints (id) ON DELETE CASCADE,
    task TEXT NOT NULL CHECK (task <> ''),
    wait_status INTEGER NOT NULL,
    PRIMARY KEY (checkpoint, task)
) STRICT, WITHOUT ROWID;

-- A fast tier has what was dumped on its node: images.fast_node is images.node or empty.
UPDATE images SET fast_node = '' WHERE fast_node <> node;
DROP INDEX images_by_fast_node;
CREATE INDEX images_by_node ON images (node, checkpoint);
DROP INDEX checkpoints_complete;
CREATE INDEX checkpoints_complete ON checkpoints (job, step, number) WHERE state = 3;
CREATE INDEX packs_suspect ON packs (job) WHERE suspect = 1;

DROP TRIGGER complete_is_stored;
CREATE TRIGGER complete_is_stored BEFORE UPDATE OF state ON checkpoints
    WHEN NEW.state = 3 AND (NOT EXISTS (SELECT 1 FROM images WHERE checkpoint = NEW.id) OR
                            EXISTS (SELECT 1 FROM images WHERE checkpoint = NEW.id AND manifest IS NULL))
BEGIN SELECT RAISE(ABORT, 'an image of the checkpoint is not stored'); END;
DROP TRIGGER newest_complete_stays;
CREATE TRIGGER newest_complete_stays BEFORE DELETE ON checkpoints
    WHEN OLD.state = 3 AND OLD.passed = 0 AND (SELECT outcome FROM jobs WHERE id = OLD.job) = 0
     AND NOT EXISTS (SELECT 1 FROM checkpoints WHERE job = OLD.job AND step IS OLD.step AND state = 3 AND passed = 0 AND number > OLD.number)
BEGIN SELECT RAISE(ABORT, 'the newest complete checkpoint of a live job is kept'); END;
)sql"};

}  // namespace sckpt::sql
