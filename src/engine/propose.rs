//! Proposals: a new key for a project, from an operator, an event or the poll, checked before approvals
//! are requested.
//!
//! A proposal is compared with a fresh observation, and the pre-flight checklist is run. Only then is a
//! rotation written, with the messages that request approvals. The same proposal again is no error and
//! creates no second rotation. The API decides which roles may propose.

use std::sync::PoisonError;
use std::time::Duration;

use serde_json::{Value, json};

use super::command::loosening::lasting_owners;
use super::command::{CommandError, check_words};
use super::preflight::Subject;
use super::step::{self, Said};
use super::{Engine, announce, preflight};
use crate::atlas::AtlasApi;
use crate::domain::approver::Named;
use crate::domain::day::Planned;
use crate::domain::emergency::EMERGENCY;
use crate::domain::ids::{GroupId, RotationId};
use crate::domain::key::{KeyError, KeyRef};
use crate::domain::notice::Notice;
use crate::domain::policy::{MOST_APPROVALS, Policy, Rules, proposal_hash, proposal_mark};
use crate::domain::preflight::{Check, CheckName, Verdict, failed};
use crate::domain::project::Project;
use crate::domain::rotation::journal::JournalKind;
use crate::domain::rotation::machine::{Step, next};
use crate::domain::rotation::outcome::{Command, Observation, Outcome};
use crate::domain::rotation::state::{Proposal, Rotation, State};
use crate::domain::time::{Span, Timestamp};
use crate::store::{
    NewApproval, NewAudit, NewJournal, NewRotation, OWN_APPROVAL, RotationRow, StoreError, Vote,
};

/// Result of a proposal.
#[derive(Debug)]
pub enum Proposed {
    /// A new rotation.
    Created(RotationRow),
    /// The same proposal is open already.
    Same(RotationRow),
    /// A dry run: the rotation that would be proposed.
    Checked {
        /// The key Atlas holds.
        old_key: KeyRef,
        /// The key that would be proposed.
        new_key: KeyRef,
        /// When it would be sent at the earliest, where a date was asked for.
        planned_for: Option<Timestamp>,
        /// The pre-flight checklist.
        checks: Vec<Check>,
    },
}

/// What is proposed.
#[derive(Clone, Debug)]
pub struct NewProposal {
    /// The new key.
    pub new_key: KeyRef,
    /// Why, for the approvers and the audit log.
    pub reason: Option<String>,
    /// The new key is not sent before this date.
    pub planned: Option<Planned>,
    /// It is an emergency: fewer people approve, and it waits for no window.
    pub emergency: bool,
    /// Check everything and propose nothing.
    pub dry_run: bool,
}

/// The furthest date that a proposal can carry: a quarter. Who approves should still remember it on the day.
pub const FURTHEST: Span = Span::from_days(92);

/// The proposer and the trigger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proposer<'a> {
    /// The identity in journal and audit log.
    pub(super) actor: &'a str,
    /// `operator`, `hook:NAME` or `poll`.
    pub(super) trigger: &'a str,
    /// The key service calls the new key a newer, usable version of the one in force.
    pub(super) confirmed: bool,
    /// A hook's sender has requested exactly this key.
    pub(super) requested: bool,
    /// The observation that led to the proposal.
    pub(super) seen: Option<&'a Observation>,
}

/// Longest age of the observation under a proposal. The PATCH is preceded by an observation of its own.
const FRESH: Duration = Duration::from_secs(10);

/// The actor of approvals that the policy gives.
const POLICY: &str = "policy:auto_approve";
/// The policy approves at most one rotation of a project in this time.
const OWN_APPROVALS_APART: Duration = Duration::from_hours(24);

/// Whose approval a proposal needs.
#[derive(PartialEq)]
enum Consent {
    /// An approver's. Where the policy names the trigger, with the reason why the policy does not approve.
    OfPeople(Option<String>),
    /// The policy's.
    OfPolicy,
}

/// Whether the policy may not approve with this check. `SharedKey` is exempt when it was not checked: a
/// project without an environment has nothing to compare.
fn wants_people(check: &Check) -> bool {
    match check.result {
        Verdict::Pass => false,
        Verdict::NotChecked => check.name != CheckName::SharedKey,
        Verdict::Warn | Verdict::Fail => true,
    }
}

/// The refusal of a project whose block names no key.
pub(super) fn not_encrypted() -> CommandError {
    CommandError::Preflight(
        "Atlas does not encrypt this project with a customer-managed key; enable encryption at rest in Atlas first"
            .to_owned(),
    )
}

impl Engine {
    /// Proposes to move a project to `new_key`.
    ///
    /// # Errors
    /// Names the check that failed. The same proposal again is no error.
    pub async fn propose(
        &self,
        actor: &str,
        group: &GroupId,
        new_key: KeyRef,
        reason: Option<String>,
        dry_run: bool,
    ) -> Result<Proposed, CommandError> {
        let ask = NewProposal { new_key, reason, planned: None, emergency: false, dry_run };
        self.propose_on(actor, group, ask).await
    }

    /// [`Engine::propose`] with a date before which nothing is sent, or as an emergency.
    ///
    /// # Errors
    /// As [`Engine::propose`], for a date that is over or further ahead than [`FURTHEST`], and for an emergency that `actor`
    /// may not propose.
    pub async fn propose_on(
        &self,
        actor: &str,
        group: &GroupId,
        ask: NewProposal,
    ) -> Result<Proposed, CommandError> {
        let trigger = if ask.emergency { EMERGENCY } else { "operator" };
        let proposer = Proposer { actor, trigger, confirmed: false, requested: false, seen: None };
        self.propose_as(proposer, group, ask).await
    }

    /// [`Engine::propose`] for any proposer and trigger.
    pub(super) async fn propose_as(
        &self,
        proposer: Proposer<'_>,
        group: &GroupId,
        NewProposal { new_key, reason, planned, emergency, dry_run }: NewProposal,
    ) -> Result<Proposed, CommandError> {
        check_words("reason", reason.as_deref())?;
        let project =
            self.store.project(group).await?.ok_or_else(|| CommandError::NoProject(group.clone()))?;
        let seen = match proposer.seen.filter(|seen| self.clock.now().since(seen.at) <= FRESH) {
            Some(seen) => seen.clone(),
            None => self.read(&project).await?,
        };
        let policy = project.policy(&self.settings.policy);
        let emergency = self.asked_emergency(emergency, planned, proposer.actor, &project, reason.as_deref());
        let emergency = Box::pin(emergency).await?;
        let planned_for = planned.map(|it| date(it, &policy, self.clock.now())).transpose()?;
        let (Some(provider), Some(old_key)) = (seen.provider, seen.key.clone()) else {
            return Err(not_encrypted());
        };
        new_key.check_provider(provider).map_err(CommandError::KeyInvalid)?;
        if let Some(open) = project.open_rotation {
            let row = self.rotation(open.id).await?;
            // A date that was asked for must be the one that people approve.
            let same_date = planned_for.is_none() || planned_for == row.rotation.rules.planned_for;
            let same_kind = emergency.is_some() == (row.trigger == EMERGENCY);
            return if same_date && same_kind && new_key.is_same(&row.rotation.new_key, &seen.place) {
                Ok(Proposed::Same(row))
            } else {
                Err(CommandError::RotationOpen { id: open.id, state: open.state })
            };
        }
        if old_key.is_versionless() && !policy.allow_versionless {
            return Err(CommandError::Versionless(Box::new(old_key)));
        }
        if new_key.is_versionless() && !policy.allow_versionless {
            return Err(CommandError::KeyInvalid(KeyError {
                rule: "versionless",
                message: format!(
                    "{new_key} names no version; give the full versioned URL, or set allowVersionless in this project's policy"
                ),
            }));
        }
        if new_key.is_same(&old_key, &seen.place) {
            return Err(CommandError::KeyUnchanged(Box::new(old_key)));
        }
        new_key.check_place(&seen.place).map_err(CommandError::KeyOtherPlace)?;
        let checks = self.preflight(&project, &seen, (&old_key, &new_key)).await?;
        if dry_run {
            return Ok(Proposed::Checked { old_key, new_key, planned_for, checks });
        }
        if let Some(failed) = failed(&checks) {
            return Err(CommandError::Preflight(failed.detail.clone()));
        }
        let mut rules = Rules { planned_for, ..self.settings.rules(&project) };
        if emergency.is_some() {
            rules.policy = rules.policy.in_emergency();
        }
        if rules.policy.approvers.iter().any(|it| it.who == Named::Owners) {
            rules.owners = lasting_owners(self, &project).await?;
        }
        let proposal = Proposal { group_id: project.group_id.clone(), new_key, seen, checks, old_key, rules };
        let consent = self.consent(proposer, &project, &proposal).await?;
        Box::pin(self.insert(proposer, &project, proposal, consent, (reason, emergency))).await
    }

    /// What the person is known by who proposes an emergency, where one is asked for.
    async fn asked_emergency(
        &self,
        asked: bool,
        planned: Option<Planned>,
        actor: &str,
        project: &Project,
        reason: Option<&str>,
    ) -> Result<Option<Vec<String>>, CommandError> {
        if !asked {
            return Ok(None);
        }
        if planned.is_some() {
            let rule = "an emergency waits for no date; leave one of the two out".to_owned();
            return Err(CommandError::Invalid { field: "plannedFor", rule });
        }
        self.in_emergency(actor, project, reason).await.map(Some)
    }

    /// Whether the policy approves a proposal in place of an approver.
    async fn consent(
        &self,
        proposer: Proposer<'_>,
        project: &Project,
        proposal: &Proposal,
    ) -> Result<Consent, StoreError> {
        if !proposal.rules.policy.auto_approve.iter().any(|named| named == proposer.trigger) {
            return Ok(Consent::OfPeople(None));
        }
        let ask = |why: String| Ok(Consent::OfPeople(Some(why)));
        if !proposer.confirmed {
            return ask("no lookup confirms that the key is newer and usable".to_owned());
        }
        if let Some(check) = proposal.checks.iter().find(|check| wants_people(check)) {
            return ask(format!("{} is {}: {}", check.name, check.result, check.detail));
        }
        let last = self.store.last_own_approval(&project.group_id).await?;
        match last.filter(|at| self.clock.now().since(*at) < OWN_APPROVALS_APART) {
            Some(at) => ask(format!("the policy approved another rotation of this project at {at}")),
            None => Ok(Consent::OfPolicy),
        }
    }

    async fn insert(
        &self,
        Proposer { actor, trigger, requested, .. }: Proposer<'_>,
        project: &Project,
        mut proposal: Proposal,
        consent: Consent,
        (reason, emergency): (Option<String>, Option<Vec<String>>),
    ) -> Result<Proposed, CommandError> {
        let now = self.clock.now();
        if consent == Consent::OfPolicy {
            // The policy's approval is the only one that this rotation needs.
            proposal.rules.policy.approvals = 1;
        }
        if requested {
            self.bind_to_hook(trigger, &consent, &mut proposal.rules);
        }
        let Proposal { group_id, new_key, old_key, rules, .. } = &proposal;
        let policy_version = rules.policy.version().map_err(|source| StoreError::Unwritable {
            table: "rotations",
            column: "policy_version",
            id: group_id.to_string(),
            source,
        })?;
        let mark = proposal_mark(trigger, rules.planned_for);
        let proposal_hash =
            proposal_hash(group_id, new_key.provider(), old_key, new_key, &policy_version, mark.as_deref());
        let mut row = RotationRow {
            rotation: Rotation::propose(proposal, now),
            trigger: trigger.to_owned(),
            reason,
            requested_by: actor.to_owned(),
            proposal_hash,
            policy_version,
            version: 1,
            project_name: project.name.clone(),
            credential: project.credential.clone(),
            environment: project.environment.clone(),
            kms: project.kms.clone(),
            lease: None,
        };
        let detail = recorded(&row, &consent);
        let mut journal = vec![NewJournal {
            actor: actor.to_owned(),
            kind: JournalKind::Proposed,
            from_state: None,
            to_state: State::AwaitingApproval,
            detail: detail.clone(),
            replay: None,
            merge: false,
        }];
        let mut audit = vec![NewAudit {
            actor: actor.to_owned(),
            action: "rotation.proposed".to_owned(),
            subject: format!("rotation/{}", row.rotation.id),
            detail: bound(detail, &row).to_string(),
        }];
        let vote = (consent == Consent::OfPolicy)
            .then(|| agree_by_policy(&mut row, trigger, now, &mut journal, &mut audit));
        let notice = if vote.is_some() { Notice::AutoApproved } else { Notice::ApprovalRequested };
        let mut outbox = announce::proposal_rows(self, &row, notice, project, now);
        let review = match emergency {
            Some(people) => {
                let (review, told) = self.opened_review(&row, people).await?;
                outbox.extend(told);
                Some(review)
            }
            None => None,
        };
        self.store.check_project(project).await?;
        let write = NewRotation { row: &row, journal, vote, audit, outbox, review, now };
        match self.store.insert_rotation(write).await {
            Ok(()) => {
                self.rotations_due.notify_one();
                self.mail_due.notify_one();
                Ok(Proposed::Created(row))
            }
            Err(StoreError::ReviewOpen { id }) => Err(CommandError::ReviewOpen(id)),
            Err(StoreError::OpenRotationExists { id }) => self.meets(id, &row).await,
            Err(error) => Err(error.into()),
        }
    }

    /// What a proposal comes to when another was written first.
    async fn meets(&self, id: RotationId, row: &RotationRow) -> Result<Proposed, CommandError> {
        let open = self.rotation(id).await?;
        let (open_rules, rules) = (&open.rotation.rules, &row.rotation.rules);
        let same_date = rules.planned_for.is_none() || rules.planned_for == open_rules.planned_for;
        let same_kind = (open.trigger == EMERGENCY) == (row.trigger == EMERGENCY);
        if same_date && same_kind && open.rotation.new_key == row.rotation.new_key {
            Ok(Proposed::Same(open))
        } else {
            Err(CommandError::RotationOpen { id, state: open.rotation.state })
        }
    }

    /// Who owns the hook of this trigger does not approve what it requests. Without owners, anybody may have its
    /// secret, an approver too: one approval more is needed.
    fn bind_to_hook(&self, trigger: &str, consent: &Consent, rules: &mut Rules) {
        let owners = self.hook_owners.lock().unwrap_or_else(PoisonError::into_inner);
        let hook = trigger.strip_prefix("hook:");
        rules.excluded = hook.and_then(|hook| owners.get(hook)).cloned().unwrap_or_default();
        if rules.excluded.is_empty() && *consent != Consent::OfPolicy {
            rules.policy.approvals = (rules.policy.approvals + 1).min(MOST_APPROVALS);
        }
    }

    /// The pre-flight checklist for a proposal.
    async fn preflight(
        &self,
        project: &Project,
        seen: &Observation,
        keys: (&KeyRef, &KeyRef),
    ) -> Result<Vec<Check>, CommandError> {
        let Project { group_id, credential, environment, kms, .. } = project;
        let (environment, kms) = (environment.as_deref(), kms.as_deref());
        let interval = project.policy(&self.settings.policy).interval;
        let subject =
            Subject { group_id, credential, new_key: keys.1, place: &seen.place, environment, kms, interval };
        let timeout = self.settings.request_timeout.get();
        let (gathered, clusters) = tokio::join!(
            preflight::gather(self, subject),
            self.atlas.cmk_clusters(credential, group_id, keys.0.provider(), timeout),
        );
        if let Err(failure) = &clusters
            && !failure.asks_to_wait()
        {
            return Err(CommandError::Atlas(failure.clone()));
        }
        // A rate limit leaves this check open. Before the PATCH, Atlas must list the clusters.
        let clusters = clusters.as_ref().map(Vec::as_slice);
        Ok(preflight::judge(&gathered?, keys, seen, clusters, self.clock.now()))
    }
}

/// What journal and audit log say about a proposal.
fn recorded(row: &RotationRow, consent: &Consent) -> Value {
    let mut detail = json!({
        "oldKey": row.rotation.old_key.to_string(),
        "newKey": row.rotation.new_key.to_string(),
        "proposalHash": row.proposal_hash,
        "reason": row.reason,
        "approvals": row.rotation.permission.quorum.required,
        "hookOwners": row.rotation.rules.excluded,
        "checks": row.rotation.observing.checks,
    });
    if let Some(at) = row.rotation.rules.planned_for {
        detail["plannedFor"] = json!(at);
    }
    if let Consent::OfPeople(Some(why)) = consent {
        detail["autoApproval"] = json!(format!("approvers must decide: {why}"));
    }
    detail
}

/// The same with the rest of what the proposal's hash binds: who has only the audit log can compute it.
fn bound(mut detail: Value, row: &RotationRow) -> Value {
    detail["groupId"] = json!(row.rotation.group_id);
    detail["provider"] = json!(row.rotation.provider);
    detail["policyVersion"] = json!(row.policy_version);
    detail
}

/// The instant of a planned date.
fn date(planned: Planned, policy: &Policy, now: Timestamp) -> Result<Timestamp, CommandError> {
    let zone = policy.zone();
    let invalid = |rule: String| Err(CommandError::Invalid { field: "plannedFor", rule });
    if planned.is_past(zone, now) {
        return invalid(format!("{planned} is over; give today or a later day ({zone})"));
    }
    let at = planned.start(zone);
    if at > now + FURTHEST.get() {
        return invalid(format!(
            "{planned} is too far ahead; a proposal takes a date within {FURTHEST}, so propose this one later"
        ));
    }
    Ok(at)
}

/// The approval by `policy.auto_approve`: its change of the proposal, and its journal and audit rows.
fn agree_by_policy(
    row: &mut RotationRow,
    trigger: &str,
    now: Timestamp,
    journal: &mut Vec<NewJournal>,
    audit: &mut Vec<NewAudit>,
) -> Vote {
    let comment = format!("policy.auto_approve names {trigger}, and every check passed");
    let said =
        Said { by: POLICY, comment: Some(&comment), vote: None, audit: Vec::new(), outbox: Vec::new() };
    let outcome = Outcome::Said(Command::Approve { given: 1 });
    let Step { rotation, effect, .. } = next(&row.rotation, &outcome, now);
    journal.push(step::journal(&row.rotation, &rotation, &outcome, &said, effect));
    audit.extend(step::audit(&row.rotation, &rotation, &outcome, &said, effect));
    row.rotation = rotation;
    Vote::Yes(NewApproval {
        by: POLICY.to_owned(),
        method: OWN_APPROVAL.to_owned(),
        comment: Some(comment),
        signed: None,
    })
}
