-- Urgent messages (0) are claimed before all others (1).
ALTER TABLE outbox ADD COLUMN urgency BIGINT NOT NULL DEFAULT 1 CHECK (urgency IN (0, 1));
UPDATE outbox SET urgency = 0 WHERE kind IN ('needs_operator', 'key_alarm', 'late_apply', 'current_key_invalid');
