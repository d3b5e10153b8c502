//! Silences of projects.

use serde_json::json;

use super::{CommandError, check_words};
use crate::domain::ids::GroupId;
use crate::domain::silence::{LONGEST, Silence};
use crate::domain::time::Span;
use crate::engine::Engine;
use crate::store::NewAudit;

impl Engine {
    /// Has the mails of a project wait for `span` from now on; without it, ends the silence that lasts. Webhooks go on.
    ///
    /// # Errors
    /// Fails when the project is not tracked, `span` is longer than a day, or there is no silence to end, and when
    /// the database cannot be written.
    pub async fn silence(
        &self,
        by: &str,
        group: &GroupId,
        span: Option<Span>,
        comment: Option<&str>,
    ) -> Result<(), CommandError> {
        check_words("comment", comment)?;
        let invalid = |rule: &str| CommandError::Invalid { field: "for", rule: rule.to_owned() };
        if span.is_some_and(|span| span.get() > LONGEST) {
            return Err(invalid("takes at most 24h; silence the project again when that has passed"));
        }
        let project = self.store.project(group).await?;
        let project = project.ok_or_else(|| CommandError::NoProject(group.clone()))?;
        let now = self.clock.now();
        let before = project.silence.filter(|it| it.lasts(now));
        let silence = match (span, before) {
            (None, None) => {
                return Err(invalid(
                    "takes a span such as 4h; without it a silence ends, and none lasts here",
                ));
            }
            (None, Some(before)) => Silence { ends_at: now, ..before },
            (Some(span), before) => Silence {
                began_at: before.map_or(now, |before| before.began_at),
                ends_at: now + span.get(),
                by: by.to_owned(),
            },
        };
        let audit = NewAudit {
            actor: by.to_owned(),
            action: if span.is_some() { "project.silenced" } else { "project.silence_ended" }.to_owned(),
            subject: format!("project/{group}"),
            detail: json!({ "until": silence.ends_at, "comment": comment }).to_string(),
        };
        self.store.write_silence(group, &silence, audit, now).await?;
        self.mail_due.notify_one();
        Ok(())
    }
}
