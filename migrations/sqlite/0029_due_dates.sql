-- What a due date is computed from, in seconds, and narrow enough for an index that alone answers lists and counts of the
-- whole fleet. The database writes them, so no statement can forget them.
ALTER TABLE projects ADD COLUMN since_secs INTEGER;
ALTER TABLE projects ADD COLUMN end_secs INTEGER;
ALTER TABLE projects ADD COLUMN is_versionless INTEGER NOT NULL DEFAULT 0;
ALTER TABLE projects ADD COLUMN own_interval TEXT;
UPDATE projects SET since_secs = unixepoch(key_since),
    end_secs = CASE WHEN key_ends_of = current_key THEN unixepoch(key_ends_at) END,
    is_versionless = COALESCE(provider = 'AZURE' AND current_key LIKE '%/keys/%' AND current_key NOT LIKE '%/keys/%/%', 0),
    own_interval = CASE WHEN policy LIKE '{"interval":"%'
        THEN substr(policy, 14, instr(substr(policy, 14, 64) || '"', '"') - 1) END;
CREATE INDEX projects_due ON projects (
    group_id, since_secs, end_secs, is_versionless, own_interval, provider, environment, valid, drift_key, last_error, name);
CREATE INDEX projects_intervals ON projects (own_interval) WHERE own_interval IS NOT NULL;
CREATE TRIGGER projects_due_of_new AFTER INSERT ON projects BEGIN
    UPDATE projects SET since_secs = unixepoch(NEW.key_since),
    end_secs = CASE WHEN NEW.key_ends_of = NEW.current_key THEN unixepoch(NEW.key_ends_at) END,
    is_versionless = COALESCE(NEW.provider = 'AZURE' AND NEW.current_key LIKE '%/keys/%' AND NEW.current_key NOT LIKE '%/keys/%/%', 0),
    own_interval = CASE WHEN NEW.policy LIKE '{"interval":"%'
        THEN substr(NEW.policy, 14, instr(substr(NEW.policy, 14, 64) || '"', '"') - 1) END
    WHERE group_id = NEW.group_id;
END;
CREATE TRIGGER projects_due_of_changed AFTER UPDATE OF provider, current_key, key_since, policy, key_ends_at, key_ends_of ON projects
WHEN NEW.key_since IS NOT OLD.key_since OR NEW.policy IS NOT OLD.policy OR NEW.current_key IS NOT OLD.current_key
    OR NEW.provider IS NOT OLD.provider OR NEW.key_ends_at IS NOT OLD.key_ends_at OR NEW.key_ends_of IS NOT OLD.key_ends_of
BEGIN
    UPDATE projects SET since_secs = unixepoch(NEW.key_since),
    end_secs = CASE WHEN NEW.key_ends_of = NEW.current_key THEN unixepoch(NEW.key_ends_at) END,
    is_versionless = COALESCE(NEW.provider = 'AZURE' AND NEW.current_key LIKE '%/keys/%' AND NEW.current_key NOT LIKE '%/keys/%/%', 0),
    own_interval = CASE WHEN NEW.policy LIKE '{"interval":"%'
        THEN substr(NEW.policy, 14, instr(substr(NEW.policy, 14, 64) || '"', '"') - 1) END
    WHERE group_id = NEW.group_id;
END;
