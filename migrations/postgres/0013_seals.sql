-- What an audit row seals, and the installation's seal over its hash. Rows of earlier versions have neither.
ALTER TABLE audit ADD COLUMN seals TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN seal TEXT NOT NULL DEFAULT '';
