-- What Atlas' event feed said: of keys that others changed, and of our own completed rotations.
CREATE TABLE drifts (
    group_id TEXT NOT NULL,
    at TIMESTAMPTZ NOT NULL,
    finding TEXT NOT NULL,
    PRIMARY KEY (group_id, at)
);

CREATE TABLE proofs (
    rotation_id UUID PRIMARY KEY REFERENCES rotations (id),
    state TEXT NOT NULL CHECK (state IN ('awaited', 'found', 'not_found')),
    event TEXT,
    overwrote TEXT,
    last_error TEXT,
    next_look_at TIMESTAMPTZ,
    until_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX proofs_next_look ON proofs (next_look_at) WHERE next_look_at IS NOT NULL;
