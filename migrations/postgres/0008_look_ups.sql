-- When a project's key service is asked next for its newest key (none: at once), and what came of the last time.
ALTER TABLE projects ADD COLUMN next_look_up_at TIMESTAMPTZ;
ALTER TABLE projects ADD COLUMN looked_up_at TIMESTAMPTZ;
ALTER TABLE projects ADD COLUMN look_up_said TEXT;
CREATE INDEX projects_look_ups ON projects (next_look_up_at) WHERE kms IS NOT NULL;
