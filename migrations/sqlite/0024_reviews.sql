-- Reviews of emergency rotations: each stays open until another person closes it. A row is never removed.
CREATE TABLE reviews (
    rotation_id BLOB NOT NULL PRIMARY KEY,
    group_id TEXT NOT NULL,
    project_name TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    people TEXT NOT NULL,
    reason TEXT NOT NULL,
    requested_at TEXT NOT NULL,
    closed_by TEXT,
    closed_at TEXT,
    finding TEXT
) STRICT;
