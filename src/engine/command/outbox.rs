//! Messages that were not delivered: sent again, or dismissed.

use serde_json::json;

use super::CommandError;
use crate::domain::ids::OutboxId;
use crate::engine::Engine;
use crate::engine::announce::NO_OWNER;
use crate::store::{MessageState, NewAudit, OutboxRow, Settled};

impl Engine {
    /// Tries a message that failed or waits at once; without `id`, all that failed. Returns how many.
    ///
    /// # Errors
    /// Fails when there is no such message or it was sent, and when the database cannot be written.
    pub async fn retry_messages(&self, by: &str, id: Option<OutboxId>) -> Result<u64, CommandError> {
        let row = self
            .unsent(id, "it was sent already; only a message that failed or waits is tried again")
            .await?;
        if row.is_some_and(|it| it.recipient == NO_OWNER) {
            return Err(CommandError::Invalid {
                field: "id",
                rule: "the project had no owner, so there is nobody to send it to; name one: keywheel project edit PROJECT \
                       --owner ADDRESS"
                    .to_owned(),
            });
        }
        let count = self.settle(by, id, Settled::Retried, "outbox.retried").await?;
        self.mail_due.notify_one();
        Ok(count)
    }

    /// Takes a message that failed from the list of failed ones; without `id`, all. Returns how many.
    ///
    /// # Errors
    /// Fails when there is no such message or it has not failed, and when the database cannot be written.
    pub async fn dismiss_messages(&self, by: &str, id: Option<OutboxId>) -> Result<u64, CommandError> {
        let row = self.unsent(id, "it was sent; only a message that failed is dismissed").await?;
        if row.is_some_and(|it| it.state == MessageState::Waiting) {
            return Err(CommandError::Invalid {
                field: "id",
                rule: "it waits and will be sent; only a message that failed is dismissed".to_owned(),
            });
        }
        let words = format!("dismissed by {by}; last: ");
        self.settle(by, id, Settled::Dismissed(words), "outbox.dismissed").await
    }

    async fn unsent(&self, id: Option<OutboxId>, sent: &str) -> Result<Option<OutboxRow>, CommandError> {
        let Some(id) = id else { return Ok(None) };
        let row = self.store.outbox_row(id).await?.ok_or(CommandError::NoMessage(id))?;
        if row.state == MessageState::Sent {
            return Err(CommandError::Invalid { field: "id", rule: sent.to_owned() });
        }
        Ok(Some(row))
    }

    async fn settle(
        &self,
        by: &str,
        id: Option<OutboxId>,
        end: Settled,
        action: &str,
    ) -> Result<u64, CommandError> {
        let audit = NewAudit {
            actor: by.to_owned(),
            action: action.to_owned(),
            subject: id.map_or_else(|| "outbox".to_owned(), |id| format!("outbox/{id}")),
            detail: json!({ "all": id.is_none() }).to_string(),
        };
        Ok(self.store.settle_messages(id, end, audit, self.clock.now()).await?)
    }
}
