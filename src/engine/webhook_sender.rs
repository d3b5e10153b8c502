//! The webhook sender: sends the webhooks of the outbox, a few at a time to each target.
//!
//! Each target has a lane of its own, so a slow or dead target delays no other. A webhook is retried under
//! one id on the schedule that Standard Webhooks publish. It is given up after the last attempt or after
//! five days. A target that answers 410 is disabled: its webhooks end, until somebody enables it, the configuration is read
//! again, or the one that is tried after a day is taken. Webhooks to a target that is no longer configured end with that
//! reason. Nothing here writes webhooks.
//!
//! To a service for incidents webhooks go one after another. A late start of a condition that has ended is not sent,
//! and neither is a late end of one that holds again.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::json;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::late::{Standing, standing};
use super::{ENGINE, Engine};
use crate::domain::notice::Content;
use crate::domain::time::Timestamp;
use crate::lifecycle::wait;
use crate::mail::Letter;
use crate::store::{ClaimedMessage, Lane, MessageEnd, NewAudit, OutboxRow, StoreError};
use crate::webhook::{Note, Target, TargetResponse};

/// How long a claim lasts; longer than one attempt can take.
const CLAIM: Duration = Duration::from_mins(1);

/// Attempts to one target at the same time.
const AT_ONCE: usize = 4;

/// The waits after each attempt but the last, of webhooks that are not urgent.
pub const WAITS: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(5),
    Duration::from_hours(10),
    Duration::from_hours(14),
    Duration::from_hours(20),
    Duration::from_hours(24),
];

/// After this long a webhook is given up, however few attempts it had.
const GIVE_UP: Duration = Duration::from_hours(5 * 24);

/// The longest wait that a target's `Retry-After` can request.
const LONGEST_ASKED: Duration = Duration::from_hours(24);

/// On a shared database, a daemon with an older configuration must not end the webhooks of a target that
/// was just added or fixed. Rows younger than this are left to the other daemons.
const UNKNOWN_FOR: Duration = Duration::from_mins(10);

/// A disabled target is tried with one webhook after this long, because not everybody is told when it is back.
pub const TRIED_AGAIN_AFTER: Duration = Duration::from_hours(24);

/// The longest sleep before the database is read again.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// The wait while the database cannot be read.
const PAUSE: Duration = Duration::from_secs(30);

/// The targets as they are configured now.
#[derive(Debug, Default)]
pub struct Targets(RwLock<Vec<Arc<Target>>>);

impl Targets {
    /// Replaces the targets. A target that had answered 410 is tried again.
    pub fn replace(&self, targets: Vec<Target>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = targets.into_iter().map(Arc::new).collect();
    }

    /// All targets.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Target>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The attempts under way to each target.
#[derive(Debug, Default)]
struct Lanes {
    under_way: HashMap<Id, String>,
}

impl Lanes {
    fn full(&self, target: &Target) -> bool {
        // An end must not overtake its start.
        let alone = target.format().has_incidents() || target.retired_at().is_some();
        let at_once = if alone { 1 } else { AT_ONCE };
        self.under_way.values().filter(|it| *it == target.name()).count() >= at_once
    }

    fn ended(&mut self, done: Result<(Id, ()), JoinError>) {
        let id = done.map_or_else(
            |broken| {
                tracing::error!(error = %broken, "an attempt to deliver a webhook was aborted");
                broken.id()
            },
            |(id, ())| id,
        );
        self.under_way.remove(&id);
    }
}

/// Attempts. Each runs as a task of its own. As a future of the sender's task, an attempt in a database
/// call would stand still while the sender itself waits for the database.
type UnderWay = JoinSet<()>;

/// The webhook sender.
#[derive(Debug)]
pub struct WebhookSender {
    engine: Engine,
    lanes: Lanes,
}

impl WebhookSender {
    /// A sender for the outbox and the targets of `engine`.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine, lanes: Lanes::default() }
    }

    /// Sends until `stop`; the attempts that run then are finished first.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut under_way = UnderWay::new();
        while !stop.is_cancelled() {
            let longest = self.fill(&mut under_way).await.unwrap_or_else(|error| {
                tracing::error!(error = %error, "webhooks cannot be read from the database");
                PAUSE
            });
            let wake = async {
                tokio::select! {
                    Some(done) = under_way.join_next_with_id() => self.lanes.ended(done),
                    () = self.engine.mail_due.webhooks() => {}
                }
            };
            wait(wake, longest, &stop).await;
        }
        while under_way.join_next().await.is_some() {}
    }

    /// Sends the webhooks that are due; returns the wait until the next.
    ///
    /// # Errors
    /// Fails when the database cannot be read or written.
    pub async fn round(&mut self) -> Result<Duration, StoreError> {
        let mut under_way = UnderWay::new();
        loop {
            let wait = self.fill(&mut under_way).await?;
            match under_way.join_next_with_id().await {
                Some(done) => self.lanes.ended(done),
                None => return Ok(wait),
            }
        }
    }

    /// Begins the attempts that may begin now; returns the wait until more may begin.
    async fn fill(&mut self, under_way: &mut UnderWay) -> Result<Duration, StoreError> {
        let from = self.engine.epoch.sendable_from();
        let targets = self.engine.webhooks.all();
        let mut wait = LONGEST_SLEEP;
        for lane in self.engine.store.webhook_lanes(from).await? {
            let Some(target) = targets.iter().find(|it| it.name() == lane.target) else {
                let why =
                    format!("there is no webhook target {:?} in the configuration any more", lane.target);
                self.end_old(&lane, &why).await?;
                continue;
            };
            if target.retired_at().is_some_and(|at| self.engine.clock.now().since(at) < TRIED_AGAIN_AFTER) {
                self.end_old(&lane, RETIRED).await?;
                continue;
            }
            let next = self.begin(target, &lane, under_way).await?;
            wait = wait.min(next.unwrap_or(LONGEST_SLEEP));
        }
        Ok(wait.max(Duration::from_millis(50)))
    }

    /// Begins the due attempts of one lane; returns the wait until the next, or `None` when an attempt must
    /// end first.
    async fn begin(
        &mut self,
        target: &Arc<Target>,
        lane: &Lane,
        under_way: &mut UnderWay,
    ) -> Result<Option<Duration>, StoreError> {
        let now = self.engine.clock.now();
        let next = lane.next.max(target.rests_until());
        if next > now {
            return Ok(Some(now.until(next)));
        }
        let mut begun = false;
        while !self.lanes.full(target) {
            let from = self.engine.epoch.sendable_from();
            let claimed = self.engine.store.claim_webhook(&lane.target, now, CLAIM, from).await?;
            let Some(claimed) = claimed else {
                // Another daemon was faster; the rest of this lane is read again in a second.
                return Ok((!begun).then_some(Duration::from_secs(1)));
            };
            begun = true;
            let (engine, target) = (self.engine.clone(), Arc::clone(target));
            let task = under_way.spawn(async move {
                if let Err(error) = attempt(&engine, &target, &claimed).await {
                    // The claim expires, and the webhook is sent again under the same id.
                    tracing::error!(
                        error = %error, webhook.id = %claimed.row.id,
                        "result of a webhook not recorded; it is sent again under the same id"
                    );
                }
            });
            self.lanes.under_way.insert(task.id(), lane.target.clone());
        }
        Ok(None)
    }

    /// Ends the webhooks of a lane that this daemon does not serve, once no other daemon can serve it.
    async fn end_old(&self, lane: &Lane, why: &str) -> Result<(), StoreError> {
        let now = self.engine.clock.now();
        let patience = if self.engine.store.is_shared() { UNKNOWN_FOR } else { Duration::ZERO };
        if now.since(lane.oldest) < patience {
            return Ok(());
        }
        let target = lane.target.as_str();
        let ended = self.engine.store.end_webhooks(target, why, now - patience, now).await?;
        if ended > 0 {
            self.engine.metrics.webhooks(target, "dead", ended);
            tracing::error!(webhook.target = target, webhooks = ended, "webhooks are given up: {why}");
        }
        Ok(())
    }
}

const RETIRED: &str = "the target answered 410 (Gone) and is disabled; `keywheel webhook enable` and a reload put it back into service, and one webhook a day tries it";

/// Tries one webhook.
async fn attempt(engine: &Engine, target: &Arc<Target>, claimed: &ClaimedMessage) -> Result<(), StoreError> {
    let (row, now) = (&claimed.row, engine.clock.now());
    if now.since(row.tried_since()) > GIVE_UP {
        let last = row.last_reply.as_deref().unwrap_or("it was not tried");
        return give_up(engine, claimed, &format!("not delivered within five days; last: {last}")).await;
    }
    let answer = match row.content() {
        Ok(content) => {
            if let Some(why) = outdated(engine, target, row, &content).await? {
                return engine.store.mail_ended(claimed, &MessageEnd::Unneeded, why, now).await;
            }
            let Some(answer) = send(target, &row.message_id, row.created_at, &content, now).await else {
                return give_up(engine, claimed, NO_CONDITION).await;
            };
            answer
        }
        // Retried like a failure, for a daemon of a newer version.
        Err(why) if why.is_of_a_newer_version() => {
            TargetResponse::Failed { said: why.to_string(), retry_after: None }
        }
        Err(why) => return give_up(engine, claimed, &why.to_string()).await,
    };
    let now = engine.clock.now();
    // A 410 from a target that was replaced meanwhile does not apply to the target in its place.
    let answer = match answer {
        TargetResponse::Gone(said) if !engine.webhooks.all().iter().any(|it| Arc::ptr_eq(it, target)) => {
            TargetResponse::Failed { said, retry_after: None }
        }
        answer => answer,
    };
    match answer {
        TargetResponse::Taken(said) => {
            engine.metrics.webhooks(target.name(), "sent", 1);
            if target.revive() {
                engine.conditions_due.notify_one();
                tracing::info!(
                    webhook.target = target.name(),
                    "a disabled webhook target is back in service"
                );
            }
            engine.store.mail_ended(claimed, &MessageEnd::Sent, &said, now).await
        }
        TargetResponse::Gone(said) => gone(engine, target, claimed, &said).await,
        TargetResponse::Failed { said, retry_after } => {
            let asked = retry_after.map(|wait| wait.min(LONGEST_ASKED));
            if let Some(wait) = asked {
                target.rest(now + wait);
            }
            // A page is tried again soon, for as long as it may matter.
            let page = row.urgency().wait_after(row.attempts);
            let plain = usize::try_from(row.attempts - 1).ok().and_then(|tried| WAITS.get(tried).copied());
            let next = page.or(plain).map(|wait| now + wait.max(asked.unwrap_or_default()));
            match next.filter(|next| next.since(row.tried_since()) <= GIVE_UP) {
                None => give_up(engine, claimed, &said).await,
                Some(next) => {
                    tracing::warn!(
                        webhook.id = %row.id, webhook.target = target.name(), webhook.kind = %row.kind,
                        attempt = row.attempts, next = %next, "a webhook was not delivered: {said}"
                    );
                    engine.metrics.webhooks(target.name(), "failed", 1);
                    engine.store.mail_ended(claimed, &MessageEnd::Again(next), &said, now).await
                }
            }
        }
    }
}

/// The reason not to send a late webhook to a service for incidents: nothing would close what it opens, or it
/// would close what holds again.
async fn outdated(
    engine: &Engine,
    target: &Target,
    row: &OutboxRow,
    content: &Content,
) -> Result<Option<&'static str>, StoreError> {
    if !target.format().has_incidents() {
        return Ok(None);
    }
    Ok(match standing(engine, &content.notice, row.created_at).await? {
        Standing::Current => None,
        Standing::Over => Some(OVER),
        Standing::HoldsAgain => Some(HOLDS_AGAIN),
    })
}

const OVER: &str = "not sent: the condition ended before, and nothing would close the incident";
const HOLDS_AGAIN: &str = "not sent: the condition holds again, and its incident stays open";
const NO_CONDITION: &str = "the target opens and closes incidents, and this message tells no condition; send it to a target of another format (keywheel outbox list shows it)";

/// Sends to `target`, with the text of the mail about the same notice; `None` when the target takes no such notice.
pub(super) async fn send(
    target: &Target,
    id: &str,
    at: Timestamp,
    content: &Content,
    now: Timestamp,
) -> Option<TargetResponse> {
    let letter = Letter::new(content);
    let note = Note {
        id,
        at,
        server: &content.server,
        notice: &content.notice,
        title: &letter.subject,
        paragraphs: &letter.paragraphs,
        facts: &letter.facts,
    };
    target.send(&note, now).await
}

async fn give_up(engine: &Engine, claimed: &ClaimedMessage, said: &str) -> Result<(), StoreError> {
    let row = &claimed.row;
    tracing::error!(
        webhook.id = %row.id, webhook.target = %row.recipient, webhook.kind = %row.kind,
        "a webhook is given up after {} attempts: {said}", row.attempts
    );
    engine.metrics.webhooks(&row.recipient, "dead", 1);
    engine.store.mail_ended(claimed, &MessageEnd::Failed, said, engine.clock.now()).await
}

/// Disables a target that answered 410, and ends all its waiting webhooks.
async fn gone(
    engine: &Engine,
    target: &Target,
    claimed: &ClaimedMessage,
    said: &str,
) -> Result<(), StoreError> {
    let now = engine.clock.now();
    if !target.retire(now) {
        return give_up(engine, claimed, said).await;
    }
    let audit = NewAudit {
        actor: ENGINE.to_owned(),
        action: "webhook.disabled".to_owned(),
        subject: format!("webhook/{}", target.name()),
        detail: json!({ "reply": said, "webhook": claimed.row.message_id }).to_string(),
    };
    let written = engine.store.webhook_target_gone(claimed, said, RETIRED, &[audit], now).await;
    let others = written.inspect_err(|_| _ = target.revive())?;
    engine.conditions_due.notify_one();
    engine.metrics.webhooks(target.name(), "dead", others + 1);
    tracing::error!(
        webhook.target = target.name(),
        webhooks = others + 1,
        "a webhook target answered 410 and is disabled: {said}; remove it, or fix it and run `keywheel webhook enable {}`",
        target.name()
    );
    Ok(())
}
