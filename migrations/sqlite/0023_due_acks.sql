-- Until when the reminders of a due date wait, because a person has acknowledged it. It counts for its cycle alone.
CREATE TABLE due_acks (
    group_id TEXT PRIMARY KEY,
    cycle TEXT NOT NULL,
    until TEXT NOT NULL,
    acknowledged_by TEXT NOT NULL
) STRICT;
