-- When a person began the visit that goes on, and was here before it: home tells what ended since. It authorises nothing.
CREATE TABLE visits (
    name TEXT NOT NULL,
    issuer TEXT NOT NULL,
    began_at TIMESTAMPTZ NOT NULL,
    before_at TIMESTAMPTZ,
    PRIMARY KEY (name, issuer)
);
CREATE INDEX rotations_finished ON rotations (finished_at) WHERE finished_at IS NOT NULL;
-- A person can revoke a calendar feed: the last row of either kind says whether one is in force.
DROP INDEX audit_calendar_feed;
CREATE INDEX audit_calendar_feed ON audit (subject) WHERE action IN ('calendar_feed.made', 'calendar_feed.revoked');
