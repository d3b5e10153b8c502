-- Who has signed in with an identity provider, one row for each account there, as the provider described it last. The
-- name is the identity in journal and audit log; former ones are kept, because their holder is still the same person.
CREATE TABLE people (
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    name TEXT NOT NULL,
    former TEXT NOT NULL,
    mail TEXT,
    roles TEXT NOT NULL,
    groups TEXT NOT NULL,
    since TEXT NOT NULL,
    given_at TEXT,
    seen_at TEXT NOT NULL,
    PRIMARY KEY (issuer, subject)
) STRICT;
CREATE UNIQUE INDEX people_name ON people (issuer, name);

-- A web session is a token's, or with an issuer that of a person.
DROP INDEX web_sessions_token;
ALTER TABLE web_sessions RENAME COLUMN token TO name;
ALTER TABLE web_sessions ADD COLUMN issuer TEXT;
CREATE INDEX web_sessions_name ON web_sessions (name);
