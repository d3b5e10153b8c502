-- Comments are read from the audit log, where an edit is noticed.
CREATE INDEX audit_comments ON audit (subject) WHERE action = 'rotation.commented';
