-- Until when the mails of a project wait. The last silence stays: mails that it delayed may still wait.
CREATE TABLE silences (
    group_id TEXT PRIMARY KEY,
    began_at TIMESTAMPTZ NOT NULL,
    ends_at TIMESTAMPTZ NOT NULL,
    silenced_by TEXT NOT NULL
);
