-- What is looked up in the audit log by its subject: who signed in to the pages, and which links were used.
CREATE INDEX audit_web_session ON audit (subject) WHERE action = 'web_session.started';
CREATE INDEX audit_link_used ON audit (subject) WHERE action = 'link.used';
