-- Addresses whose person was removed: what it had before counts for nothing. Each row is sealed.
CREATE TABLE removals (
    address TEXT PRIMARY KEY,
    removed_at TEXT NOT NULL,
    removed_by TEXT NOT NULL
) STRICT;

-- A feed ends with its person, too.
DROP INDEX audit_calendar_feed;
CREATE INDEX audit_calendar_feed ON audit (subject) WHERE action IN ('calendar_feed.made', 'calendar_feed.ended');
