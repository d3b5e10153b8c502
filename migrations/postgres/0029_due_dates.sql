-- What a due date is computed from, in seconds, and narrow enough for an index that alone answers lists and counts of the
-- whole fleet. Generated: nothing writes them, and a row cannot disagree with itself.
ALTER TABLE projects ADD COLUMN since_secs BIGINT GENERATED ALWAYS AS (
    CAST(floor(extract(epoch FROM key_since - TIMESTAMPTZ '1970-01-01 00:00:00+00')) AS BIGINT)) STORED;
ALTER TABLE projects ADD COLUMN end_secs BIGINT GENERATED ALWAYS AS (
    CASE WHEN key_ends_of = current_key
        THEN CAST(floor(extract(epoch FROM key_ends_at - TIMESTAMPTZ '1970-01-01 00:00:00+00')) AS BIGINT) END) STORED;
ALTER TABLE projects ADD COLUMN is_versionless BOOLEAN GENERATED ALWAYS AS (
    COALESCE(provider = 'AZURE' AND current_key LIKE '%/keys/%' AND current_key NOT LIKE '%/keys/%/%', FALSE)) STORED;
ALTER TABLE projects ADD COLUMN own_interval TEXT GENERATED ALWAYS AS (
    CASE WHEN policy LIKE '{"interval":"%' THEN substr(policy, 14, strpos(substr(policy, 14, 64) || '"', '"') - 1) END) STORED;
CREATE INDEX projects_intervals ON projects (own_interval) WHERE own_interval IS NOT NULL;
