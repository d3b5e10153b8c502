//! Commands on projects: add, edit, remove. A project is observed before it is tracked.

use std::sync::PoisonError;

use serde_json::json;

use super::super::looks::next_look;
use super::super::sweep::note;
use super::super::{Engine, conditions, drift, owners};
use super::loosening::{Before, Plan, plan, recorded};
use super::{Actor, CommandError, TRIES};
use crate::atlas::AtlasApi;
use crate::domain::condition::Reading;
use crate::domain::ids::GroupId;
use crate::domain::key::{KeyRef, Provider};
use crate::domain::patch::Patch;
use crate::domain::project::{PolicyEdit, PolicyOverride, Project, SinceSource};
use crate::domain::text::{did_you_mean, is_hidden};
use crate::domain::time::Timestamp;
use crate::mail::is_address;
use crate::store::{FormerProject, Governed, NewAudit, StoreError};

/// The longest tag, in characters.
const LONGEST_TAG: usize = 64;
/// The longest name, in characters. Atlas' own have 64 at most.
const LONGEST_NAME: usize = 200;
/// The most owners of a project: each gets a mail of each notice.
const MOST_OWNERS: usize = 32;
/// The longest mail address, in bytes, as mail servers take it.
const LONGEST_ADDRESS: usize = 254;

/// The fields of a new project.
#[derive(Clone, Debug, Default)]
pub struct NewProject {
    /// Atlas' id.
    pub group_id: String,
    /// A name; Atlas' own when absent.
    pub name: Option<String>,
    /// Mail addresses.
    pub owners: Vec<String>,
    /// The credential's name; `default` when absent.
    pub credential: Option<String>,
    /// A tag; Atlas' tag `environment` when absent, and no tag when empty.
    pub environment: Option<String>,
    /// The lookup for its keys.
    pub kms: Option<String>,
    /// AWS: the alias that points at the key to use.
    pub alias: Option<String>,
    /// Since when the key serves, where the operator has that date.
    pub key_since: Option<Timestamp>,
    /// Settings of its own.
    pub policy: Option<PolicyOverride>,
}

/// The changes of a project; `None` leaves a field as it is.
#[derive(Clone, Debug, Default)]
pub struct ProjectEdit {
    /// A name.
    pub name: Option<String>,
    /// Mail addresses.
    pub owners: Option<Vec<String>>,
    /// The credential's name.
    pub credential: Option<String>,
    /// A tag; empty removes it.
    pub environment: Option<String>,
    /// The lookup for its keys; null or empty removes it.
    pub kms: Patch<String>,
    /// AWS: the alias that points at the key to use; null or empty removes it.
    pub alias: Patch<String>,
    /// Since when the key serves; also settles a drift.
    pub key_since: Option<Timestamp>,
    /// Changes of its own rules.
    pub policy: PolicyEdit,
}

/// A project that is tracked from now on.
#[derive(Clone, Debug)]
pub struct Added {
    /// The project.
    pub project: Project,
    /// Whether it was tracked before, and keeps its rules.
    pub rules_kept: bool,
}

impl Engine {
    /// Observes the project and tracks it.
    ///
    /// # Errors
    /// Fails, and writes nothing, when a field is not valid, the project is tracked already, or Atlas or the
    /// database failed.
    pub async fn add_project<'a>(
        &self,
        by: impl Into<Actor<'a>>,
        new: NewProject,
    ) -> Result<Project, CommandError> {
        self.track_project(by, new).await.map(|added| added.project)
    }

    /// The same, and whether the project was tracked before.
    ///
    /// # Errors
    /// As [`Engine::add_project`].
    pub async fn track_project<'a>(
        &self,
        by: impl Into<Actor<'a>>,
        new: NewProject,
    ) -> Result<Added, CommandError> {
        let by = by.into();
        let (project, kept, plan) = self.planned(by, new).await?;
        let now = self.clock.now();
        let detail = json!({
            "name": project.name, "owners": project.owners, "credential": project.credential,
            "keySince": project.key_since, "keySinceSource": project.key_since_source,
            "kms": project.kms, "alias": project.alias, "environment": project.environment,
            "policy": project.policy, "rulesKept": kept, "changes": recorded(&plan),
        });
        let Plan { governed, audit: more, outbox } = plan;
        let mut audit = vec![record(by.name, "project.added", &project.group_id, &detail)];
        audit.extend(more);
        self.store.insert_governed_project(&project, governed, &audit, &outbox, now).await?;
        if !outbox.is_empty() {
            self.mail_due.notify_one();
        }
        let reading = Reading::Seen { key: project.current_key.as_ref(), valid: project.valid };
        conditions::note(self, &project.group_id, &reading, project.last_checked_at.unwrap_or(now)).await;
        // The key may be due already.
        self.look_due.notify_one();
        Ok(Added { project, rules_kept: kept })
    }

    /// Observes the project as [`Engine::add_project`] does, and writes nothing.
    ///
    /// # Errors
    /// As [`Engine::add_project`], but for failures of the write.
    pub async fn check_project<'a>(
        &self,
        by: impl Into<Actor<'a>>,
        new: NewProject,
    ) -> Result<Added, CommandError> {
        let (project, rules_kept, _) = self.planned(by.into(), new).await?;
        Ok(Added { project, rules_kept })
    }

    /// A new project as it would be tracked, whether it was before, and what is written with it.
    async fn planned(&self, by: Actor<'_>, new: NewProject) -> Result<(Project, bool, Plan), CommandError> {
        let former = match new.group_id.parse() {
            Ok(group) => self.store.former_project(&group).await?,
            Err(_) => None,
        };
        let kept = former.is_some();
        let given = new.policy.clone();
        let mut project = self.new_project(new, former.as_ref()).await?;
        self.check_policy(&project, &given.map(PolicyEdit::from).unwrap_or_default())?;
        // Without an earlier record, the project is compared with one that has the default rules.
        let before = match former {
            Some(former) => former.onto(project.clone()),
            None => Project { policy: None, kms: None, alias: None, ..project.clone() },
        };
        let subject = Before { project: &before, tracked: kept };
        let plan = Box::pin(plan(self, by, subject, &mut project)).await?;
        Ok((project, kept, plan))
    }

    /// A new project with every field that is given, and the others as an earlier record has them.
    async fn new_project(
        &self,
        new: NewProject,
        former: Option<&FormerProject>,
    ) -> Result<Project, CommandError> {
        let group: GroupId = new.group_id.parse()?;
        if self.store.project(&group).await?.is_some() {
            return Err(CommandError::ProjectExists(group));
        }
        let own = |of: fn(&FormerProject) -> Option<String>| former.and_then(of);
        let credential = new
            .credential
            .or_else(|| own(|it| Some(it.credential.clone())))
            .unwrap_or_else(|| "default".to_owned());
        self.check_fields(new.name.as_deref(), &new.owners, &credential, new.key_since)?;
        check_environment(new.environment.as_deref())?;
        let seen = self.observe(&credential, &group).await?;
        let timeout = self.settings.request_timeout.get();
        // One that was tracked before keeps its environment, or its lack of one: a change of it is a loosening.
        let untagged = new.environment.is_none() && former.is_none();
        let (mut name, mut environment) = (new.name, new.environment);
        if name.is_none() || untagged {
            let held = self.atlas.group(&credential, &group, timeout).await.map_err(CommandError::Atlas)?;
            if untagged {
                environment = held.environment().map(str::to_owned);
                check_environment(environment.as_deref()).map_err(of_atlas)?;
            }
            name = name.or(Some(held.name));
        }
        let name: String = name.unwrap_or_default().chars().take(LONGEST_NAME).collect();
        let now = self.clock.now();
        let mut project = Project {
            group_id: group.clone(),
            name,
            provider: None,
            current_key: None,
            place: seen.place.clone(),
            key_since: None,
            key_since_source: None,
            valid: None,
            private_networking: false,
            owners: match former {
                Some(former) if new.owners.is_empty() => former.owners.clone(),
                _ => new.owners,
            },
            environment: environment
                .or_else(|| own(|it| it.environment.clone()))
                .filter(|tag| !tag.is_empty()),
            credential,
            kms: new.kms.or_else(|| own(|it| it.kms.clone())).filter(|name| !name.is_empty()),
            alias: new.alias.or_else(|| own(|it| it.alias.clone())).filter(|alias| !alias.is_empty()),
            policy: new
                .policy
                .map(PolicyEdit::from)
                .unwrap_or_default()
                .onto(former.and_then(|it| it.policy.clone())),
            drift_key: None,
            last_checked_at: None,
            last_error: None,
            next_check_at: next_look(&group, now, self.settings.drift_every.get()),
            next_reminder_at: Some(now),
            created_at: now,
            open_rotation: None,
            holding: Vec::new(),
            silence: None,
            due_ack: None,
            key_ends_at: None,
            version: 1,
        };
        let unseen = project.clone();
        note(&mut project, &seen, false);
        self.check_look_up(&project)?;
        if let Some(since) = new.key_since.filter(|_| project.current_key.is_some()) {
            project.key_since = Some(since);
            project.key_since_source = Some(SinceSource::Operator);
        } else {
            drift::date(self, &unseen, &mut project, &seen).await;
            self.as_last_recorded(&mut project).await?;
        }
        Ok(project)
    }

    /// A project that was tracked before keeps its last recorded key: another one is found as drift by the first
    /// look, with its findings, and does not pass for the first key.
    async fn as_last_recorded(&self, project: &mut Project) -> Result<(), CommandError> {
        let (Some(provider), keys) = (project.provider, self.store.keys(&project.group_id).await?) else {
            return Ok(());
        };
        let Some(last) = keys.into_iter().rfind(|key| key.until.is_none()) else { return Ok(()) };
        let recorded = KeyRef::observed(provider, &last.key);
        if project.current_key.as_ref().is_none_or(|key| !key.is_same(&recorded, &project.place)) {
            project.key_since = Some(last.since);
            project.key_since_source = Some(last.source);
            project.current_key = Some(recorded);
            project.valid = None;
            project.next_check_at = project.created_at;
        }
        Ok(())
    }

    /// Changes a project.
    ///
    /// # Errors
    /// Fails, without a change, when a field is not valid, or when the database cannot be read or written.
    pub async fn edit_project<'a>(
        &self,
        by: impl Into<Actor<'a>>,
        group: &GroupId,
        edit: ProjectEdit,
    ) -> Result<Project, CommandError> {
        let by = by.into();
        for _ in 0..TRIES {
            let before =
                self.store.project(group).await?.ok_or_else(|| CommandError::NoProject(group.clone()))?;
            let mut after = before.clone();
            let edit = edit.clone();
            after.name = edit.name.clone().unwrap_or(after.name);
            // Owners that the edit leaves alone are not checked: they may be more than a project takes today.
            let owners = edit.owners.clone().unwrap_or_default();
            after.owners = edit.owners.unwrap_or(after.owners);
            after.credential = edit.credential.unwrap_or(after.credential);
            check_environment(edit.environment.as_deref())?;
            if let Some(tag) = edit.environment {
                after.environment = Some(tag).filter(|tag| !tag.is_empty());
            }
            // A lookup that the edit leaves alone is not checked: an outdated name must not block other
            // changes.
            let looked_up = !edit.kms.is_absent() || !edit.alias.is_absent();
            edit.kms.apply(&mut after.kms);
            edit.alias.apply(&mut after.alias);
            for field in [&mut after.kms, &mut after.alias] {
                *field = field.take().filter(|text| !text.is_empty());
            }
            if looked_up {
                self.check_look_up(&after)?;
            }
            after.policy = edit.policy.clone().onto(after.policy.take());
            self.check_policy(&after, &edit.policy)?;
            if let Some(since) = edit.key_since {
                after.key_since = Some(since);
                after.key_since_source = Some(SinceSource::Operator);
                after.drift_key = None;
            }
            self.check_fields(edit.name.as_deref(), &owners, &after.credential, edit.key_since)?;
            if edit.key_since.is_some() {
                self.check_held(&after).await?;
            } else if after.credential != before.credential {
                // One that cannot read the key would make the project blind.
                self.observe(&after.credential, group).await?;
            }
            let now = self.clock.now();
            if edit.key_since.is_some() || after.credential != before.credential {
                // Atlas has just answered, so a pause that it asked for before is over.
                let next = next_look(group, now, self.settings.drift_every.get());
                after.next_check_at = after.next_check_at.min(next);
            }
            after.next_reminder_at = Some(now);
            let subject = Before { project: &before, tracked: true };
            let plan = Box::pin(plan(self, by, subject, &mut after)).await?;
            let mut audit = vec![edited(by.name, &after, Some(&recorded(&plan)))];
            let Plan { governed, audit: more, mut outbox } = plan;
            audit.extend(more);
            outbox.extend(owners::changed(self, &before, &after, now).await?);
            let rows = (audit.as_slice(), outbox.as_slice());
            match self.store.update_governed_project(&after, before.version, governed, rows, now).await {
                Ok(version) => {
                    if !outbox.is_empty() {
                        self.mail_due.notify_one();
                    }
                    if looked_up {
                        self.store.look_up_soon(group).await?;
                    }
                    self.look_due.notify_one();
                    return Ok(Project { version, ..after });
                }
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Conflict.into())
    }

    /// Stops tracking a project. Its history stays.
    ///
    /// # Errors
    /// Fails while a rotation is open, or when the database cannot be written.
    pub async fn remove_project<'a>(
        &self,
        by: impl Into<Actor<'a>>,
        group: &GroupId,
    ) -> Result<(), CommandError> {
        let by = by.into();
        let project =
            self.store.project(group).await?.ok_or_else(|| CommandError::NoProject(group.clone()))?;
        if let Some(open) = project.open_rotation {
            return Err(CommandError::RemoveWhileOpen { group: group.clone(), id: open.id });
        }
        let kept = FormerProject::from(&project);
        let detail = json!({ "name": project.name, "kept": kept });
        let mut audit = vec![record(by.name, "project.removed", group, &detail)];
        let mut governed = Governed { by: by.name.to_owned(), ..Governed::default() };
        for it in self.store.pending_loosenings().await? {
            if it.subject == group.as_str() {
                audit.push(super::loosening::audit_row(by.name, "loosening.withdrawn", &it));
                governed.withdrawn.push(it.id);
            }
        }
        let now = self.clock.now();
        Ok(self.store.remove_governed_project(group, Some(kept), governed, &audit, now).await?)
    }

    /// A policy that can never be met is refused where it is given, not when it is needed.
    fn check_policy(&self, project: &Project, given: &PolicyEdit) -> Result<(), CommandError> {
        if given.is_empty() {
            return Ok(());
        }
        let policy = project.policy(&self.settings.policy);
        // A default reminder that lies before a shorter cryptoperiod is left out, not refused.
        let own = project.policy.as_ref().is_some_and(|own| own.remind_before.is_some());
        let faults = policy.faults(self.clock.now());
        if let Some((field, rule)) = faults.into_iter().find(|(field, _)| *field != "remind_before" || own) {
            return Err(CommandError::BadRule { rule_name: field, rule });
        }
        let hooks = self.hook_owners.lock().unwrap_or_else(PoisonError::into_inner);
        let known = |name: &str| {
            name == "poll" || name.strip_prefix("hook:").is_some_and(|hook| hooks.contains_key(hook))
        };
        let Patch::Value(named) = &given.auto_approve else { return Ok(()) };
        match named.iter().find(|name| !known(name)) {
            Some(name) => {
                let hooks = hooks.keys().map(|hook| format!("hook:{hook}"));
                let known: Vec<String> = std::iter::once("poll".to_owned()).chain(hooks).collect();
                let near = did_you_mean(name, known.iter().map(String::as_str));
                let rule = format!("{name:?} proposes nothing; {near}");
                Err(CommandError::BadRule { rule_name: "auto_approve", rule })
            }
            None => Ok(()),
        }
    }

    fn check_fields(
        &self,
        name: Option<&str>,
        owners: &[String],
        credential: &str,
        since: Option<Timestamp>,
    ) -> Result<(), CommandError> {
        let good = |name: &str| {
            !name.trim().is_empty() && !name.contains(is_hidden) && name.chars().count() <= LONGEST_NAME
        };
        if name.is_some_and(|name| !good(name)) {
            let rule = format!(
                "a name takes 1 to {LONGEST_NAME} characters and no hidden ones (control characters, marks of direction, characters without width); leave it out for Atlas' own"
            );
            return Err(CommandError::Invalid { field: "name", rule });
        }
        if !self.atlas.knows(credential) {
            let configured = self.atlas.credentials();
            let near = did_you_mean(credential, configured.iter().map(String::as_str));
            let rule = format!(
                "no credential {credential:?} is configured; add [atlas.credentials.{credential}] or name another: {near}"
            );
            return Err(CommandError::Invalid { field: "credential", rule });
        }
        if owners.len() > MOST_OWNERS {
            let rule = format!(
                "{} owners are listed, and a project takes at most {MOST_OWNERS}; name a mailing list instead",
                owners.len()
            );
            return Err(CommandError::Invalid { field: "owners", rule });
        }
        if owners.iter().any(|owner| owner.len() > LONGEST_ADDRESS) {
            let rule = format!("a mail address takes at most {LONGEST_ADDRESS} bytes, as mail servers do");
            return Err(CommandError::Invalid { field: "owners", rule });
        }
        if let Some(bad) = owners.iter().find(|owner| !is_address(owner)) {
            let rule = format!("{bad:?} is not a mail address such as ada@example.com");
            return Err(CommandError::Invalid { field: "owners", rule });
        }
        let different: std::collections::BTreeSet<_> = owners.iter().collect();
        if different.len() < owners.len() {
            let rule = "each mail address may be listed once only".to_owned();
            return Err(CommandError::Invalid { field: "owners", rule });
        }
        if since.is_some_and(|since| since > self.clock.now()) {
            let rule = "must not be in the future".to_owned();
            return Err(CommandError::Invalid { field: "keySince", rule });
        }
        Ok(())
    }

    /// Checks that the project's lookup exists and serves keys of its provider.
    fn check_look_up(&self, project: &Project) -> Result<(), CommandError> {
        let bad = |field, rule| Err(CommandError::Invalid { field, rule });
        let mut provider = project.provider;
        if let Some(name) = &project.kms {
            let Some(service) = self.kms.get(name) else {
                let near = did_you_mean(name, self.kms.keys().map(String::as_str));
                return bad(
                    "kms",
                    format!("no lookup {name:?} is configured; add [kms.{name}] or name another: {near}"),
                );
            };
            match (service.provider(), project.provider) {
                (Some(its), Some(own)) if its != own => {
                    return bad(
                        "kms",
                        format!(
                            "the lookup {name:?} serves keys of {its}, but Atlas encrypts this project with {own}"
                        ),
                    );
                }
                (its, own) => provider = own.or(its),
            }
        }
        let Some(alias) = &project.alias else { return Ok(()) };
        if provider != Some(Provider::Aws) {
            return bad("alias", "only keys of AWS have aliases; leave it out".to_owned());
        }
        let name = alias.strip_prefix("alias/").unwrap_or_default();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b));
        if name.is_empty() || alias.len() > 256 || !plain || name.starts_with("aws/") {
            return bad(
                "alias",
                format!("{alias:?} is not the name of an alias of yours, such as alias/atlas-prod"),
            );
        }
        Ok(())
    }
}

/// The row of the audit log about a changed project.
pub(in crate::engine) fn edited(by: &str, it: &Project, changes: Option<&serde_json::Value>) -> NewAudit {
    let detail = json!({
        "name": it.name, "owners": it.owners, "credential": it.credential, "environment": it.environment,
        "kms": it.kms, "alias": it.alias, "keySince": it.key_since, "policy": it.policy, "changes": changes,
    });
    record(by, "project.edited", &it.group_id, &detail)
}

/// A refused tag that nobody here has written.
fn of_atlas(refused: CommandError) -> CommandError {
    match refused {
        CommandError::Invalid { field, rule } => CommandError::Invalid {
            field,
            rule: format!(
                "the project's tag in Atlas: {rule}; name another with --environment, or \"\" for none"
            ),
        },
        other => other,
    }
}

fn check_environment(tag: Option<&str>) -> Result<(), CommandError> {
    let good = |tag: &str| tag.chars().count() <= LONGEST_TAG && !tag.contains(is_hidden);
    if tag.is_none_or(good) {
        return Ok(());
    }
    let rule = format!("a tag takes at most {LONGEST_TAG} characters and no hidden ones");
    Err(CommandError::Invalid { field: "environment", rule })
}

fn record(actor: &str, action: &str, group: &GroupId, detail: &serde_json::Value) -> NewAudit {
    NewAudit {
        actor: actor.to_owned(),
        action: action.to_owned(),
        subject: format!("project/{group}"),
        detail: detail.to_string(),
    }
}
