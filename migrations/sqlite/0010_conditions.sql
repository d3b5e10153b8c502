-- What holds, and how far it was told. One row for each start; rows that ended are kept like messages.
CREATE TABLE conditions (
    group_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    since TEXT NOT NULL,
    name TEXT NOT NULL,
    cause TEXT,
    key TEXT,
    rotation_id BLOB,
    told INTEGER NOT NULL,
    told_at TEXT,
    tell_at TEXT,
    damped INTEGER NOT NULL,
    calm_since TEXT,
    acknowledged_at TEXT,
    acknowledged_by TEXT,
    ended_at TEXT,
    version INTEGER NOT NULL,
    PRIMARY KEY (group_id, kind, since)
) STRICT;
CREATE UNIQUE INDEX conditions_open ON conditions (group_id, kind) WHERE ended_at IS NULL;
CREATE INDEX conditions_ended ON conditions (ended_at) WHERE ended_at IS NOT NULL;

-- The last readings of a project's key, as far as they are not good.
CREATE TABLE readings (
    group_id TEXT PRIMARY KEY,
    readings TEXT NOT NULL
) STRICT;

CREATE INDEX projects_drifted ON projects (group_id) WHERE drift_key IS NOT NULL;
CREATE INDEX projects_keyless ON projects (group_id) WHERE current_key IS NULL;
