-- What Atlas' event feed said: of keys that others changed, and of our own completed rotations.
CREATE TABLE drifts (
    group_id TEXT NOT NULL,
    at TEXT NOT NULL,
    finding TEXT NOT NULL,
    PRIMARY KEY (group_id, at)
) STRICT;

CREATE TABLE proofs (
    rotation_id BLOB PRIMARY KEY REFERENCES rotations (id),
    state TEXT NOT NULL CHECK (state IN ('awaited', 'found', 'not_found')),
    event TEXT,
    overwrote TEXT,
    last_error TEXT,
    next_look_at TEXT,
    until_at TEXT NOT NULL
) STRICT;
CREATE INDEX proofs_next_look ON proofs (next_look_at) WHERE next_look_at IS NOT NULL;
