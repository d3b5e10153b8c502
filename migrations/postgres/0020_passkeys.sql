-- Passkeys: whose each is, and from when on it votes. One that was not confirmed counts for nothing.
CREATE TABLE passkeys (
    id TEXT NOT NULL PRIMARY KEY,
    holder TEXT NOT NULL,
    name TEXT NOT NULL,
    site TEXT NOT NULL,
    public_key TEXT NOT NULL,
    counter BIGINT NOT NULL,
    may_be_copied BOOLEAN NOT NULL,
    is_copied BOOLEAN NOT NULL,
    enrolled_by TEXT NOT NULL,
    enrolled_at TIMESTAMPTZ NOT NULL,
    confirmed_by TEXT,
    confirmed_at TIMESTAMPTZ,
    told TEXT NOT NULL,
    counts_from TIMESTAMPTZ
);
CREATE INDEX passkeys_holder ON passkeys (holder);

-- What passkeys have signed, as evidence. A row is never removed: what was signed once counts once.
CREATE TABLE assertions (
    nonce TEXT NOT NULL PRIMARY KEY,
    rotation_id UUID NOT NULL,
    voter TEXT NOT NULL,
    passkey TEXT NOT NULL,
    at TIMESTAMPTZ NOT NULL,
    evidence TEXT NOT NULL
);
CREATE INDEX assertions_rotation ON assertions (rotation_id);

-- The signature of a vote that was given with a passkey.
ALTER TABLE approvals ADD COLUMN assertion TEXT;
