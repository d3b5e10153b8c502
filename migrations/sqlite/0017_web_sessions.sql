-- Who is signed in to the pages. A cookie is known by its hash alone; whose it is, is sealed in the audit log.
CREATE TABLE web_sessions (
    hash TEXT PRIMARY KEY,
    token TEXT NOT NULL,
    created_at TEXT NOT NULL,
    ends_at TEXT NOT NULL,
    seen_at TEXT NOT NULL
) STRICT;
CREATE INDEX web_sessions_token ON web_sessions (token);
