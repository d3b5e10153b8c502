-- Who made a token, whose it is, and since when it may vote: when it was made, got the role, or was given to another
-- person, and by whom. Tokens of earlier versions have none of these: they are sealed without them,
-- and the audit log names who made them.
ALTER TABLE tokens ADD COLUMN made_by TEXT;
ALTER TABLE tokens ADD COLUMN person TEXT;
ALTER TABLE tokens ADD COLUMN given_at TIMESTAMPTZ;
ALTER TABLE tokens ADD COLUMN given_by TEXT;
CREATE INDEX audit_token_created ON audit (subject) WHERE action = 'token.created';

-- Changes of what decides who must agree, and of owners and lookups: what is announced and takes effect later, and what
-- somebody did who counts as no approver of the project for a while. `subject` is a project's id, or `installation`.
CREATE TABLE loosenings (
    id UUID PRIMARY KEY,
    subject TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('loosening', 'tightening', 'owners', 'lookup')),
    state TEXT NOT NULL CHECK (state IN ('announcing', 'waiting', 'effective', 'withdrawn')),
    requested_by TEXT NOT NULL,
    requested_at TIMESTAMPTZ NOT NULL,
    changes TEXT NOT NULL,
    edit TEXT NOT NULL,
    owners TEXT NOT NULL,
    security TEXT NOT NULL,
    announced_at TIMESTAMPTZ,
    effective_at TIMESTAMPTZ,
    ended_at TIMESTAMPTZ,
    ended_by TEXT,
    version BIGINT NOT NULL
);
CREATE INDEX loosenings_subject ON loosenings (subject, requested_at);
CREATE INDEX loosenings_pending ON loosenings (requested_at) WHERE state IN ('announcing', 'waiting');

-- Projects that are not tracked any more: their rules come back with them.
CREATE TABLE former_projects (
    group_id TEXT PRIMARY KEY,
    record TEXT NOT NULL,
    removed_at TIMESTAMPTZ NOT NULL
);

-- The settings that decide, as the last start found them; and those whose lower value takes effect later.
CREATE TABLE settings (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- The announcements whose delivery decides when a rule is loosened are compared with their seals.
CREATE INDEX outbox_announcements ON outbox (id) WHERE kind = 'loosening_announced';
