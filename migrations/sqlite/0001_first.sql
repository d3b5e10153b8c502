-- Times are UTC with microseconds; ids are UUID version 7 made by the program; enums are text with
-- a CHECK; JSON is text, so that both databases keep the same bytes.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE projects (
    group_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    provider TEXT CHECK (provider IN ('AWS', 'AZURE', 'GCP')),
    current_key TEXT,
    place TEXT NOT NULL,
    key_since TEXT,
    key_since_source TEXT CHECK (key_since_source IN ('operator', 'rotation', 'atlas_event', 'first_seen')),
    valid INTEGER,
    private_networking INTEGER NOT NULL,
    environment TEXT,
    credential TEXT NOT NULL,
    policy TEXT,
    drift_key TEXT,
    last_checked_at TEXT,
    last_error TEXT,
    next_check_at TEXT NOT NULL,
    created_at TEXT NOT NULL,
    version INTEGER NOT NULL
) STRICT;
CREATE INDEX projects_next_check ON projects (next_check_at);

CREATE TABLE owners (
    group_id TEXT NOT NULL REFERENCES projects (group_id) ON DELETE CASCADE,
    mail TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (group_id, mail)
) STRICT;

CREATE TABLE keys (
    group_id TEXT NOT NULL,
    key TEXT NOT NULL,
    since TEXT NOT NULL,
    until TEXT,
    source TEXT NOT NULL CHECK (source IN ('operator', 'rotation', 'atlas_event', 'first_seen')),
    PRIMARY KEY (group_id, key, since)
) STRICT;

CREATE TABLE rotations (
    id BLOB PRIMARY KEY,
    group_id TEXT NOT NULL,
    project_name TEXT NOT NULL,
    credential TEXT NOT NULL,
    old_key TEXT NOT NULL,
    new_key TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN (
        'awaiting_approval', 'approved', 'applying', 'verifying', 'deploying', 'rolling_back', 'needs_operator',
        'completed', 'rolled_back', 'failed', 'rejected', 'cancelled', 'expired', 'superseded', 'accepted', 'closed')),
    cause TEXT,
    trigger_name TEXT NOT NULL,
    reason TEXT,
    requested_by TEXT NOT NULL,
    proposal_hash TEXT NOT NULL,
    policy_version TEXT NOT NULL,
    machine TEXT NOT NULL,
    machine_version INTEGER NOT NULL,
    urgency INTEGER NOT NULL,
    guard_at TEXT,
    wake_at TEXT,
    lease_token BLOB,
    lease_until TEXT,
    created_at TEXT NOT NULL,
    finished_at TEXT,
    version INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX rotations_one_open ON rotations (group_id) WHERE state IN (
    'awaiting_approval', 'approved', 'applying', 'verifying', 'deploying', 'rolling_back', 'needs_operator');
CREATE INDEX rotations_wake ON rotations (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX rotations_group ON rotations (group_id, id);

CREATE TABLE journal (
    rotation_id BLOB NOT NULL REFERENCES rotations (id),
    seq INTEGER NOT NULL,
    at TEXT NOT NULL,
    actor TEXT NOT NULL,
    kind TEXT NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    detail TEXT NOT NULL,
    replay TEXT,
    count INTEGER NOT NULL,
    last_at TEXT NOT NULL,
    PRIMARY KEY (rotation_id, seq)
) STRICT;

CREATE TABLE approvals (
    rotation_id BLOB NOT NULL REFERENCES rotations (id),
    approver TEXT NOT NULL,
    at TEXT NOT NULL,
    method TEXT NOT NULL,
    comment TEXT,
    PRIMARY KEY (rotation_id, approver)
) STRICT;

CREATE TABLE reminders (
    group_id TEXT NOT NULL,
    cycle TEXT NOT NULL,
    threshold INTEGER NOT NULL,
    recipient TEXT NOT NULL,
    at TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('mailed', 'passed_over')),
    PRIMARY KEY (group_id, cycle, threshold, recipient)
) STRICT;

CREATE TABLE outbox (
    id BLOB PRIMARY KEY,
    kind TEXT NOT NULL,
    group_id TEXT NOT NULL,
    rotation_id BLOB,
    recipient TEXT NOT NULL,
    message_id TEXT NOT NULL,
    model TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'failed')),
    created_at TEXT NOT NULL,
    next_try_at TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX outbox_message ON outbox (message_id);
CREATE INDEX outbox_next_try ON outbox (state, next_try_at);

CREATE TABLE inbox (
    id BLOB PRIMARY KEY,
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    received_at TEXT NOT NULL,
    handled_at TEXT
) STRICT;
CREATE UNIQUE INDEX inbox_event ON inbox (source, event_id);

CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    prev_hash TEXT NOT NULL UNIQUE,
    hash TEXT NOT NULL
) STRICT;
CREATE TABLE audit_head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL
) STRICT;
INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, '');

CREATE TABLE tokens (
    name TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    roles TEXT NOT NULL,
    created_at TEXT NOT NULL,
    revoked_at TEXT
) STRICT;

CREATE TABLE token_requests (
    credential TEXT NOT NULL,
    at TEXT NOT NULL
) STRICT;
CREATE INDEX token_requests_at ON token_requests (credential, at);
