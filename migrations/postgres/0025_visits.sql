-- When a person began the visit that goes on, and was here before it: home tells what ended since. It authorises nothing.
CREATE TABLE visits (
    name TEXT NOT NULL,
    issuer TEXT NOT NULL,
    began_at TIMESTAMPTZ NOT NULL,
    before_at TIMESTAMPTZ,
    PRIMARY KEY (name, issuer)
);
CREATE INDEX rotations_finished ON rotations (finished_at) WHERE finished_at IS NOT NULL;
