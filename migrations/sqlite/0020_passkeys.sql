-- Passkeys: whose each is, and from when on it votes. One that was not confirmed counts for nothing.
CREATE TABLE passkeys (
    id TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    name TEXT NOT NULL,
    site TEXT NOT NULL,
    public_key TEXT NOT NULL,
    counter INTEGER NOT NULL,
    may_be_copied INTEGER NOT NULL,
    is_copied INTEGER NOT NULL,
    enrolled_by TEXT NOT NULL,
    enrolled_at TEXT NOT NULL,
    confirmed_by TEXT,
    confirmed_at TEXT,
    told TEXT NOT NULL,
    counts_from TEXT
) STRICT;
CREATE INDEX passkeys_holder ON passkeys (holder);

-- What passkeys have signed, as evidence. A row is never removed: what was signed once counts once.
CREATE TABLE assertions (
    nonce TEXT NOT NULL PRIMARY KEY,
    rotation_id BLOB NOT NULL,
    voter TEXT NOT NULL,
    passkey TEXT NOT NULL,
    at TEXT NOT NULL,
    evidence TEXT NOT NULL
) STRICT;
CREATE INDEX assertions_rotation ON assertions (rotation_id);

-- The signature of a vote that was given with a passkey.
ALTER TABLE approvals ADD COLUMN assertion TEXT;
