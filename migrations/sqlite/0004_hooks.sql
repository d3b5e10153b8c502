-- Events wait in the inbox until somebody looked at what they hint at. What became of each is kept.
ALTER TABLE inbox ADD COLUMN outcome TEXT;
ALTER TABLE inbox ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE inbox ADD COLUMN next_try_at TEXT;
UPDATE inbox SET next_try_at = received_at WHERE handled_at IS NULL;
CREATE INDEX inbox_next_try ON inbox (next_try_at) WHERE next_try_at IS NOT NULL;
CREATE INDEX inbox_handled ON inbox (handled_at);
