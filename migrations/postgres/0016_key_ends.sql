-- When the key in force ends, as its key service said, and which key that was said of.
ALTER TABLE projects ADD COLUMN key_ends_at TIMESTAMPTZ;
ALTER TABLE projects ADD COLUMN key_ends_of TEXT;
