//! Emergency rotations: who may propose one, and the review that each leaves open until another person closes it.
//!
//! What an emergency changes are its rules (`domain/emergency.rs`); from its proposal on it is a rotation as any other.

use serde_json::json;

use super::Engine;
use super::authority::{plain, rows, together};
use super::command::loosening::lasting_owners;
use super::command::{Actor, CommandError, check_words, votes};
use super::settling::{delays, unreadable};
use crate::domain::approver::{Named, Strength};
use crate::domain::emergency::Emergency;
use crate::domain::ids::RotationId;
use crate::domain::notice::{Authority, Kind};
use crate::domain::project::Project;
use crate::domain::text::visible;
use crate::domain::vote::{Ballot, Identity};
use crate::store::{NewAudit, NewOutbox, Review, RotationRow, StoreError};

/// The name of the field, in errors.
const REASON: &str = "reason";

impl Engine {
    /// What the person is known by who may propose an emergency rotation of this project.
    ///
    /// # Errors
    /// Says whom the policy names, from when on a new identity may, and which review is open.
    pub(super) async fn in_emergency(
        &self,
        actor: &str,
        project: &Project,
        reason: Option<&str>,
    ) -> Result<Vec<String>, CommandError> {
        if reason.is_none_or(|it| it.trim().is_empty()) {
            let rule = "an emergency needs one, for those who review it".to_owned();
            return Err(CommandError::Invalid { field: REASON, rule });
        }
        let emergency = project.policy(&self.settings.policy).emergency;
        let identity = self.store.sound_identities(&self.settings.issuers).await?.remove(actor);
        let identity = self.named(actor, identity, project, &emergency).await?;
        let recorded = self.store.recorded_settings().await?;
        let (delays, now) = (delays(self), self.clock.now());
        let settling = delays.settling(&recorded).map_err(unreadable)?;
        let span = delays.loosen_after(&recorded).map_err(unreadable)?;
        if let Some(from) = identity.counts_from(settling, span).filter(|from| now < *from) {
            return Err(CommandError::NoEmergency(format!(
                "{actor} was made, got its role or was given to another person less than {span} before; it may propose one from {from} on"
            )));
        }
        let people = self.tied(actor, people(&identity)).await?;
        let reviews = self.store.reviews().await?;
        match reviews.iter().find(|it| it.is_open() && it.is_of(actor, &people)) {
            Some(earlier) => Err(CommandError::ReviewOpen(earlier.rotation_id)),
            None => Ok(people),
        }
    }

    /// The addresses and names in `people`, and those that this identity was, or is to be, separated from.
    async fn tied(&self, actor: &str, mut people: Vec<String>) -> Result<Vec<String>, StoreError> {
        let ties = self.store.electorate(&self.settings.issuers).await?.ties;
        people.extend(ties.into_iter().filter(|it| it.identity == actor).map(|it| it.address));
        Ok(people)
    }

    async fn named(
        &self,
        actor: &str,
        identity: Option<Identity>,
        project: &Project,
        emergency: &Emergency,
    ) -> Result<Identity, CommandError> {
        if emergency.by.is_empty() {
            return Err(CommandError::NoEmergency(
                "the policy names nobody who may propose one (policy.emergency.by); propose the rotation without it"
                    .to_owned(),
            ));
        }
        let owners = if emergency.by.iter().any(|it| it.who == Named::Owners) {
            lasting_owners(self, project).await?
        } else {
            Vec::new()
        };
        let is_named = |it: &Identity| {
            emergency.by.iter().any(|entry| entry.who.names(it.person.as_deref(), &it.groups, &owners))
        };
        let has_person = identity.as_ref().is_some_and(|it| it.person.is_some());
        if let Some(identity) = identity.filter(is_named) {
            return Ok(identity);
        }
        let hint = if has_person { "" } else { "; nobody is named as the person of this identity" };
        Err(CommandError::NoEmergency(format!(
            "the policy names who may propose one ({}), and {actor} is not among them{hint}; propose the rotation without it",
            emergency.names()
        )))
    }

    /// The reviews of emergency rotations, the oldest first.
    ///
    /// # Errors
    /// Fails when they are not what Keywheel wrote, and when the database cannot be read.
    pub async fn reviews(&self) -> Result<Vec<Review>, StoreError> {
        self.store.reviews().await
    }

    /// Why `actor` may not close this review; `None` when he may.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn may_not_close(&self, actor: &str, review: &Review) -> Result<Option<String>, CommandError> {
        let row = self.rotation(review.rotation_id).await?;
        if !row.rotation.state.is_final() {
            return Ok(Some(format!(
                "the rotation is {}; its review is closed after its end",
                row.rotation.state.as_str().replace('_', " ")
            )));
        }
        let identities = self.store.sound_identities(&self.settings.issuers).await?;
        let people = identities.get(actor).map(people).unwrap_or_default();
        let ballot = votes::ballot(self, &row, Some(actor)).await?;
        if review.is_of(actor, &people) || ballot.one_person(actor, &review.requested_by).is_some() {
            return Ok(Some("you proposed this rotation; another person closes its review".to_owned()));
        }
        // Who may close it is somebody whose vote would count, not only whom the policy names.
        let anybody = Ballot {
            approvers: Vec::new(),
            least: Strength::Link,
            self_approval: false,
            votes: Vec::new(),
            excluded: Vec::new(),
            ..ballot
        };
        Ok(anybody
            .refusal(actor, Strength::Session, None)
            .map(|why| format!("a vote of yours would not count: {why}")))
    }

    /// Closes the review of an emergency rotation.
    ///
    /// # Errors
    /// Refuses who proposed it, a rotation that is under way, and a closed review; fails when the database cannot be written.
    pub async fn close_review(
        &self,
        actor: Actor<'_>,
        id: RotationId,
        finding: &str,
    ) -> Result<Review, CommandError> {
        check_words("finding", Some(finding))?;
        if finding.trim().is_empty() {
            let rule = "say what you found, for the audit log".to_owned();
            return Err(CommandError::Invalid { field: "finding", rule });
        }
        let review = self.store.reviews().await?.into_iter().find(|it| it.rotation_id == id);
        let review = review.ok_or(CommandError::NoReview(id))?;
        if let (Some(by), Some(at)) = (&review.closed_by, review.closed_at) {
            return Err(CommandError::ReviewNotClosed(format!("{by} has closed this review at {at}")));
        }
        if let Some(why) = self.may_not_close(actor.name, &review).await? {
            return Err(CommandError::ReviewNotClosed(why));
        }
        let now = self.clock.now();
        let closed = Review {
            closed_by: Some(actor.name.to_owned()),
            closed_at: Some(now),
            finding: Some(finding.trim().to_owned()),
            ..review
        };
        let audit = NewAudit {
            actor: actor.name.to_owned(),
            action: "review.closed".to_owned(),
            subject: format!("rotation/{id}"),
            detail: json!({ "finding": closed.finding, "requestedBy": closed.requested_by }).to_string(),
        };
        let people = together(&self.store.owners(&closed.group_id).await?, &self.hears_of_people().await?);
        let facts = Authority {
            detail: closed.finding.as_ref().map(|it| format!("They wrote: {it}")),
            ..about(&closed, Kind::ReviewClosed, actor.name)
        };
        let outbox = rows(self, &format!("{id}/review_closed"), facts, &people, now);
        self.store.close_review(&closed, audit, &outbox, now).await?;
        self.mail_due.notify_one();
        Ok(closed)
    }

    /// The review that an emergency rotation opens, and the messages that tell owners and `mail.security` of it.
    pub(super) async fn opened_review(
        &self,
        row: &RotationRow,
        people: Vec<String>,
    ) -> Result<(Review, Vec<NewOutbox>), StoreError> {
        let (it, now) = (&row.rotation, row.rotation.created_at);
        let review = Review {
            rotation_id: it.id,
            group_id: it.group_id.clone(),
            project_name: row.project_name.clone(),
            requested_by: row.requested_by.clone(),
            people,
            reason: row.reason.clone().unwrap_or_default(),
            requested_at: now,
            closed_by: None,
            closed_at: None,
            finding: None,
        };
        let told = together(&self.store.owners(&it.group_id).await?, &self.hears_of_people().await?);
        let needed = it.rules.policy.approvals;
        let facts = Authority {
            detail: Some(format!(
                "Reason: {}. From {} to {}. It takes {needed} {} and waits for no window.",
                visible(review.reason.trim_end_matches('.')),
                it.old_key,
                it.new_key,
                if needed == 1 { "approval" } else { "approvals" }
            )),
            ..about(&review, Kind::EmergencyRequested, &review.requested_by)
        };
        let outbox = rows(self, &format!("{}/emergency_requested", it.id), facts, &told, now);
        Ok((review, outbox))
    }
}

/// What an identity's person is known by.
fn people(identity: &Identity) -> Vec<String> {
    identity.people().cloned().collect()
}

fn about(it: &Review, kind: Kind, by: &str) -> Authority {
    let at = it.closed_at.unwrap_or(it.requested_at);
    Authority {
        group_id: Some(it.group_id.clone()),
        project_name: Some(it.project_name.clone()),
        rotation_id: Some(it.rotation_id),
        ..plain(kind, it.group_id.to_string(), by, at)
    }
}
