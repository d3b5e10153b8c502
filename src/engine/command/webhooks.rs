//! A webhook target that was disabled, put back into service.

use serde_json::json;

use super::CommandError;
use crate::domain::text::did_you_mean;
use crate::engine::Engine;
use crate::store::NewAudit;

impl Engine {
    /// Puts a target that answered 410 back into service on this daemon; false when it was in service.
    ///
    /// # Errors
    /// Fails when no target has that name, and when the database cannot be written.
    pub async fn enable_webhook(&self, by: &str, name: &str) -> Result<bool, CommandError> {
        let targets = self.webhooks.all();
        let target = targets.iter().find(|it| it.name() == name);
        let target = target.ok_or_else(|| CommandError::NoWebhook {
            name: name.to_owned(),
            near: did_you_mean(name, targets.iter().map(|it| it.name())),
        })?;
        let Some(since) = target.retired_at() else { return Ok(false) };
        let audit = NewAudit {
            actor: by.to_owned(),
            action: "webhook.enabled".to_owned(),
            subject: format!("webhook/{name}"),
            detail: json!({ "disabledSince": since }).to_string(),
        };
        self.store.append(&[audit], self.clock.now()).await?;
        target.revive();
        self.conditions_due.notify_one();
        self.mail_due.notify_one();
        Ok(true)
    }
}
