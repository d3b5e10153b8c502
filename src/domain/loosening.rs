//! Whether a change of a project makes it easier to move its key, field by field.
//!
//! Few changes are tighter, and each is named here. Every other change of what decides who must agree loosens: it
//! takes an admin, is announced, and takes effect later. A change of a field that decides nothing is not a
//! [`Change`].

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::named::named;
use super::patch::Patch;
use super::policy::{Policy, Window};
use super::project::{PolicyEdit, PolicyOverride, Project};

named! {
    /// The direction of a change.
    Course, "course of a change" {
        /// The key is harder to move afterwards.
        Tighter = "tighter",
        /// Everything else.
        Looser = "looser",
    }
}

named! {
    /// What a change does.
    LooseningKind, "kind of change" {
        /// It loosens, and takes effect later.
        Loosening = "loosening",
        /// It tightens. Its author may undo it for an hour.
        Tightening = "tightening",
        /// It changes the owners.
        Owners = "owners",
        /// It changes the lookup or the alias.
        Lookup = "lookup",
    }
}

named! {
    /// How far a change is.
    LooseningState, "state of a change" {
        /// It is announced; somebody who must hear of it has not been reached.
        Announcing = "announcing",
        /// It was announced and takes effect at `effectiveAt`.
        Waiting = "waiting",
        /// It has taken effect.
        Effective = "effective",
        /// It was withdrawn.
        Withdrawn = "withdrawn",
    }
}

impl LooseningState {
    /// Whether it is to take effect.
    #[must_use]
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::Announcing | Self::Waiting)
    }
}

/// What decides whose agreement a project's rotations need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Safeguards {
    /// The policy in force.
    pub policy: Policy,
    /// The Atlas credential.
    pub credential: String,
    /// The lookup.
    pub kms: Option<String>,
    /// AWS: the alias.
    pub alias: Option<String>,
    /// The tag.
    pub environment: Option<String>,
}

impl Safeguards {
    /// Those of a project.
    #[must_use]
    pub fn of(project: &Project, defaults: &Policy) -> Self {
        Self {
            policy: project.policy(defaults),
            credential: project.credential.clone(),
            kms: project.kms.clone(),
            alias: project.alias.clone(),
            environment: project.environment.clone(),
        }
    }
}

/// A changed field that decides who must agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The field as the API names it, such as `policy.approvals`.
    pub field: String,
    /// The direction.
    pub course: Course,
    /// The value in force before; null where there was none.
    pub from: Value,
    /// The value afterwards.
    pub to: Value,
}

/// The fields of a project, beside its policy, that only an admin changes where `autoApprove` is on.
const WHERE_AUTO_APPROVED: [&str; 3] = ["credential", "kms", "alias"];

/// The rules of the policy that decide who must agree, and who hears when nobody acts, as the API names them.
const RULES: [&str; 13] = [
    "interval",
    "approvals",
    "selfApproval",
    "approvalTtl",
    "executionTtl",
    "autoApprove",
    "windows",
    "freezes",
    "escalate",
    "approvers",
    "approvalMethod",
    "emergency",
    "allowVersionless",
];

/// Every field that decides who must agree, as the API names it.
pub fn fields() -> impl Iterator<Item = String> {
    let rules = RULES.iter().map(|rule| format!("policy.{rule}"));
    rules.chain(WHERE_AUTO_APPROVED.iter().map(|field| (*field).to_owned())).chain(["environment".to_owned()])
}

/// The changes between two states of a project that decide who must agree. `approvers` people may approve.
#[must_use]
pub fn changes(before: &Safeguards, after: &Safeguards, approvers: u32) -> Vec<Change> {
    let (old, new) = (&before.policy, &after.policy);
    let tighter = |field: &str| match field {
        "interval" => new.interval < old.interval,
        "approvalTtl" => new.approval_ttl < old.approval_ttl,
        "executionTtl" => new.execution_ttl < old.execution_ttl,
        "approvals" => new.approvals > old.approvals && new.approvals <= approvers,
        "windows" => fewer(&old.windows, &new.windows),
        "freezes" => old.freezes.iter().all(|freeze| new.freezes.contains(freeze)),
        // Each address still hears, and no later.
        "escalate" => old.escalate.iter().all(|step| {
            let hears =
                |mail: &String| new.escalate.iter().any(|it| it.after <= step.after && it.to.contains(mail));
            step.to.iter().all(hears)
        }),
        "emergency" => old.emergency.is_tightened_by(&new.emergency),
        "approvalMethod" => new.approval_method > old.approval_method,
        _ => false,
    };
    let (was, is) = (members(old), members(new));
    let mut found = Vec::new();
    for rule in RULES {
        let (from, to) = (member(&was, rule), member(&is, rule));
        if from != to {
            let course = if tighter(rule) { Course::Tighter } else { Course::Looser };
            found.push(Change { field: format!("policy.{rule}"), course, from, to });
        }
    }
    let mut text = |field: &str, from: Option<&str>, to: Option<&str>| {
        if from != to {
            let (from, to) = (from.into(), to.into());
            found.push(Change { field: field.to_owned(), course: Course::Looser, from, to });
        }
    };
    if !old.auto_approve.is_empty() || !new.auto_approve.is_empty() {
        text("credential", Some(&before.credential), Some(&after.credential));
        text("kms", before.kms.as_deref(), after.kms.as_deref());
        text("alias", before.alias.as_deref(), after.alias.as_deref());
    }
    text("environment", before.environment.as_deref(), after.environment.as_deref());
    found
}

/// Whether `new` is the first window, or some of several.
fn fewer(old: &[Window], new: &[Window]) -> bool {
    if old.is_empty() {
        return new.len() == 1;
    }
    let mut left = old.to_vec();
    let among = new.iter().all(|window| {
        let place = left.iter().position(|it| it == window);
        place.map(|place| left.swap_remove(place)).is_some()
    });
    !new.is_empty() && among && !left.is_empty()
}

/// What an operator may do with `field` without an admin, in one sentence.
#[must_use]
pub fn rule(field: &str, approvers: u32) -> String {
    match field {
        "policy.interval" | "policy.approvalTtl" | "policy.executionTtl" => {
            "only a shorter time is tighter".to_owned()
        }
        "policy.approvals" => {
            format!(
                "only more approvals are tighter, up to the number of people who may approve ({approvers})"
            )
        }
        "policy.windows" => "only the first window, or a part of several windows, is tighter".to_owned(),
        "policy.freezes" => "only more freezes are tighter".to_owned(),
        "policy.escalate" => "only more addresses, or earlier ones, are tighter".to_owned(),
        "policy.emergency" => "only fewer names, or more approvals, are tighter".to_owned(),
        "policy.approvalMethod" => "only a stronger method is tighter".to_owned(),
        "credential" | "kms" | "alias" => {
            "decides what is approved without a person (autoApprove)".to_owned()
        }
        _ => "every change of it loosens".to_owned(),
    }
}

/// A change that takes effect later: the values to set. Null clears one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HeldEdit {
    /// The rules of the policy.
    #[serde(skip_serializing_if = "PolicyEdit::is_empty")]
    pub policy: PolicyEdit,
    /// The Atlas credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// The lookup.
    #[serde(skip_serializing_if = "Patch::is_absent")]
    pub kms: Patch<String>,
    /// AWS: the alias.
    #[serde(skip_serializing_if = "Patch::is_absent")]
    pub alias: Patch<String>,
    /// The tag.
    #[serde(skip_serializing_if = "Patch::is_absent")]
    pub environment: Patch<String>,
}

impl HeldEdit {
    /// Takes `fields` out of the change from `before` to `after`: `after` keeps the old values, and the result has
    /// the new ones.
    ///
    /// # Errors
    /// A policy has no JSON form.
    pub fn take(before: &Project, after: &mut Project, fields: &[&str]) -> Result<Self, serde_json::Error> {
        let mut held = Self::default();
        let (old, mut new) = (own(before)?, own(after)?);
        let mut rules = Map::new();
        for field in fields {
            match *field {
                "credential" => {
                    held.credential =
                        Some(std::mem::replace(&mut after.credential, before.credential.clone()));
                }
                "kms" => held.kms = std::mem::replace(&mut after.kms, before.kms.clone()).into(),
                "alias" => held.alias = std::mem::replace(&mut after.alias, before.alias.clone()).into(),
                "environment" => {
                    held.environment =
                        std::mem::replace(&mut after.environment, before.environment.clone()).into();
                }
                rule => {
                    let rule = rule.strip_prefix("policy.").unwrap_or(rule);
                    rules.insert(rule.to_owned(), new.remove(rule).unwrap_or(Value::Null));
                    if let Some(value) = old.get(rule) {
                        new.insert(rule.to_owned(), value.clone());
                    }
                }
            }
        }
        held.policy = serde_json::from_value(Value::Object(rules))?;
        after.policy = Some(serde_json::from_value::<PolicyOverride>(Value::Object(new))?)
            .filter(|own| *own != PolicyOverride::default());
        Ok(held)
    }

    /// Sets the values in `project`.
    pub fn apply(self, project: &mut Project) {
        project.policy = self.policy.onto(project.policy.take());
        if let Some(credential) = self.credential {
            project.credential = credential;
        }
        self.kms.apply(&mut project.kms);
        self.alias.apply(&mut project.alias);
        self.environment.apply(&mut project.environment);
    }
}

/// The project's own rules, by name.
fn own(project: &Project) -> Result<Map<String, Value>, serde_json::Error> {
    let own = project.policy.as_ref().map(serde_json::to_value).transpose()?;
    Ok(match own {
        Some(Value::Object(rules)) => rules,
        _ => Map::new(),
    })
}

fn members(policy: &Policy) -> Value {
    serde_json::to_value(policy).unwrap_or_default()
}

fn member(policy: &Value, rule: &str) -> Value {
    policy.get(rule).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests;
