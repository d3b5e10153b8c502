-- Which address of a person's calendar feed is in force is looked up in the audit log.
CREATE INDEX audit_calendar_feed ON audit (subject) WHERE action = 'calendar_feed.made';
