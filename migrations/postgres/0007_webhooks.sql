-- The outbox holds webhooks beside mails: of those, `recipient` is the target's name.
ALTER TABLE outbox ADD COLUMN channel TEXT NOT NULL DEFAULT 'mail' CHECK (channel IN ('mail', 'webhook'));
CREATE INDEX outbox_webhooks ON outbox (recipient, next_try_at) WHERE channel = 'webhook' AND state = 'waiting';
