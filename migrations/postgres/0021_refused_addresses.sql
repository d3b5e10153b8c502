-- Addresses that the mail server has refused for good, until it takes a mail to them again; and when others were told.
CREATE TABLE refused_addresses (
    address TEXT PRIMARY KEY,
    reply TEXT NOT NULL,
    since TIMESTAMPTZ NOT NULL,
    told_at TIMESTAMPTZ
);
