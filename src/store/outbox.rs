//! Mails and webhooks: written in the transaction of their cause, claimed by the senders, and kept with
//! the last reply to each.
//!
//! A claim is a postponement under a random token: when its holder dies, the row becomes due again by
//! itself, under the same id. The times of further attempts are decided elsewhere. A row's content is
//! read only when it is sent ([`OutboxRow::content`]), so an unreadable row blocks no list and no other
//! message. A webhook names its target; the target's URL and signing key are never stored.

use std::time::Duration;

use sqlx::FromRow;
use uuid::Uuid;

use super::lanes::Lane as WriteLane;
use super::readable::{Listed, listed, readable};
use super::seal::Seal;
use super::seals::AGAIN;
use super::types::{Instant, instant, storable};
use super::{NewAudit, Sql, Store, StoreError, Tx, each, read, urgent};
use crate::domain::ids::{GroupId, OutboxId, RotationId};
use crate::domain::named::named;
use crate::domain::notice::{Content, Kind, UnreadableNotice, Urgency};
use crate::domain::subject::Subject;
use crate::domain::time::Timestamp;
use crate::seal::Digest;

const MAIL: Sql = Sql::same(
    "INSERT INTO outbox (id, kind, group_id, rotation_id, recipient, message_id, model, state, created_at, next_try_at, channel, urgency) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, 'waiting', $8, $9, $10, $11) ON CONFLICT DO NOTHING",
);

macro_rules! columns {
    () => {
        "id, kind, group_id, rotation_id, recipient, message_id, model, state, created_at, next_try_at, attempts, \
         last_tried_at, last_reply, sent_at, channel, retried_at"
    };
}

const MAILS: Sql =
    Sql::same(concat!("SELECT ", columns!(), " FROM outbox WHERE id < $1 ORDER BY id DESC LIMIT $2"));
const ONE: Sql = Sql::same(concat!("SELECT ", columns!(), " FROM outbox WHERE id = $1"));
const LAST_MAILS: Sql = Sql::same(
    "SELECT model FROM outbox WHERE channel = 'mail' AND group_id = $1 AND kind = $2 ORDER BY id DESC LIMIT 20",
);
// An urgent message does not wait behind reminders.
macro_rules! urgent_first {
    () => {
        "urgency, next_try_at, id LIMIT 1"
    };
}
// 'nobody' stands for a missing owner.
macro_rules! first {
    () => {
        concat!(
            "SELECT id FROM outbox WHERE state = 'waiting' AND next_try_at <= $1 AND recipient <> 'nobody' AND channel = 'mail' \
             AND created_at > $4 ORDER BY ",
            urgent_first!()
        )
    };
}
macro_rules! claim {
    ($lock:literal) => {
        concat!(
            "UPDATE outbox SET attempts = attempts + 1, last_tried_at = $1, next_try_at = $2, lease = $3 WHERE id = (",
            first!(),
            $lock,
            ") RETURNING ",
            columns!()
        )
    };
}
const CLAIM: Sql = Sql { sqlite: claim!(""), postgres: claim!(" FOR UPDATE SKIP LOCKED") };
const ENDED: Sql = Sql::same(
    "UPDATE outbox SET state = $3, last_reply = $4, next_try_at = $5, sent_at = $6, lease = NULL \
     WHERE id = $1 AND lease = $2",
);
const CLAIMED: Sql = Sql::same(concat!("SELECT ", columns!(), " FROM outbox WHERE lease = $1"));
const NEXT: Sql = Sql::same(
    "SELECT MIN(next_try_at) FROM outbox WHERE state = 'waiting' AND recipient <> 'nobody' AND channel = 'mail' \
     AND created_at > $1",
);
const COUNTS: Sql = Sql::same(
    "SELECT state, recipient = 'nobody' AS unaddressed, COUNT(*) AS mails, MIN(created_at) AS oldest FROM outbox \
     WHERE channel = 'mail' GROUP BY 1, 2",
);
macro_rules! claim_webhook {
    ($lock:literal) => {
        concat!(
            "UPDATE outbox SET attempts = attempts + 1, last_tried_at = $1, next_try_at = $2, lease = $3 WHERE id = (\
             SELECT id FROM outbox WHERE state = 'waiting' AND next_try_at <= $1 AND channel = 'webhook' AND recipient = $4 \
             AND created_at > $5 ORDER BY ",
            urgent_first!(),
            $lock,
            ") RETURNING ",
            columns!()
        )
    };
}
const CLAIM_WEBHOOK: Sql =
    Sql { sqlite: claim_webhook!(""), postgres: claim_webhook!(" FOR UPDATE SKIP LOCKED") };
const LANES: Sql = Sql::same(
    "SELECT recipient AS target, MIN(next_try_at) AS next, MIN(created_at) AS oldest, COUNT(*) AS waiting FROM outbox \
     WHERE channel = 'webhook' AND state = 'waiting' AND created_at > $1 GROUP BY recipient ORDER BY recipient",
);
// A claimed row is left to its holder.
const END_TARGET: Sql = Sql::same(
    "UPDATE outbox SET state = 'failed', last_reply = $2, next_try_at = $3, lease = NULL WHERE channel = 'webhook' \
     AND recipient = $1 AND state = 'waiting' AND created_at <= $4 AND (lease IS NULL OR next_try_at <= $3)",
);
const WEBHOOK_COUNTS: Sql = Sql::same(
    "SELECT recipient AS target, state, COUNT(*) AS webhooks FROM outbox WHERE channel = 'webhook' \
     GROUP BY recipient, state ORDER BY recipient, state",
);

// When a mail was sent, its `next_try_at` is that instant, which has an index.
const SENT_LIKE: Sql = Sql::same(
    "SELECT COUNT(DISTINCT group_id), MIN(next_try_at) FROM outbox WHERE state = 'sent' AND next_try_at > $3 \
     AND channel = 'mail' AND recipient = $1 AND kind = $2 AND sent_at IS NOT NULL",
);
macro_rules! claim_like {
    ($lock:literal) => {
        concat!(
            "UPDATE outbox SET attempts = attempts + 1, last_tried_at = $3, next_try_at = $4, lease = $5 WHERE id IN (\
             SELECT id FROM outbox WHERE state = 'waiting' AND next_try_at <= $3 AND channel = 'mail' AND recipient = $1 \
             AND kind = $2 AND created_at > $6 ORDER BY id LIMIT 5000",
            $lock,
            ") RETURNING ",
            columns!()
        )
    };
}
const CLAIM_LIKE: Sql = Sql { sqlite: claim_like!(""), postgres: claim_like!(" FOR UPDATE SKIP LOCKED") };
// All that an upgrade has found, whatever it is.
macro_rules! claim_listed {
    ($lock:literal) => {
        concat!(
            "UPDATE outbox SET attempts = attempts + 1, last_tried_at = $2, next_try_at = $3, lease = $4 WHERE id IN (\
             SELECT id FROM outbox WHERE state = 'waiting' AND next_try_at <= $2 AND channel = 'mail' AND recipient = $1 \
             AND kind IN ('current_key_invalid', 'unreachable', 'needs_operator') AND created_at > $5 ORDER BY id LIMIT 5000",
            $lock,
            ") RETURNING ",
            columns!()
        )
    };
}
const CLAIM_LISTED: Sql =
    Sql { sqlite: claim_listed!(""), postgres: claim_listed!(" FOR UPDATE SKIP LOCKED") };
const WAITING_LIKE: Sql = Sql::same(
    "SELECT COUNT(*) FROM outbox WHERE state = 'waiting' AND next_try_at <= $3 AND channel = 'mail' AND recipient = $1 \
     AND kind = $2 AND created_at > $4",
);

// The holder of the claim is gone, and the attempt with it.
pub(super) const CLEAR_CLAIMS: Sql = Sql::same(
    "UPDATE outbox SET lease = NULL, next_try_at = last_tried_at WHERE state = 'waiting' AND lease IS NOT NULL",
);

// Nothing has left since it was written.
const STUCK: Sql = Sql::same(
    "SELECT state, COUNT(*), MIN(created_at), MAX(last_reply) FROM outbox o WHERE channel = 'mail' \
     AND recipient <> 'nobody' AND attempts > 0 AND (state = 'waiting' OR (state = 'failed' AND next_try_at > $1)) \
     AND NOT EXISTS (SELECT 1 FROM outbox s WHERE s.state = 'sent' AND s.channel = 'mail' AND s.next_try_at > o.created_at) \
     AND NOT EXISTS (SELECT 1 FROM silences s WHERE s.group_id = o.group_id AND s.ends_at > $2) \
     GROUP BY state",
);

// What a rule's loosening waits for.
const ANNOUNCEMENTS: Sql = Sql::same(concat!(
    "SELECT ",
    columns!(),
    " FROM outbox WHERE kind IN ('loosening_announced', 'passkey_confirmed') AND channel = 'mail' ORDER BY id"
));
const ANNOUNCEMENT: Sql =
    Sql::same(concat!("SELECT ", columns!(), " FROM outbox WHERE message_id = $1 AND channel = 'mail'"));

const HAS: Sql = Sql::same("SELECT COUNT(*) FROM outbox WHERE message_id = $1");

pub(super) const STATEMENTS: &[&Sql] = &[
    &MAIL,
    &MAILS,
    &LAST_MAILS,
    &ONE,
    &CLAIM,
    &CLAIMED,
    &ENDED,
    &NEXT,
    &COUNTS,
    &CLAIM_WEBHOOK,
    &LANES,
    &END_TARGET,
    &WEBHOOK_COUNTS,
    &CLEAR_CLAIMS,
    &SENT_LIKE,
    &WAITING_LIKE,
    &CLAIM_LIKE,
    &CLAIM_LISTED,
    &STUCK,
    &HAS,
    &ANNOUNCEMENTS,
    &ANNOUNCEMENT,
];

named! {
    /// How a row of the outbox leaves.
    Channel, "channel of the outbox" {
        /// By mail.
        Mail = "mail",
        /// To a webhook target.
        Webhook = "webhook",
    }
}

named! {
    /// The state of a message.
    MessageState, "state of a message" {
        /// It is to be sent.
        Waiting = "waiting",
        /// The recipient's server has accepted it, or nobody needs it any more; then `sent_at` is absent.
        Sent = "sent",
        /// It was refused for good, or given up.
        Failed = "failed",
    }
}

/// So many mails that were refused for good, one after the other, are no fault of their recipients.
const REFUSED_OFTEN: i64 = 3;

/// A mail or a webhook to write.
#[derive(Clone, Debug)]
pub struct NewOutbox {
    /// How it leaves.
    pub channel: Channel,
    /// The notice and its server; no secret.
    pub content: Content,
    /// The project; of several, the first. Or the part of the installation that it concerns.
    pub subject: Subject,
    /// The recipient: an address, or the name of a target.
    pub recipient: String,
    /// The same text for the same logical mail or webhook, so that it is written once.
    pub message_id: String,
    /// The earliest first attempt.
    pub next_try_at: Timestamp,
}

/// A stored mail or webhook.
#[derive(Clone, Debug)]
pub struct OutboxRow {
    /// Our id.
    pub id: OutboxId,
    /// How it leaves.
    pub channel: Channel,
    /// The kind of the notice.
    pub kind: String,
    /// The project; of several, the first. Or the part of the installation that it concerns.
    pub subject: String,
    /// The rotation.
    pub rotation_id: Option<RotationId>,
    /// The recipient: an address, or the name of a target.
    pub recipient: String,
    /// Its Message-ID, or its `webhook-id`.
    pub message_id: String,
    /// The content as it is stored; a text that is no JSON is kept as a text.
    pub model: serde_json::Value,
    /// Its state.
    pub state: MessageState,
    /// When its cause was written.
    pub created_at: Timestamp,
    /// While it waits: not before.
    pub next_try_at: Timestamp,
    /// How often it was tried.
    pub attempts: i64,
    /// When it was tried last.
    pub last_tried_at: Option<Timestamp>,
    /// The last reply, or the reason for its absence.
    pub last_reply: Option<String>,
    /// When the recipient's server accepted it.
    pub sent_at: Option<Timestamp>,
    /// When somebody asked for another attempt.
    pub retried_at: Option<Timestamp>,
}

/// A message whose content cannot be read, so that it cannot be rendered.
#[derive(Debug, thiserror::Error)]
#[error("message {id} cannot be read: {why}")]
pub struct UnreadableMessage {
    id: OutboxId,
    #[source]
    why: UnreadableNotice,
}

impl UnreadableMessage {
    /// Whether another daemon, of a newer version, may be able to read the message.
    #[must_use]
    pub const fn is_of_a_newer_version(&self) -> bool {
        matches!(self.why, UnreadableNotice::UnknownKind(_))
    }
}

/// The seal of an announcement: whom it goes to, what it says, and when it was delivered.
fn announcement(id: &str, recipient: &str, model: &serde_json::Value, sent_at: Option<Timestamp>) -> Seal {
    let subject = format!("outbox/{id}");
    let (model, sent_at) = (model.to_string(), sent_at.map(|at| at.to_string()));
    let digest = Digest::of(&subject, &[Some(recipient), Some(&model), sent_at.as_deref()]);
    Seal::new(subject, digest)
}

impl OutboxRow {
    fn announcement(&self) -> Seal {
        announcement(&self.message_id, &self.recipient, &self.model, self.sent_at)
    }

    /// From when its days in the outbox count.
    #[must_use]
    pub fn tried_since(&self) -> Timestamp {
        self.retried_at.map_or(self.created_at, |at| at.max(self.created_at))
    }

    /// How soon it is sent and tried again. A kind of a newer version is not urgent.
    #[must_use]
    pub fn urgency(&self) -> Urgency {
        self.kind.parse().map_or(Urgency::Normal, Kind::urgency)
    }

    /// The notice and its server.
    ///
    /// # Errors
    /// The error names this row and the member that cannot be read.
    pub fn content(&self) -> Result<Content, UnreadableMessage> {
        Content::read(&self.kind, &self.model).map_err(|why| UnreadableMessage { id: self.id, why })
    }
}

/// A mail or webhook that this process may send now.
#[derive(Clone, Debug)]
pub struct ClaimedMessage {
    /// The row; its `attempts` count this one.
    pub row: OutboxRow,
    token: Uuid,
}

/// The end of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageEnd {
    /// The server has it.
    Sent,
    /// Its tries or its time are over, or it cannot be sent.
    Failed,
    /// The server refuses its recipient for good: the address is marked.
    Refused,
    /// Nobody needs it any more, and it was not sent.
    Unneeded,
    /// It is tried again.
    Again(Timestamp),
}

/// How many mails are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailCounts {
    /// To be sent.
    pub waiting: i64,
    /// Taken by the server.
    pub sent: i64,
    /// Refused or given up.
    pub failed: i64,
    /// Without a recipient, because the project has no owner; never sent.
    pub unaddressed: i64,
    /// When the oldest mail that waits to be sent was written.
    pub oldest_waiting: Option<Timestamp>,
}

/// The waiting webhooks of one target.
#[derive(Clone, Debug, FromRow)]
pub struct Lane {
    /// The target's name.
    pub target: String,
    /// When the first is due.
    pub next: Timestamp,
    /// When the oldest was written.
    pub oldest: Timestamp,
    /// How many wait.
    pub waiting: i64,
}

/// Webhooks of one target in one state.
#[derive(Clone, Debug)]
pub struct WebhookCount {
    /// The target's name.
    pub target: String,
    /// Their state.
    pub state: MessageState,
    /// How many.
    pub webhooks: i64,
}

#[derive(FromRow)]
struct MessageRow {
    id: Uuid,
    channel: String,
    kind: String,
    group_id: String,
    rotation_id: Option<Uuid>,
    recipient: String,
    message_id: String,
    model: String,
    state: String,
    created_at: Instant,
    next_try_at: Instant,
    attempts: i64,
    last_tried_at: Option<Instant>,
    last_reply: Option<String>,
    sent_at: Option<Instant>,
    retried_at: Option<Instant>,
}

impl TryFrom<MessageRow> for OutboxRow {
    type Error = StoreError;
    fn try_from(row: MessageRow) -> Result<Self, StoreError> {
        let bad = |column| StoreError::corrupt("outbox", column, row.id);
        Ok(Self {
            created_at: row.created_at.or(bad("created_at"))?,
            next_try_at: row.next_try_at.or(bad("next_try_at"))?,
            last_tried_at: instant(row.last_tried_at, || bad("last_tried_at"))?,
            sent_at: instant(row.sent_at, || bad("sent_at"))?,
            retried_at: instant(row.retried_at, || bad("retried_at"))?,
            model: serde_json::from_str(&row.model).unwrap_or(serde_json::Value::String(row.model)),
            channel: row.channel.parse().map_err(|_| bad("channel"))?,
            id: OutboxId(row.id),
            kind: row.kind,
            subject: row.group_id,
            rotation_id: row.rotation_id.map(RotationId),
            recipient: row.recipient,
            message_id: row.message_id,
            state: row.state.parse().map_err(|_| bad("state"))?,
            attempts: row.attempts,
            last_reply: row.last_reply,
        })
    }
}

impl Tx {
    pub(super) async fn write_outbox(
        &mut self,
        rows: &[NewOutbox],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for row in rows {
            let notice = &row.content.notice;
            each!(self, MAIL, |conn, text| sqlx::query(text)
                .bind(OutboxId::new().0)
                .bind(notice.kind().as_str())
                .bind(row.subject.to_string())
                .bind(notice.about().rotation.map(|id| id.0))
                .bind(row.recipient.as_str())
                .bind(row.message_id.as_str())
                .bind(row.content.model().to_string())
                .bind(now)
                .bind(row.next_try_at)
                .bind(row.channel.as_str())
                .bind(notice.urgency().rank())
                .execute(conn)
                .await
                .map(|_| ()))?;
        }
        Ok(())
    }

    /// Writes messages, and returns the seals of those whose delivery decides when a loosened rule takes effect.
    pub(super) async fn write_announcing(
        &mut self,
        rows: &[NewOutbox],
        now: Timestamp,
    ) -> Result<Vec<Seal>, StoreError> {
        self.write_outbox(rows, now).await?;
        let mails = rows.iter().filter(|row| row.channel == Channel::Mail);
        let mails = mails.filter(|row| row.content.notice.kind().announces());
        Ok(mails
            .map(|row| announcement(&row.message_id, &row.recipient, &row.content.model(), None))
            .collect())
    }

    /// Records that an announcement was delivered as it was written.
    async fn seal_delivery(&mut self, row: &OutboxRow, now: Timestamp) -> Result<(), StoreError> {
        let before = announcement(&row.message_id, &row.recipient, &row.model, None);
        match self.check_seals(&[before]).await {
            Ok(()) => {}
            Err(error @ StoreError::Tampered { .. }) => {
                tracing::error!(error = %error, "an announcement was sent that is not as Keywheel wrote it; it does not count");
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        let audit = NewAudit {
            actor: "keywheel".to_owned(),
            action: "announcement.delivered".to_owned(),
            subject: format!("outbox/{}", row.message_id),
            detail: serde_json::json!({ "about": row.subject, "recipient": row.recipient }).to_string(),
        };
        let seal = announcement(&row.message_id, &row.recipient, &row.model, Some(now));
        self.append_sealing(&[audit], vec![seal], now).await
    }

    /// The seals of the announcements that can be read, of delivered ones too.
    pub(super) async fn seals_of_announcements(&mut self) -> Result<Vec<Seal>, StoreError> {
        let rows: Vec<MessageRow> =
            each!(self, ANNOUNCEMENTS, |conn, text| sqlx::query_as(text).fetch_all(conn).await)?;
        let rows = readable(rows.into_iter().map(OutboxRow::try_from))?;
        Ok(rows.iter().map(OutboxRow::announcement).collect())
    }

    /// The row that an unanswered attempt has claimed under `token`.
    async fn claimed_mail(&mut self, token: Uuid) -> Result<Option<MessageRow>, StoreError> {
        Ok(each!(self, CLAIMED, |conn, text| sqlx::query_as(text).bind(token).fetch_optional(conn).await)?)
    }

    async fn end_target(
        &mut self,
        target: &str,
        why: &str,
        written_by: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        Ok(each!(self, END_TARGET, |conn, text| sqlx::query(text)
            .bind(target)
            .bind(storable(why))
            .bind(now)
            .bind(written_by)
            .execute(conn)
            .await
            .map(|done| done.rows_affected()))?)
    }
}

impl Store {
    /// Writes messages that no change of a record has caused. One that was written before is not repeated.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn write_messages(&self, rows: Vec<NewOutbox>, now: Timestamp) -> Result<(), StoreError> {
        self.transact("outbox.write", WriteLane::Rest, rows, move |tx, rows, _| {
            Box::pin(tx.write_outbox(rows, now))
        })
        .await
    }

    /// Mails and webhooks, newest first, older than `before`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn outbox(&self, before: Option<OutboxId>, limit: usize) -> Result<Vec<OutboxRow>, StoreError> {
        self.outbox_page(before, limit).await?.into_iter().collect()
    }

    /// The same, those that cannot be read by their ids.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn list_outbox(
        &self,
        before: Option<OutboxId>,
        limit: usize,
    ) -> Result<Vec<Listed<OutboxRow>>, StoreError> {
        listed(self.outbox_page(before, limit).await?)
    }

    async fn outbox_page(
        &self,
        before: Option<OutboxId>,
        limit: usize,
    ) -> Result<Vec<Result<OutboxRow, StoreError>>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let before = before.map_or(Uuid::max(), |id| id.0);
        let rows: Vec<MessageRow> = read!(self, MAILS, |pool, text| sqlx::query_as(text)
            .bind(before)
            .bind(limit)
            .fetch_all(pool)
            .await)?;
        Ok(rows.into_iter().map(OutboxRow::try_from).collect())
    }

    /// The notices of the last mails of this kind about a project that can be read, the newest first.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn last_mails(&self, kind: Kind, group: &GroupId) -> Result<Vec<Content>, StoreError> {
        let rows: Vec<(String,)> = read!(self, LAST_MAILS, |pool, text| sqlx::query_as(text)
            .bind(group.as_str())
            .bind(kind.as_str())
            .fetch_all(pool)
            .await)?;
        let read = |text: &str| Content::read(kind.as_str(), &serde_json::from_str(text).ok()?).ok();
        Ok(rows.iter().filter_map(|(model,)| read(model)).collect())
    }

    /// One mail or webhook.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn outbox_row(&self, id: OutboxId) -> Result<Option<OutboxRow>, StoreError> {
        let row: Option<MessageRow> =
            read!(self, ONE, |pool, text| sqlx::query_as(text).bind(id.0).fetch_optional(pool).await)?;
        row.map(OutboxRow::try_from).transpose()
    }

    /// Since when mails wait that were tried, of no project that was silenced after `silenced_since`, and none has left, with what the server said: some still wait, or
    /// three were refused for good after `failed_since`.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn stuck_mail(
        &self,
        failed_since: Timestamp,
        silenced_since: Timestamp,
    ) -> Result<Option<(Timestamp, Option<String>)>, StoreError> {
        type Row = (String, i64, Timestamp, Option<String>);
        let rows: Vec<Row> = urgent!(self, STUCK, |pool, text| sqlx::query_as(text)
            .bind(failed_since)
            .bind(silenced_since)
            .fetch_all(pool)
            .await)?;
        let stuck = rows
            .into_iter()
            .filter(|(state, count, ..)| *state == MessageState::Waiting.as_str() || *count >= REFUSED_OFTEN);
        Ok(stuck.map(|(_, _, since, words)| (since, words)).min())
    }

    /// Whether a mail with this Message-ID was written.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn has_mail(&self, message_id: &str) -> Result<bool, StoreError> {
        let (count,): (i64,) =
            urgent!(self, HAS, |pool, text| sqlx::query_as(text).bind(message_id).fetch_one(pool).await)?;
        Ok(count > 0)
    }

    /// Claims the most urgent due mail that was written after `from` for this process alone, until `patience` is
    /// over.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn claim_mail(
        &self,
        now: Timestamp,
        patience: Duration,
        from: Timestamp,
    ) -> Result<Option<ClaimedMessage>, StoreError> {
        let token = Uuid::now_v7();
        let row = self.transact("mail.claim", WriteLane::Rest, (), move |tx, (), unsure| {
            Box::pin(async move {
                if unsure && let Some(row) = tx.claimed_mail(token).await? {
                    return Ok(Some(row));
                }
                let row: Option<MessageRow> = each!(tx, CLAIM, |conn, text| sqlx::query_as(text)
                    .bind(now)
                    .bind(now + patience)
                    .bind(token)
                    .bind(from)
                    .fetch_optional(conn)
                    .await)?;
                Ok(row)
            })
        });
        let row = row.await?.map(OutboxRow::try_from).transpose()?;
        Ok(row.map(|row| ClaimedMessage { row, token }))
    }

    /// Records the end of an attempt; writes nothing when the claim is no longer ours.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn mail_ended(
        &self,
        mail: &ClaimedMessage,
        end: &MessageEnd,
        reply: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (state, next) = match end {
            // Nothing is left to do; without an instant of its sending it counts as no mail that left.
            MessageEnd::Sent | MessageEnd::Unneeded => (MessageState::Sent, now),
            MessageEnd::Failed | MessageEnd::Refused => (MessageState::Failed, now),
            MessageEnd::Again(at) => (MessageState::Waiting, *at),
        };
        let sent_at = Some(now).filter(|_| *end == MessageEnd::Sent);
        let (id, token) = (mail.row.id.0, mail.token);
        let reply = storable(reply).into_owned();
        let is_announcement = mail.row.kind.parse().is_ok_and(Kind::announces);
        let announced = Some(mail.row.clone()).filter(|_| is_announcement && sent_at.is_some());
        let marks =
            mail.row.channel == Channel::Mail && matches!(end, MessageEnd::Sent | MessageEnd::Refused);
        let address = Some(mail.row.recipient.to_ascii_lowercase()).filter(|_| marks);
        let is_refused = *end == MessageEnd::Refused;
        let args = (reply, announced, address);
        self.transact("mail.ended", WriteLane::Rest, args, move |tx, (reply, announced, address), _| {
            Box::pin(async move {
                let ended = each!(tx, ENDED, |conn, text| sqlx::query(text)
                    .bind(id)
                    .bind(token)
                    .bind(state.as_str())
                    .bind(reply.as_str())
                    .bind(next)
                    .bind(sent_at)
                    .execute(conn)
                    .await
                    .map(|done| done.rows_affected()))?;
                if let Some(address) = address.as_deref().filter(|_| ended > 0) {
                    tx.mark_address(address, is_refused.then_some(reply.as_str()), now).await?;
                }
                match announced {
                    Some(row) if ended > 0 => tx.seal_delivery(row, now).await,
                    Some(_) | None => Ok(()),
                }
            })
        })
        .await
    }

    /// When the announcement with this id was accepted by its recipient's server: the one that Keywheel has sent, as
    /// it has written it.
    ///
    /// # Errors
    /// [`StoreError::Tampered`] when it is not what Keywheel wrote; fails when the database cannot be read.
    pub async fn announced_at(&self, message_id: &str) -> Result<Option<Timestamp>, StoreError> {
        let mut again = 0..AGAIN;
        loop {
            let row: Option<MessageRow> = read!(self, ANNOUNCEMENT, |pool, text| sqlx::query_as(text)
                .bind(message_id)
                .fetch_optional(pool)
                .await)?;
            let Some(row) = row.map(OutboxRow::try_from).transpose()? else { return Ok(None) };
            match self.check_seals(&[row.announcement()]).await {
                Err(StoreError::Tampered { .. }) if again.next().is_some() => {}
                checked => return checked.map(|()| row.sent_at),
            }
        }
    }

    /// About how many projects mails like this one were sent after `since`, and when the first was: to the same
    /// recipient, of the same kind.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn sent_like(
        &self,
        mail: &OutboxRow,
        since: Timestamp,
    ) -> Result<(i64, Option<Timestamp>), StoreError> {
        Ok(urgent!(self, SENT_LIKE, |pool, text| sqlx::query_as(text)
            .bind(mail.recipient.as_str())
            .bind(mail.kind.as_str())
            .bind(since)
            .fetch_one(pool)
            .await)?)
    }

    /// How many mails like this one, written after `from`, are due and not claimed.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn waiting_like(
        &self,
        mail: &OutboxRow,
        now: Timestamp,
        from: Timestamp,
    ) -> Result<i64, StoreError> {
        let (count,): (i64,) = urgent!(self, WAITING_LIKE, |pool, text| sqlx::query_as(text)
            .bind(mail.recipient.as_str())
            .bind(mail.kind.as_str())
            .bind(now)
            .bind(from)
            .fetch_one(pool)
            .await)?;
        Ok(count)
    }

    /// Claims the due mails like this one that were written after `from`, until `patience` is over.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn claim_like(
        &self,
        mail: &OutboxRow,
        now: Timestamp,
        patience: Duration,
        from: Timestamp,
    ) -> Result<Vec<ClaimedMessage>, StoreError> {
        let token = Uuid::now_v7();
        let args = (mail.recipient.clone(), mail.kind.clone());
        // What an unanswered attempt has claimed becomes due again by itself.
        let rows =
            self.transact("mail.claim_like", WriteLane::Rest, args, move |tx, (recipient, kind), _| {
                Box::pin(async move {
                    let rows: Vec<MessageRow> = each!(tx, CLAIM_LIKE, |conn, text| sqlx::query_as(text)
                        .bind(recipient.as_str())
                        .bind(kind.as_str())
                        .bind(now)
                        .bind(now + patience)
                        .bind(token)
                        .bind(from)
                        .fetch_all(conn)
                        .await)?;
                    Ok(rows)
                })
            });
        let rows = rows.await?.into_iter().map(OutboxRow::try_from);
        rows.map(|row| Ok(ClaimedMessage { row: row?, token })).collect()
    }

    /// Claims the due mails to the recipient of `mail` about what an upgrade has found, written after `from`, until
    /// `patience` is over.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn claim_listed(
        &self,
        mail: &OutboxRow,
        now: Timestamp,
        patience: Duration,
        from: Timestamp,
    ) -> Result<Vec<ClaimedMessage>, StoreError> {
        let (token, args) = (Uuid::now_v7(), mail.recipient.clone());
        let rows = self.transact("mail.claim_listed", WriteLane::Rest, args, move |tx, recipient, _| {
            Box::pin(async move {
                let rows: Vec<MessageRow> = each!(tx, CLAIM_LISTED, |conn, text| sqlx::query_as(text)
                    .bind(recipient.as_str())
                    .bind(now)
                    .bind(now + patience)
                    .bind(token)
                    .bind(from)
                    .fetch_all(conn)
                    .await)?;
                Ok(rows)
            })
        });
        let rows = rows.await?.into_iter().map(OutboxRow::try_from);
        rows.map(|row| Ok(ClaimedMessage { row: row?, token })).collect()
    }

    /// When the next mail that was written after `from` is due.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn next_mail(&self, from: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let (at,): (Option<Timestamp>,) =
            urgent!(self, NEXT, |pool, text| sqlx::query_as(text).bind(from).fetch_one(pool).await)?;
        Ok(at)
    }

    /// How many mails are in which state.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn mail_counts(&self) -> Result<MailCounts, StoreError> {
        type Row = (String, bool, i64, Timestamp);
        let rows: Vec<Row> = read!(self, COUNTS, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        let mut counts = MailCounts::default();
        for (state, unaddressed, mails, oldest) in rows {
            let unknown = |_| StoreError::corrupt("outbox", "state", &state);
            match state.parse().map_err(unknown)? {
                MessageState::Waiting if unaddressed => counts.unaddressed = mails,
                MessageState::Waiting => {
                    (counts.waiting, counts.oldest_waiting) = (mails, Some(oldest));
                }
                MessageState::Sent => counts.sent += mails,
                MessageState::Failed => counts.failed += mails,
            }
        }
        Ok(counts)
    }

    /// Claims the most urgent due webhook for `target` that was written after `from` for this process alone, until `patience` is over.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn claim_webhook(
        &self,
        target: &str,
        now: Timestamp,
        patience: Duration,
        from: Timestamp,
    ) -> Result<Option<ClaimedMessage>, StoreError> {
        let token = Uuid::now_v7();
        let row =
            self.transact("webhook.claim", WriteLane::Rest, target.to_owned(), move |tx, target, unsure| {
                Box::pin(async move {
                    if unsure && let Some(row) = tx.claimed_mail(token).await? {
                        return Ok(Some(row));
                    }
                    let row: Option<MessageRow> =
                        each!(tx, CLAIM_WEBHOOK, |conn, text| sqlx::query_as(text)
                            .bind(now)
                            .bind(now + patience)
                            .bind(token)
                            .bind(target.as_str())
                            .bind(from)
                            .fetch_optional(conn)
                            .await)?;
                    Ok(row)
                })
            });
        let row = row.await?.map(OutboxRow::try_from).transpose()?;
        Ok(row.map(|row| ClaimedMessage { row, token }))
    }

    /// The waiting webhooks that were written after `from`, by target.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn webhook_lanes(&self, from: Timestamp) -> Result<Vec<Lane>, StoreError> {
        Ok(urgent!(self, LANES, |pool, text| sqlx::query_as(text).bind(from).fetch_all(pool).await)?)
    }

    /// Fails the webhooks that wait for `target` and were written until `written_by`, with the reason
    /// `why`. Returns their number. Claimed ones are left alone.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn end_webhooks(
        &self,
        target: &str,
        why: &str,
        written_by: Timestamp,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        // A repetition after a lost answer counts only the rows that are left.
        let args = (target.to_owned(), why.to_owned());
        self.transact("webhook.end", WriteLane::Rest, args, move |tx, (target, why), _| {
            Box::pin(tx.end_target(target, why, written_by, now))
        })
        .await
    }

    /// Fails a claimed webhook with its target's last reply, fails the others that wait for that target
    /// with the reason `why`, and writes `audit`. Returns the number of the others.
    ///
    /// # Errors
    /// Fails when the database cannot be written.
    pub async fn webhook_target_gone(
        &self,
        webhook: &ClaimedMessage,
        reply: &str,
        why: &str,
        audit: &[NewAudit],
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let (id, token) = (webhook.row.id.0, webhook.token);
        let reply = storable(reply).into_owned();
        let args = (webhook.row.recipient.clone(), reply, why.to_owned(), audit.to_vec());
        self.transact(
            "webhook.gone",
            WriteLane::Rest,
            args,
            move |tx, (target, reply, why, audit), unsure| {
                Box::pin(async move {
                    each!(tx, ENDED, |conn, text| sqlx::query(text)
                        .bind(id)
                        .bind(token)
                        .bind(MessageState::Failed.as_str())
                        .bind(reply.as_str())
                        .bind(now)
                        .bind(None::<Timestamp>)
                        .execute(conn)
                        .await
                        .map(drop))?;
                    // A repetition after a lost answer counts only the rows that are left.
                    let ended = tx.end_target(target, why, now, now).await?;
                    if !(unsure && tx.is_appended(audit, now).await?) {
                        tx.append_audit(audit, now).await?;
                    }
                    Ok(ended)
                })
            },
        )
        .await
    }

    /// How many webhooks of each target are in which state.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn webhook_counts(&self) -> Result<Vec<WebhookCount>, StoreError> {
        type Row = (String, String, i64);
        let rows: Vec<Row> =
            read!(self, WEBHOOK_COUNTS, |pool, text| sqlx::query_as(text).fetch_all(pool).await)?;
        let count = |(target, state, webhooks): Row| {
            let unknown = |_| StoreError::corrupt("outbox", "state", &state);
            Ok(WebhookCount { target, state: state.parse().map_err(unknown)?, webhooks })
        };
        rows.into_iter().map(count).collect()
    }
}
