-- A database whose projects were watched before there were conditions: what is found first is told as one list. The
-- first daemon writes until when.
INSERT INTO meta (name, value) SELECT 'upgrade', '' WHERE EXISTS (SELECT 1 FROM projects)
    AND NOT EXISTS (SELECT 1 FROM conditions);
