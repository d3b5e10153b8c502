//! The last resort: a notice that leaves without the database, when that cannot be written.
//!
//! Every other message waits in the outbox, which is a part of the database. So when that cannot be written for long,
//! operators hear of it directly: by mail and by the webhooks that take pages, once, and once more when it is over.
//! What was told lives in memory. The reserve of an SQLite database is made again here, too.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::announce::{self, content};
use super::webhook_sender;
use crate::domain::condition::{ConditionKind, condition_id};
use crate::domain::notice::{Content, InstallationCondition, Kind, Notice};
use crate::domain::subject::Subject;
use crate::domain::time::Timestamp;
use crate::lifecycle::pause;
use crate::mail::{Letter, Smtp};
use crate::store::StoreError;
use crate::webhook::TargetResponse;

/// How often it is tried whether the database can be written.
const EVERY: Duration = Duration::from_secs(5);

/// It is told after this time with a rotation between its PATCH and its end.
const WITH_A_ROTATION: Duration = Duration::from_secs(30);

/// And after this time otherwise.
const WITHOUT: Duration = Duration::from_mins(5);

/// How often the reserve is made again.
const RESERVE_EVERY: Duration = Duration::from_mins(1);

/// The notices without the database.
#[derive(Debug)]
pub struct LastResort {
    engine: Engine,
    smtp: watch::Receiver<Option<Smtp>>,
    /// Since when the database cannot be written.
    since: Option<Timestamp>,
    /// Who has the notice of that: mail addresses and names of targets.
    told: BTreeSet<(bool, String)>,
    /// What was read when the database last answered: it may not answer any more.
    recipients: Vec<String>,
    is_rotating: bool,
    reserve_tried: Option<Timestamp>,
}

impl LastResort {
    /// Nothing is known and nobody is told yet.
    #[must_use]
    pub const fn new(engine: Engine, smtp: watch::Receiver<Option<Smtp>>) -> Self {
        Self {
            engine,
            smtp,
            since: None,
            told: BTreeSet::new(),
            recipients: Vec::new(),
            is_rotating: false,
            reserve_tried: None,
        }
    }

    /// Watches until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let writable = self.engine.readiness.is_writable().await;
            self.once(writable).await;
            pause(EVERY, &stop).await;
        }
    }

    /// Tells whether the database can be written, when that is to be told.
    pub async fn once(&mut self, is_writable: bool) {
        let now = self.engine.clock.now();
        if let Err(error) = self.remember().await {
            tracing::debug!(error = %error, "the database cannot be read");
        }
        self.make_reserve(now).await;
        if is_writable {
            self.engine.watched.set_unwritable(None);
            if let Some(since) = self.since.take() {
                for recipient in std::mem::take(&mut self.told) {
                    let _ = self.send(&recipient, since, Some(now), now).await;
                }
            }
            return;
        }
        let since = *self.since.get_or_insert(now);
        self.engine.watched.set_unwritable(Some(since));
        let borne = if self.is_rotating { WITH_A_ROTATION } else { WITHOUT };
        if now.since(since) < borne {
            return;
        }
        for recipient in self.everybody() {
            if !self.told.contains(&recipient) && self.send(&recipient, since, None, now).await {
                self.told.insert(recipient);
            }
        }
    }

    async fn remember(&mut self) -> Result<(), StoreError> {
        self.is_rotating = self.engine.store.has_rotation_after_patch().await?;
        self.recipients = self.engine.responsible().await?;
        Ok(())
    }

    async fn make_reserve(&mut self, now: Timestamp) {
        if !self.engine.store.is_short_of_room()
            || self.reserve_tried.is_some_and(|at| at <= now && now.since(at) < RESERVE_EVERY)
        {
            return;
        }
        self.reserve_tried = Some(now);
        let store = self.engine.store.clone();
        let _ = tokio::task::spawn_blocking(move || store.make_reserve()).await;
    }

    /// Mail addresses, and the targets that take the notice.
    fn everybody(&self) -> Vec<(bool, String)> {
        let mails = self.recipients.iter().map(|mail| (true, mail.clone()));
        let targets = self.engine.webhooks.all();
        let targets = targets.iter().filter(|target| target.wants(Kind::DatabaseUnwritable));
        mails.chain(targets.map(|target| (false, target.name().to_owned()))).collect()
    }

    /// Sends the start or the end to one recipient; true when it was taken.
    async fn send(
        &self,
        (is_mail, recipient): &(bool, String),
        since: Timestamp,
        over_at: Option<Timestamp>,
        now: Timestamp,
    ) -> bool {
        let content = self.content(since, over_at);
        let identity = format!(
            "{}/{since}/{}",
            self.engine.settings.daemon,
            if over_at.is_some() { "over" } else { "0" }
        );
        let said = if *is_mail {
            let Some(smtp) = self.smtp.borrow().clone() else { return false };
            let id = announce::message_id(&format!("last/{identity}/{recipient}"));
            smtp.send(&Letter::new(&content), recipient, &id, now)
                .await
                .map_err(|trouble| trouble.to_string())
        } else {
            let targets = self.engine.webhooks.all();
            let Some(target) = targets.iter().find(|it| it.name() == recipient) else { return false };
            let id = announce::webhook_id(&format!("last/{identity}"), recipient);
            match webhook_sender::send(target, &id, now, &content, now).await {
                Some(TargetResponse::Taken(said)) => Ok(said),
                Some(TargetResponse::Gone(said) | TargetResponse::Failed { said, .. }) => Err(said),
                None => Err("it takes no such notice".to_owned()),
            }
        };
        match said {
            Ok(_) => tracing::warn!(
                recipient,
                "told without the database that it cannot be written, or can be again"
            ),
            Err(ref said) => {
                tracing::error!(recipient, "not told that the database cannot be written: {said}");
            }
        }
        said.is_ok()
    }

    fn content(&self, since: Timestamp, over_at: Option<Timestamp>) -> Content {
        let condition = ConditionKind::DatabaseUnwritable;
        let subject = Subject::Daemon(self.engine.settings.daemon.clone());
        let kind = if over_at.is_some() { Kind::DatabaseUnwritableOver } else { Kind::DatabaseUnwritable };
        let cause = if self.is_rotating { "rotation_under_way" } else { "no_rotation_under_way" };
        let notice = InstallationCondition {
            kind,
            subject: subject.to_string(),
            condition,
            condition_id: condition_id(&subject, condition),
            since,
            over_at,
            cause: Some(cause.to_owned()).filter(|_| over_at.is_none()),
            detail: self.engine.readiness.last_error().filter(|_| over_at.is_none()),
            repeat: 0,
        };
        content(&self.engine.settings, Notice::Installation(notice))
    }
}
