-- Conditions of the installation stand beside those of projects: a condition has a subject.
ALTER TABLE conditions RENAME COLUMN group_id TO subject;

-- The subject of what only this daemon can see; the same after a restart.
ALTER TABLE daemons ADD COLUMN subject TEXT NOT NULL DEFAULT '';
