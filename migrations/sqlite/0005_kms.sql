-- Which look-up of the configuration knows a project's keys, and on AWS under which alias.
ALTER TABLE projects ADD COLUMN kms TEXT;
ALTER TABLE projects ADD COLUMN alias TEXT;
