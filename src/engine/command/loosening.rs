//! Changes of what decides who must agree: who may make them, when they take effect, and their withdrawal.

use std::time::Duration;

use serde_json::json;

use super::super::Engine;
use super::super::announce::message_id;
use super::super::authority::{plain, rows, together};
use super::super::settling::{loosen_after, settling_in};
use super::{Actor, CommandError};
use crate::domain::approver::Named;
use crate::domain::ids::{GroupId, LooseningId};
use crate::domain::loosening::{
    Change, Course, HeldEdit, LooseningKind, LooseningState, Safeguards, changes, rule,
};
use crate::domain::notice::{Authority, Kind};
use crate::domain::project::Project;
use crate::domain::role::Role;
use crate::domain::time::Timestamp;
use crate::domain::vote::BY_MAIL;
use crate::store::{Governed, Loosening, NewAudit, NewOutbox, StoreError};

/// For so long the author of a tightening may undo it.
const UNDO: Duration = Duration::from_hours(1);

/// What is written with a project, beside the project itself.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) governed: Governed,
    pub(super) audit: Vec<NewAudit>,
    pub(super) outbox: Vec<NewOutbox>,
}

/// The project before a change, as the rules see it.
pub(super) struct Before<'a> {
    pub(super) project: &'a Project,
    /// Whether it is or was tracked. A new project has nobody who must hear of a loosening.
    pub(super) tracked: bool,
}

/// Decides what of the change from `before` to `after` is made at once. `after` keeps the old value of what takes
/// effect later.
///
/// # Errors
/// Names the first field that `by` may not change, and fails when the database cannot be read.
pub(super) async fn plan(
    engine: &Engine,
    by: Actor<'_>,
    before: Before<'_>,
    after: &mut Project,
) -> Result<Plan, CommandError> {
    let now = engine.clock.now();
    let group = after.group_id.clone();
    let defaults = &engine.settings.policy;
    let (old, new) = (Safeguards::of(before.project, defaults), Safeguards::of(after, defaults));
    let approvers = engine.approvers().await?;
    let found = changes(&old, &new, approvers);
    let mut earlier = engine.store.sealed_loosenings(&group).await?;
    earlier.retain(|it| it.requested_at > now - UNDO);
    let undoes = |change: &Change| {
        let last = earlier
            .iter()
            .rev()
            .filter(|it| it.kind == LooseningKind::Tightening)
            .find_map(|it| Some((it, it.changes.iter().find(|earlier| earlier.field == change.field)?)));
        last.is_some_and(|(it, earlier)| {
            it.requested_by == by.name && earlier.from == change.to && earlier.to == change.from
        })
    };
    let (looser, tighter): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|it| it.course == Course::Looser && !undoes(it));
    if let Some(change) = looser.first().filter(|_| !by.is_admin()) {
        return Err(CommandError::NotAllowed {
            field: change.field.clone(),
            rule: rule(&change.field, approvers),
            role: Role::Admin,
        });
    }
    let settling = settling_in(engine).await?.covers(now);
    let mut plan =
        Plan { governed: Governed { by: by.name.to_owned(), ..Governed::default() }, ..Plan::default() };
    replace_pending(engine, by, &group, looser.iter().chain(&tighter), &mut plan).await?;
    if !tighter.is_empty() {
        plan.governed.new.push(made(by, &group, LooseningKind::Tightening, tighter, now));
    }
    if !looser.is_empty() {
        if settling {
            plan.governed.new.push(made(by, &group, LooseningKind::Loosening, looser, now));
        } else {
            let owners =
                if before.tracked { told_owners(engine, before.project, now).await? } else { Vec::new() };
            let fields: Vec<&str> = looser.iter().map(|it| it.field.as_str()).collect();
            let edit = HeldEdit::take(before.project, after, &fields).map_err(unwritable)?;
            hold(engine, by, after, (looser, edit, owners), &mut plan).await?;
        }
    }
    standing(engine, by, before.project, after, (settling, before.tracked), &mut plan);
    Ok(plan)
}

/// A change that takes effect later, with its announcement.
async fn hold(
    engine: &Engine,
    by: Actor<'_>,
    project: &Project,
    (found, edit, owners): (Vec<Change>, HeldEdit, Vec<String>),
    plan: &mut Plan,
) -> Result<(), CommandError> {
    let now = engine.clock.now();
    let mut it = made(by, &project.group_id, LooseningKind::Loosening, found, now);
    (it.edit, it.state, it.effective_at) = (edit, LooseningState::Announcing, None);
    if engine.settings.mails {
        (it.owners, it.security) = (owners, engine.settings.security.clone());
    }
    if it.owners.is_empty() && it.security.is_empty() {
        if !by.on_machine {
            let field = it.changes.first().map(|change| change.field.clone()).unwrap_or_default();
            return Err(CommandError::NobodyToTell { field });
        }
        it.state = LooseningState::Waiting;
        it.announced_at = Some(now);
        it.effective_at = Some(now + loosen_after(engine).await?.get());
    }
    let audit = audit_row(by.name, "loosening.requested", &it);
    let facts = facts(Kind::LooseningAnnounced, &it, Some(project), by.name, now);
    let people = together(&it.owners, &it.security);
    plan.outbox.extend(rows(engine, &identity(&it), facts, &people, now));
    plan.audit.push(audit);
    plan.governed.new.push(it);
    Ok(())
}

/// A newer change of a field replaces what was to come of it.
async fn replace_pending(
    engine: &Engine,
    by: Actor<'_>,
    group: &GroupId,
    found: impl Iterator<Item = &Change>,
    plan: &mut Plan,
) -> Result<(), StoreError> {
    let fields: Vec<&str> = found.map(|it| it.field.as_str()).collect();
    if fields.is_empty() {
        return Ok(());
    }
    for it in engine.store.pending_loosenings().await? {
        let same = it.changes.iter().any(|change| fields.contains(&change.field.as_str()));
        if it.subject == group.as_str() && same {
            plan.audit.push(audit_row(by.name, "loosening.withdrawn", &it));
            plan.governed.withdrawn.push(it.id);
        }
    }
    Ok(())
}

/// Records changes of owners and lookups, which take effect at once; their author counts as no approver for a while.
fn standing(
    engine: &Engine,
    by: Actor<'_>,
    before: &Project,
    after: &Project,
    (settling, tracked): (bool, bool),
    plan: &mut Plan,
) {
    let now = engine.clock.now();
    let policy = after.policy(&engine.settings.policy);
    let changed = |field: &str, from: serde_json::Value, to: serde_json::Value| Change {
        field: field.to_owned(),
        course: Course::Looser,
        from,
        to,
    };
    let mut lookup = Vec::new();
    if before.kms != after.kms {
        lookup.push(changed("kms", json!(before.kms), json!(after.kms)));
    }
    if before.alias != after.alias {
        lookup.push(changed("alias", json!(before.alias), json!(after.alias)));
    }
    if tracked && !lookup.is_empty() {
        plan.governed.new.push(made(by, &after.group_id, LooseningKind::Lookup, lookup, now));
    }
    // Who adds a project whose owners approve chooses its approvers.
    let names_owners = || policy.approvers.iter().any(|it| it.who == Named::Owners);
    let owners: &[String] = if tracked { &before.owners } else { &[] };
    if (tracked || names_owners()) && owners != after.owners {
        let change = changed("owners", json!(owners), json!(after.owners));
        let it = made(by, &after.group_id, LooseningKind::Owners, vec![change], now);
        if !settling {
            let facts = facts(Kind::OwnersChanged, &it, Some(after), by.name, now);
            let people = together(owners, &engine.settings.security);
            plan.outbox.extend(rows(engine, &identity(&it), facts, &people, now));
        }
        plan.governed.new.push(it);
    }
}

/// The owners of a project before any change of them that is younger than the delay: who changes the owners first and
/// a rule afterwards does not announce it to himself.
async fn told_owners(engine: &Engine, project: &Project, now: Timestamp) -> Result<Vec<String>, StoreError> {
    let since = now - loosen_after(engine).await?.get();
    let settling = settling_in(engine).await?;
    let changes = engine.store.sealed_loosenings(&project.group_id).await?;
    let first = changes.iter().find(|it| {
        it.kind == LooseningKind::Owners && it.requested_at > since && !settling.covers(it.requested_at)
    });
    let before = first.and_then(|it| serde_json::from_value(it.changes.first()?.from.clone()).ok());
    Ok(before.unwrap_or_else(|| project.owners.clone()))
}

/// The owners of a project but for those who joined less than the delay ago, outside of the first day.
///
/// # Errors
/// Fails when the database cannot be read, or its changes are not what Keywheel wrote.
pub(in crate::engine) async fn lasting_owners(
    engine: &Engine,
    project: &Project,
) -> Result<Vec<String>, StoreError> {
    let since = engine.clock.now() - loosen_after(engine).await?.get();
    let settling = settling_in(engine).await?;
    let listed = |value: &serde_json::Value| -> Vec<String> {
        serde_json::from_value(value.clone()).unwrap_or_default()
    };
    let mut owners = project.owners.clone();
    for it in engine.store.sealed_loosenings(&project.group_id).await? {
        let is_late = it.requested_at > since && !settling.covers(it.requested_at);
        if it.kind != LooseningKind::Owners || !is_late {
            continue;
        }
        for change in &it.changes {
            let (before, after) = (listed(&change.from), listed(&change.to));
            owners.retain(|owner| before.contains(owner) || !after.contains(owner));
        }
    }
    Ok(owners)
}

/// A change that takes effect at once.
fn made(
    by: Actor<'_>,
    group: &GroupId,
    kind: LooseningKind,
    changes: Vec<Change>,
    now: Timestamp,
) -> Loosening {
    Loosening {
        id: LooseningId::new(),
        subject: group.to_string(),
        kind,
        state: LooseningState::Effective,
        requested_by: by.name.to_owned(),
        requested_at: now,
        changes,
        edit: HeldEdit::default(),
        owners: Vec::new(),
        security: Vec::new(),
        announced_at: None,
        effective_at: Some(now),
        ended_at: None,
        ended_by: None,
        version: 1,
    }
}

/// The row of the audit log about a change; it says all of it.
pub(in crate::engine) fn audit_row(by: &str, action: &str, it: &Loosening) -> NewAudit {
    let group: Option<GroupId> = it.subject.parse().ok();
    let subject = group.map_or_else(|| it.subject.clone(), |group| format!("project/{group}"));
    NewAudit {
        actor: by.to_owned(),
        action: action.to_owned(),
        subject,
        detail: json!({
            "id": it.id, "kind": it.kind, "requestedBy": it.requested_by, "requestedAt": it.requested_at,
            "changes": it.changes, "edit": it.edit, "owners": it.owners, "security": it.security,
            "announcedAt": it.announced_at, "effectiveAt": it.effective_at,
        })
        .to_string(),
    }
}

/// The rows of the audit log about changes that take effect at once.
pub(super) fn recorded(plan: &Plan) -> serde_json::Value {
    let at_once = plan.governed.new.iter().filter(|it| it.state == LooseningState::Effective);
    at_once.map(|it| json!({ "id": it.id, "kind": it.kind, "changes": it.changes })).collect()
}

/// The facts of a notice about a change.
pub(in crate::engine) fn facts(
    kind: Kind,
    it: &Loosening,
    project: Option<&Project>,
    by: &str,
    now: Timestamp,
) -> Authority {
    let group: Option<GroupId> = it.subject.parse().ok();
    Authority {
        project_name: group.is_some().then(|| project.map(|it| it.name.clone()).unwrap_or_default()),
        group_id: group,
        changes: it.changes.clone(),
        takes_effect_at: it.effective_at.filter(|_| it.kind == LooseningKind::Loosening),
        loosening_id: Some(it.id),
        detail: separation(it),
        ..plain(kind, named(it), by, now)
    }
}

/// The subject as people know it: an account is named by its address.
fn named(it: &Loosening) -> String {
    let from = it.changes.first().and_then(|change| change.from.as_str());
    match from.filter(|_| it.subject.starts_with("person/")) {
        Some(from) => format!("person/{}", from.strip_prefix(BY_MAIL).unwrap_or(from)),
        None => it.subject.clone(),
    }
}

/// What the separation of an address from an identity means; `None` for other changes.
fn separation(it: &Loosening) -> Option<String> {
    let (kind, name) = it.subject.split_once('/')?;
    let change = it.changes.first()?;
    let from = change.from.as_str()?;
    let from = from.strip_prefix(BY_MAIL).unwrap_or(from);
    let given = change.to.as_str().map(|to| format!(", which is given to {to}")).unwrap_or_default();
    let what = if kind == "token" {
        format!("{from} is separated from the token {name}{given}")
    } else {
        let account = name.split_once('#').map_or(name, |(issuer, _)| issuer);
        format!("{from} is separated from the account at {account} that had this address before")
    };
    Some(format!(
        "{what}. Until that takes effect, and on each rotation that is proposed before, both count as one person."
    ))
}

/// Identifies the announcement of a change.
pub(in crate::engine) fn identity(it: &Loosening) -> String {
    format!("{}/announced", it.id)
}

/// The id of the mail that announces a change to `recipient`.
pub(in crate::engine) fn announcement(it: &Loosening, recipient: &str) -> String {
    message_id(&format!("{}/{recipient}", identity(it)))
}

pub(super) fn unwritable(source: serde_json::Error) -> CommandError {
    StoreError::Unwritable { table: "projects", column: "policy", id: String::new(), source }.into()
}

impl Engine {
    /// How many people may approve: tokens in force and who has signed in with an identity provider, each person once,
    /// and the local socket.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub(super) async fn approvers(&self) -> Result<u32, StoreError> {
        let tokens = self.store.list_tokens().await?;
        let may = tokens.into_iter().flatten().filter(|token| {
            token.revoked_at.is_none() && token.roles.iter().any(|role| role.includes(Role::Approver))
        });
        let issuers = &self.settings.issuers;
        // Where people sign in with a provider, a token that was given to nobody does not vote.
        let may = may.filter(|token| issuers.is_empty() || token.person.is_some());
        let mut people: Vec<String> =
            may.map(|token| token.person.map_or(token.name, |mail| mail.to_ascii_lowercase())).collect();
        let signed_in = self.store.people().await?.into_iter();
        let signed_in = signed_in.filter(|it| issuers.contains(&it.issuer) && it.approves());
        people.extend(signed_in.map(|it| it.mail.unwrap_or(it.name)));
        people.sort_unstable();
        people.dedup();
        let local = u32::from(self.settings.socket_role.includes(Role::Approver));
        Ok(u32::try_from(people.len()).unwrap_or(u32::MAX).saturating_add(local))
    }

    /// The changes that are announced and not in effect yet.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn loosenings(&self) -> Result<Vec<Loosening>, StoreError> {
        self.store.pending_loosenings().await
    }

    /// Withdraws a change that has not taken effect.
    ///
    /// # Errors
    /// Fails when no such change is to take effect, or the database cannot be written.
    pub async fn withdraw_loosening(&self, by: &str, id: LooseningId) -> Result<Loosening, CommandError> {
        let it = self.store.loosening(id).await?.filter(|it| it.kind == LooseningKind::Loosening);
        let it = it.ok_or(CommandError::NoLoosening(id))?;
        let now = self.clock.now();
        let group: Option<GroupId> = it.subject.parse().ok();
        let project = match &group {
            Some(group) => self.store.project(group).await?,
            None => None,
        };
        let facts = facts(Kind::LooseningWithdrawn, &it, project.as_ref(), by, now);
        let people = together(&it.owners, &it.security);
        let outbox = rows(self, &format!("{id}/withdrawn"), facts, &people, now);
        let audit = [audit_row(by, "loosening.withdrawn", &it)];
        if !it.state.is_pending() || !self.store.withdraw_loosening(id, by, &audit, &outbox, now).await? {
            return Err(CommandError::LooseningEnded { id });
        }
        self.mail_due.notify_one();
        self.store.loosening(id).await?.ok_or(CommandError::NoLoosening(id))
    }
}
