-- What becomes of mails, and when a project's reminders are looked at.
ALTER TABLE outbox ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN lease BLOB;
ALTER TABLE outbox ADD COLUMN last_tried_at TEXT;
ALTER TABLE outbox ADD COLUMN last_reply TEXT;
ALTER TABLE outbox ADD COLUMN sent_at TEXT;
ALTER TABLE projects ADD COLUMN next_reminder_at TEXT;
UPDATE projects SET next_reminder_at = created_at;
CREATE INDEX projects_next_reminder ON projects (next_reminder_at);
