-- Times are UTC with microseconds; ids are UUID version 7 made by the program; enums are text with
-- a CHECK; JSON is text, so that both databases keep the same bytes.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE projects (
    group_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    provider TEXT CHECK (provider IN ('AWS', 'AZURE', 'GCP')),
    current_key TEXT,
    place TEXT NOT NULL,
    key_since TIMESTAMPTZ,
    key_since_source TEXT CHECK (key_since_source IN ('operator', 'rotation', 'atlas_event', 'first_seen')),
    valid BOOLEAN,
    private_networking BOOLEAN NOT NULL,
    environment TEXT,
    credential TEXT NOT NULL,
    policy TEXT,
    drift_key TEXT,
    last_checked_at TIMESTAMPTZ,
    last_error TEXT,
    next_check_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    version BIGINT NOT NULL
);
CREATE INDEX projects_next_check ON projects (next_check_at);

CREATE TABLE owners (
    group_id TEXT NOT NULL REFERENCES projects (group_id) ON DELETE CASCADE,
    mail TEXT NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (group_id, mail)
);

CREATE TABLE keys (
    group_id TEXT NOT NULL,
    key TEXT NOT NULL,
    since TIMESTAMPTZ NOT NULL,
    until TIMESTAMPTZ,
    source TEXT NOT NULL CHECK (source IN ('operator', 'rotation', 'atlas_event', 'first_seen')),
    PRIMARY KEY (group_id, key, since)
);

CREATE TABLE rotations (
    id UUID PRIMARY KEY,
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
    machine_version BIGINT NOT NULL,
    urgency BIGINT NOT NULL,
    guard_at TIMESTAMPTZ,
    wake_at TIMESTAMPTZ,
    lease_token UUID,
    lease_until TIMESTAMPTZ,
    created_at TIMESTAMPTZ NOT NULL,
    finished_at TIMESTAMPTZ,
    version BIGINT NOT NULL
);
CREATE UNIQUE INDEX rotations_one_open ON rotations (group_id) WHERE state IN (
    'awaiting_approval', 'approved', 'applying', 'verifying', 'deploying', 'rolling_back', 'needs_operator');
CREATE INDEX rotations_wake ON rotations (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX rotations_group ON rotations (group_id, id);

CREATE TABLE journal (
    rotation_id UUID NOT NULL REFERENCES rotations (id),
    seq BIGINT NOT NULL,
    at TIMESTAMPTZ NOT NULL,
    actor TEXT NOT NULL,
    kind TEXT NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    detail TEXT NOT NULL,
    replay TEXT,
    count BIGINT NOT NULL,
    last_at TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (rotation_id, seq)
);

CREATE TABLE approvals (
    rotation_id UUID NOT NULL REFERENCES rotations (id),
    approver TEXT NOT NULL,
    at TIMESTAMPTZ NOT NULL,
    method TEXT NOT NULL,
    comment TEXT,
    PRIMARY KEY (rotation_id, approver)
);

CREATE TABLE reminders (
    group_id TEXT NOT NULL,
    cycle TEXT NOT NULL,
    threshold BIGINT NOT NULL,
    recipient TEXT NOT NULL,
    at TIMESTAMPTZ NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('mailed', 'passed_over')),
    PRIMARY KEY (group_id, cycle, threshold, recipient)
);

CREATE TABLE outbox (
    id UUID PRIMARY KEY,
    kind TEXT NOT NULL,
    group_id TEXT NOT NULL,
    rotation_id UUID,
    recipient TEXT NOT NULL,
    message_id TEXT NOT NULL,
    model TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'failed')),
    created_at TIMESTAMPTZ NOT NULL,
    next_try_at TIMESTAMPTZ NOT NULL
);
CREATE UNIQUE INDEX outbox_message ON outbox (message_id);
CREATE INDEX outbox_next_try ON outbox (state, next_try_at);

CREATE TABLE inbox (
    id UUID PRIMARY KEY,
    source TEXT NOT NULL,
    event_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    received_at TIMESTAMPTZ NOT NULL,
    handled_at TIMESTAMPTZ
);
CREATE UNIQUE INDEX inbox_event ON inbox (source, event_id);

CREATE TABLE audit (
    seq BIGINT PRIMARY KEY,
    at TIMESTAMPTZ NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    prev_hash TEXT NOT NULL UNIQUE,
    hash TEXT NOT NULL
);
CREATE TABLE audit_head (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL
);
INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, '');

CREATE TABLE tokens (
    name TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    roles TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    revoked_at TIMESTAMPTZ
);

CREATE TABLE token_requests (
    credential TEXT NOT NULL,
    at TIMESTAMPTZ NOT NULL
);
CREATE INDEX token_requests_at ON token_requests (credential, at);
