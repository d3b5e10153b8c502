//! The mail sender: sends the mails of the outbox, one at a time, the most urgent first.
//!
//! A mail is tried until the server accepts it, refuses its recipient for good, or five days are over. The
//! server's reply is stored word for word. A failure that every other mail would meet pauses the round instead of
//! being repeated for each. Nothing here writes mails, and a server that hangs delays only mail.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::authority::{plain, rows};
use super::late::{Leave, leave};
use super::upgrade;
use crate::domain::notice::{Authority, Content, Kind, Notice, Urgency};
use crate::domain::time::Timestamp;
use crate::lifecycle::{pause, wait};
use crate::mail::{Letter, Phase, Smtp, Trouble};
use crate::store::{ClaimedMessage, MessageEnd, OutboxRow, StoreError, UnreadableMessage};

/// How long a claim lasts; longer than one attempt can take.
const CLAIM: Duration = Duration::from_mins(5);

/// After this long a mail is given up (RFC 5321 asks for four to five days).
const GIVE_UP: Duration = Duration::from_secs(5 * 86_400);

/// The longest sleep before the database is read again.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Mails about conditions of one kind that one recipient gets by themselves in [`LIST_EVERY`]; more become a list.
const SINGLES: i64 = 3;

/// See [`SINGLES`].
const LIST_EVERY: Duration = Duration::from_mins(10);

/// The projects that a mail about a refused address names.
const NAMED: usize = 5;

/// More owners beside a refused address than this are not told of it one by one.
const CROWD: usize = 20;

/// The wait after a failure that every other mail would meet too.
const PAUSE: Duration = Duration::from_secs(10);

/// Refusals of the sender at a recipient pause the round once in this time. Servers refuse single recipients in the same
/// words, and many of those must not keep a page from the others.
const PAUSE_EVERY: Duration = Duration::from_mins(1);

/// The wait after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing is due for this long, unless a mail is written.
    Until(Duration),
    /// No server is configured, or the server or the database failed: wait for
    /// ten seconds.
    Pause,
}

/// The mail sender.
#[derive(Debug)]
pub struct MailSender {
    engine: Engine,
    smtp: watch::Receiver<Option<Smtp>>,
    pace: Arc<DefaultDirectRateLimiter>,
    /// See [`PAUSE_EVERY`].
    paused_at: Mutex<Option<Timestamp>>,
}

/// The wait before attempt `attempts + 1`. Greylisting needs a quick second try; later attempts follow
/// every half hour, of urgent mails every five minutes.
fn backoff(urgency: Urgency, attempts: i64) -> Duration {
    if let Some(wait) = urgency.wait_after(attempts) {
        return wait;
    }
    match attempts {
        ..=1 => Duration::from_mins(1),
        2 => Duration::from_mins(5),
        _ => Duration::from_mins(30),
    }
}

/// What an address owns, as a sentence.
fn owner_of(projects: &[String]) -> String {
    match projects {
        [] => "It owns no project.".to_owned(),
        all if all.len() > NAMED => {
            format!("It owns {} and {} more.", all[..NAMED].join(", "), all.len() - NAMED)
        }
        all => format!("It owns {}.", all.join(", ")),
    }
}

impl MailSender {
    /// Sends through the current `smtp`, at most `per_minute` mails a minute. Without a server, mails stay
    /// in the outbox.
    #[must_use]
    pub fn new(engine: Engine, smtp: watch::Receiver<Option<Smtp>>, per_minute: NonZeroU32) -> Self {
        let pace = Arc::new(RateLimiter::direct(Quota::per_minute(per_minute)));
        Self { engine, smtp, pace, paused_at: Mutex::default() }
    }

    /// Sends until `stop`; the attempt that runs then is finished first.
    pub async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let rest = self.round(&stop).await.unwrap_or_else(|error| {
                tracing::error!(error = %error, "mails cannot be read from the database");
                Rest::Pause
            });
            match rest {
                Rest::Until(longest) => wait(self.engine.mail_due.mail(), longest, &stop).await,
                Rest::Pause => pause(PAUSE, &stop).await,
            }
        }
    }

    /// Sends the mails that are due; returns the wait until the next.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub async fn round(&self, stop: &CancellationToken) -> Result<Rest, StoreError> {
        let (store, clock) = (&self.engine.store, &self.engine.clock);
        let smtp = self.smtp.borrow().clone();
        let Some(smtp) = smtp else { return Ok(Rest::Pause) };
        let from = self.engine.epoch.sendable_from();
        while !stop.is_cancelled() {
            let due = store.next_mail(from).await?.filter(|at| *at <= clock.now());
            if due.is_none() {
                break;
            }
            if self.pace.check().is_err() {
                return Ok(Rest::Until(Duration::from_secs(1)));
            }
            let Some(mail) = store.claim_mail(clock.now(), CLAIM, from).await? else { break };
            if !self.deliver(&smtp, &mail).await? {
                return Ok(Rest::Pause);
            }
        }
        // What keeps others from hearing of an address keeps no mail back.
        if let Err(error) = self.tell_refusals().await {
            tracing::error!(error = %error, "nobody is told of refused addresses; tried again in the next round");
        }
        let next = store.next_mail(from).await?;
        let wait = next.map_or(LONGEST_SLEEP, |at| clock.now().until(at));
        Ok(Rest::Until(wait.clamp(Duration::from_millis(50), LONGEST_SLEEP)))
    }

    /// Tries one mail; false when the server failed and the round must pause.
    async fn deliver(&self, smtp: &Smtp, mail: &ClaimedMessage) -> Result<bool, StoreError> {
        let (row, now) = (&mail.row, self.engine.clock.now());
        if now.since(row.tried_since()) > GIVE_UP {
            let last = row.last_reply.as_deref().unwrap_or("no mail server was configured");
            let said = format!("not sent within five days; last: {last}");
            tracing::error!(mail.id = %row.id, mail.kind = %row.kind, "a mail is given up: {said}");
            self.engine.store.mail_ended(mail, &MessageEnd::Failed, &said, now).await?;
            return Ok(true);
        }
        let content = match row.content() {
            Ok(content) => content,
            Err(why) => return self.unreadable(mail, &why, now).await.map(|()| true),
        };
        if !self.leaves(mail, &content).await? {
            return Ok(true);
        }
        if content.notice.kind().tells_condition()
            && let Some(go_on) = self.deliver_like(smtp, mail, &content).await?
        {
            return Ok(go_on);
        }
        let mut letter = Letter::new(&content);
        if let Notice::ApprovalRequested(it) = &content.notice {
            match self.engine.link_for(it.rotation.rotation_id, &row.recipient).await {
                Ok(link) => letter = link.iter().fold(letter, |letter, link| letter.answered_by(link)),
                Err(error) => {
                    tracing::warn!(mail.id = %row.id, error = %error, "a mail leaves without a link");
                }
            }
        }
        let letter = self.with_ended_entry(letter, &content, row).await;
        let sent = smtp.send(&letter, &row.recipient, &row.message_id, now).await;
        let now = self.engine.clock.now();
        self.engine.metrics.mail(match &sent {
            Ok(_) => "sent",
            Err(trouble) if trouble.is_final() => "failed",
            Err(_) => "put_off",
        });
        let (end, said, go_on) = match sent {
            Ok(said) => (MessageEnd::Sent, said, true),
            Err(trouble) => self.failed(mail, &trouble),
        };
        self.engine.store.mail_ended(mail, &end, &said, now).await?;
        Ok(go_on)
    }

    /// Tells others of each address that was refused, once: the owners beside it, else those of `mail.security`, else
    /// those who look after the installation. Without any of them it stays untold.
    async fn tell_refusals(&self) -> Result<(), StoreError> {
        let (engine, store, now) = (&self.engine, &self.engine.store, self.engine.clock.now());
        for refused in store.untold_refusals().await? {
            let mut people = store.owners_beside(&refused.address).await?;
            // An address that stands beside a crowd is a list: those who look after the installation see to it.
            if people.is_empty() || people.len() > CROWD {
                people.clone_from(&engine.settings.security);
                people.retain(|it| !it.eq_ignore_ascii_case(&refused.address));
            }
            if people.is_empty() {
                people = engine.responsible().await?;
                people.retain(|it| !it.eq_ignore_ascii_case(&refused.address));
            }
            if people.is_empty() {
                continue;
            }
            let owned = store.owned_by(&refused.address).await?;
            let facts = Authority {
                detail: Some(format!("{} The mail server says: {}", owner_of(&owned), refused.reply)),
                ..plain(Kind::AddressRefused, refused.address.clone(), "the mail server", refused.since)
            };
            let identity = format!("address_refused/{}/{}", refused.address, refused.since);
            let messages = rows(engine, &identity, facts, &people, now);
            store.tell_refusal(&refused.address, messages, now).await?;
        }
        Ok(())
    }

    /// The letter, which ends the calendar entry of the key that a rotation has replaced, where the recipient has one.
    async fn with_ended_entry(&self, letter: Letter, content: &Content, row: &OutboxRow) -> Letter {
        let (Notice::Completed(it) | Notice::Accepted(it) | Notice::Closed(it) | Notice::Superseded(it)) =
            &content.notice
        else {
            return letter;
        };
        let key = it.old_key.to_string();
        match self.engine.store.was_reminded_of(&it.group_id, &key, &row.recipient).await {
            Ok(true) => letter.ending_entry(it, row.created_at),
            Ok(false) => letter,
            Err(error) => {
                tracing::warn!(mail.id = %row.id, error = %error, "a mail leaves without the end of its calendar entry");
                letter
            }
        }
    }

    /// Whether this mail leaves now; puts it off while its project is silenced, and ends one that nobody needs after.
    async fn leaves(&self, mail: &ClaimedMessage, content: &Content) -> Result<bool, StoreError> {
        let (store, now) = (&self.engine.store, self.engine.clock.now());
        match leave(&self.engine, &mail.row, content, now).await? {
            Leave::Now => Ok(true),
            Leave::At(at, said) => {
                store.mail_ended(mail, &MessageEnd::Again(at), &said, now).await.map(|()| false)
            }
            Leave::Never(why) => {
                store.mail_ended(mail, &MessageEnd::Unneeded, why, now).await.map(|()| false)
            }
        }
    }

    /// When the next list of mails like this one leaves, where as many have left by themselves as may.
    async fn list_at(&self, mail: &ClaimedMessage) -> Result<Option<Timestamp>, StoreError> {
        let since = self.engine.clock.now() - LIST_EVERY;
        let (projects, first) = self.engine.store.sent_like(&mail.row, since).await?;
        Ok(first.filter(|_| projects >= SINGLES).map(|first| first + LIST_EVERY))
    }

    /// Sends mails about several conditions as one list, or puts them off after [`SINGLES`]; `None` when this mail is
    /// to be sent by itself.
    async fn deliver_like(
        &self,
        smtp: &Smtp,
        mail: &ClaimedMessage,
        content: &Content,
    ) -> Result<Option<bool>, StoreError> {
        let (store, now, from) =
            (&self.engine.store, self.engine.clock.now(), self.engine.epoch.sendable_from());
        let listed = upgrade::list_of(&self.engine, &mail.row).await?;
        let others = if let Some(written) = listed {
            let before = written - Duration::from_micros(1);
            store.claim_listed(&mail.row, now, CLAIM, from.max(before)).await?
        } else {
            if let Some(until) = self.list_at(mail).await? {
                let said = format!(
                    "{SINGLES} mails of this kind have left within ten minutes; the next is one list at {until}"
                );
                store.mail_ended(mail, &MessageEnd::Again(until), &said, now).await?;
                return Ok(Some(true));
            }
            if store.waiting_like(&mail.row, now, from).await? < SINGLES {
                return Ok(None);
            }
            store.claim_like(&mail.row, now, CLAIM, from).await?
        };
        let mut claimed = Vec::new();
        for other in others {
            let leaves = match other.row.content() {
                Ok(content) => self.leaves(&other, &content).await?,
                Err(_) => true,
            };
            if leaves {
                claimed.push(other);
            }
        }
        claimed.sort_by_key(|mail| mail.row.id);
        if claimed.is_empty() && listed.is_none() {
            return Ok(None);
        }
        let more = claimed.iter().filter_map(|mail| mail.row.content().ok());
        let contents: Vec<_> = std::iter::once(content.clone()).chain(more).collect();
        let letter =
            if listed.is_some() { Letter::found_at_upgrade(&contents) } else { Letter::list(&contents) };
        let Some(letter) = letter else { return Ok(None) };
        let sent = smtp.send(&letter, &mail.row.recipient, &mail.row.message_id, now).await;
        let mut go_on = true;
        for mail in std::iter::once(mail).chain(&claimed) {
            let (end, said, again) = match &sent {
                // One that cannot be read is found by itself at its next attempt.
                Ok(_) if mail.row.content().is_err() => {
                    (MessageEnd::Again(now), "not in the list".to_owned(), true)
                }
                Ok(said) => (MessageEnd::Sent, said.clone(), true),
                Err(trouble) => self.failed(mail, trouble),
            };
            go_on &= again;
            self.engine.metrics.mail(match &end {
                MessageEnd::Sent | MessageEnd::Unneeded => "sent",
                MessageEnd::Failed | MessageEnd::Refused => "failed",
                MessageEnd::Again(_) => "put_off",
            });
            store.mail_ended(mail, &end, &said, self.engine.clock.now()).await?;
        }
        Ok(Some(go_on))
    }

    /// Sets a mail aside that cannot be rendered. A mail of a kind that only a newer version can render is
    /// retried until [`GIVE_UP`], for a daemon of that version.
    async fn unreadable(
        &self,
        mail: &ClaimedMessage,
        why: &UnreadableMessage,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (kind, newer) = (&mail.row.kind, why.is_of_a_newer_version());
        tracing::error!(mail.id = %mail.row.id, mail.kind = %kind, again = newer, "a mail cannot be rendered: {why}");
        self.engine.metrics.mail(if newer { "put_off" } else { "failed" });
        let end = if newer {
            MessageEnd::Again(now + backoff(mail.row.urgency(), mail.row.attempts))
        } else {
            MessageEnd::Failed
        };
        self.engine.store.mail_ended(mail, &end, &why.to_string(), now).await
    }

    fn failed(&self, mail: &ClaimedMessage, trouble: &Trouble) -> (MessageEnd, String, bool) {
        let (row, said) = (&mail.row, trouble.to_string());
        if trouble.is_final() {
            tracing::error!(
                mail.id = %row.id, mail.kind = %row.kind,
                "the mail server refuses a mail for good: {said}; {}", trouble.way_out()
            );
            return (MessageEnd::Refused, said, true);
        }
        let at = self.engine.clock.now() + backoff(row.urgency(), row.attempts);
        tracing::warn!(
            mail.id = %row.id, mail.kind = %row.kind, attempt = row.attempts, next = %at,
            "a mail was not sent: {said}; {}", trouble.way_out()
        );
        (MessageEnd::Again(at), said, !self.pauses(trouble))
    }

    fn pauses(&self, trouble: &Trouble) -> bool {
        if !trouble.pauses() || !matches!(trouble.phase, Phase::Recipient | Phase::Message) {
            return trouble.pauses();
        }
        let now = self.engine.clock.now();
        let mut paused_at = self.paused_at.lock().unwrap_or_else(PoisonError::into_inner);
        let pauses = paused_at.is_none_or(|at| now.since(at) >= PAUSE_EVERY);
        if pauses {
            *paused_at = Some(now);
        }
        pauses
    }
}
