-- When somebody asked for another attempt: the five days of a message count from then.
ALTER TABLE outbox ADD COLUMN retried_at TEXT;
