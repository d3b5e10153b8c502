-- Who runs on this database right now, and under which settings. A row that is not refreshed is a
-- daemon that is gone.
CREATE TABLE daemons (
    id UUID PRIMARY KEY,
    name TEXT NOT NULL,
    settings TEXT NOT NULL,
    started_at TIMESTAMPTZ NOT NULL,
    seen_at TIMESTAMPTZ NOT NULL
);
